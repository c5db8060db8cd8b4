"""Rows written while a version is being published: kept where they still mean something, left behind where not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.support.publishing import in_space, publish_any
from tests.support.shop import AS_OF, DIM, ENGINES, Shop, qdrant, served_shop, write_version

from feast_embeddings.artifact import Artifact
from feast_embeddings.publish.run import STEPS
from feast_embeddings.query.store import EmbeddingStore

NEW_AS_OF = AS_OF + timedelta(days=10)
LATE = NEW_AS_OF + timedelta(hours=1)


@pytest.fixture(params=ENGINES)
def shop(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[Shop]:
    """A shop with one version live."""
    yield from served_shop(request, tmp_path)


def aligned(shop: Shop, **more: Any) -> Artifact:
    """A newer version in the space of the live one."""
    return in_space(write_version(shop.repo.data, seed=1, as_of=NEW_AS_OF, **more), shop.artifact.manifest.space_id)


def late_user(shop: Shop, user: str, number: float, at: datetime = LATE, *, of: Artifact | None = None) -> pd.DataFrame:
    """The row of one user as a fold-in writes it: with a vector of its own, as of the live version."""
    manifest = (of or shop.artifact).manifest
    row = {
        "user_id": user,
        "embedding": [np.full(DIM, number, dtype=np.float32)],
        "n_interactions": 1,
        "seen_items": [["sku-3"]],
        "country": "FR",
        "version": manifest.version,
        "space": manifest.space_id,
        "event_timestamp": at,
        "created_timestamp": at,
    }
    return pd.DataFrame(row)


def push(shop: Shop, user: str, number: float, at: datetime = LATE, *, of: Artifact | None = None) -> None:
    """Write one user as a fold-in does."""
    shop.feature_store.write_to_online_store("shop_user_embeddings", late_user(shop, user, number, at, of=of))


def served(shop: Shop, *users: str) -> list[float | None]:
    """The first number of each one's vector."""
    found = EmbeddingStore(shop.feature_store, "shop").user_embeddings(users)
    return [float(vector[0]) if is_there else None for vector, is_there in zip(found.vectors, found.found, strict=True)]


def test_a_row_is_kept_whenever_it_comes(shop: Shop) -> None:
    """New users and a known one, written as any step begins, are served after the switch, with all they have."""
    newer = aligned(shop)
    begun: dict[str, float] = {}

    def write(step: str) -> None:
        if step not in begun:
            begun[step] = 7.0 + len(begun)
            push(shop, f"late-{step}", begun[step])
            push(shop, "u-1", begun[step], LATE + timedelta(minutes=len(begun)))

    result = publish_any(shop.feature_store, newer, on_step=write)
    assert tuple(begun) == STEPS
    assert served(shop, *(f"late-{step}" for step in STEPS), "u-1") == [*begun.values(), begun["clear"]]
    # The new ones from check to switch, and the known one, once; the later ones were written where they belong.
    assert result.n_late == STEPS.index("switch") + 1 + 1
    store = EmbeddingStore(shop.feature_store, "shop")
    found = store.user_embeddings(["late-load", "u-2"])
    assert (found.version, found.event_timestamps) == (newer.manifest.version, [LATE, NEW_AS_OF])
    assert "sku-3" not in store.rank("late-load", 100).ids
    assert set(store.similar_users("late-load", len(STEPS), filter="country = 'FR'").ids) == {
        "u-1",
        *(f"late-{step}" for step in STEPS if step != "load"),
    }


def test_a_row_of_before_the_publish_is_kept_too(shop: Shop) -> None:
    """Folded in while the old version was live, and newer than what the new one was trained on."""
    push(shop, "late", 7)
    newest = in_space(write_version(shop.repo.data, seed=2, as_of=NEW_AS_OF), shop.artifact.manifest.space_id)
    publish_any(shop.feature_store, newest)
    again = in_space(write_version(shop.repo.data, seed=3, as_of=NEW_AS_OF), shop.artifact.manifest.space_id)
    publish_any(shop.feature_store, again)
    assert served(shop, "late") == [7]
    trained_on_it = in_space(write_version(shop.repo.data, seed=4, as_of=LATE), shop.artifact.manifest.space_id)
    publish_any(shop.feature_store, trained_on_it)
    assert served(shop, "late") == [None]


def test_what_is_not_late_is_left_behind(shop: Shop) -> None:
    """Rows that the new training saw, rows of the old artifact itself, and any row of another space."""
    push(shop, "seen", 7, NEW_AS_OF)
    push(shop, "u-1", 8, NEW_AS_OF - timedelta(seconds=1))
    newer = aligned(shop, n_users=10)
    assert publish_any(shop.feature_store, newer).n_late == 0
    vectors = newer.table("user")["embedding"].to_pylist()
    assert served(shop, "seen", "u-1", "u-15") == [None, vectors[1][0], None]
    push(shop, "late", 9, of=newer)
    other = write_version(shop.repo.data, seed=5, as_of=NEW_AS_OF)
    assert publish_any(shop.feature_store, other).n_late == 0
    assert served(shop, "late") == [None]


def test_the_old_artifact_is_not_late_though_its_cut_off_is(shop: Shop) -> None:
    """A version trained up to an earlier time replaces the live one wholly, but for what came after both cut-offs."""
    push(shop, "late", 7)
    back = in_space(
        write_version(shop.repo.data, seed=1, as_of=AS_OF - timedelta(days=30)), shop.artifact.manifest.space_id
    )
    assert publish_any(shop.feature_store, back).n_late == 1
    vectors = back.table("user")["embedding"].to_pylist()
    assert served(shop, "late", "u-1") == [7, vectors[1][0]]


def test_going_back_serves_a_version_as_it_was(shop: Shop) -> None:
    """What was written into the newer version stays in it."""
    newer = aligned(shop)
    publish_any(shop.feature_store, newer)
    push(shop, "late", 7, of=newer)
    publish_any(shop.feature_store, shop.artifact)
    assert served(shop, "late") == [None]
    publish_any(shop.feature_store, newer)
    assert served(shop, "late") == [7]


def test_a_write_that_a_switch_overtakes_is_not_lost(shop: Shop) -> None:
    """The writer has looked up what is live, then another version goes live, then the writer writes."""
    newer = aligned(shop)
    engine = qdrant(shop.feature_store).engine(shop.feature_store.config)
    look_up = engine.aliases

    def overtaken() -> dict[str, str]:
        before = look_up()
        patch.undo()
        publish_any(shop.feature_store, newer)
        return before

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "aliases", overtaken)
        push(shop, "late", 7)
    assert served(shop, "late", "u-1") == [7, newer.table("user")["embedding"].to_pylist()[1][0]]


def test_a_row_of_a_version_that_was_live_only_meanwhile(shop: Shop) -> None:
    """Another publish goes live after this one has looked up what is; what was written into that one is kept too."""
    meanwhile = aligned(shop)
    newest = in_space(write_version(shop.repo.data, seed=2, as_of=NEW_AS_OF), shop.artifact.manifest.space_id)

    def overtake(step: str) -> None:
        if step == "switch":
            push(shop, "before", 6)
            publish_any(shop.feature_store, meanwhile)
            push(shop, "meanwhile", 7, of=meanwhile)
            push(shop, "u-1", 8, of=meanwhile)

    result = publish_any(shop.feature_store, newest, on_step=overtake)
    assert served(shop, "before", "meanwhile", "u-1") == [6, 7, 8]
    assert result.n_late == 3
    assert EmbeddingStore(shop.feature_store, "shop").live_version() == newest.manifest.version


def test_a_publish_that_died_after_its_switch_is_finished_by_the_next(shop: Shop) -> None:
    """Rows that came between its last look and its switch are taken along when it is run again, and Feast is told."""
    newer = aligned(shop)

    def die(step: str) -> None:
        if step == "switch":
            push(shop, "late", 7)
        if step == "carry":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish_any(shop.feature_store, newer, on_step=die)
    assert served(shop, "late") == [None]
    result = publish_any(shop.feature_store, newer)
    assert (result.changed, result.n_late) == (False, 1)
    assert served(shop, "late") == [7]
    view = shop.feature_store.get_feature_view("shop_user_embeddings")
    assert view.materialization_intervals[-1][1] == NEW_AS_OF
    assert publish_any(shop.feature_store, newer).n_late == 0
    assert shop.feature_store.get_feature_view("shop_user_embeddings") == view

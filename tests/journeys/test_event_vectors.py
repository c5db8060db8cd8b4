"""Recorded events become stored vectors, over each engine: those that `rank` uses, once, whoever stops in between."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.sparse import csr_matrix
from tests.conftest import Command
from tests.support import process_jobs
from tests.support.job import Job
from tests.support.publishing import publish_any
from tests.support.shop import ENGINES, Shop, new_repo, serving

from embedding_trainers.fold_in import fold_in
from embedding_trainers.interactions import Columns, read_interactions
from embedding_trainers.models.als import ALS, fold_in_als
from embedding_trainers.train import train_model
from embedding_trainers.trainer import KnownSide, RunOptions
from feast_embeddings.artifact import Artifact, embedding_matrix
from feast_embeddings.query.events.histories import vectors_now
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.repo import Repo

Start = Callable[..., Job]
N_USERS, N_ITEMS = 40, 24
FIRST = datetime(2026, 4, 1, tzinfo=UTC)
LATER = FIRST + timedelta(days=30)
PARAMETERS = {"factors": 8, "iterations": 5}


def write_log() -> pa.Table:
    """Users like items of their half; some interactions weigh more, and users have attributes."""
    rng = np.random.default_rng(0)
    rows = [
        (f"u-{user}", f"sku-{item + 12 * (user % 2)}", float(rng.integers(1, 4)))
        for user in range(N_USERS)
        for item in rng.choice(N_ITEMS // 2, 6, replace=False).tolist()
    ]
    users, items, weights = zip(*rows, strict=True)
    times = [FIRST + timedelta(minutes=int(minute)) for minute in rng.permutation(len(rows))]
    return pa.table({"user_id": users, "item_id": items, "weight": weights, "timestamp": times})


LOG = write_log()


def trained(repo: Repo, seed: int = 0) -> Artifact:
    """A version in a space of its own."""
    countries = pa.table({"user_id": [f"u-{i}" for i in range(N_USERS)], "country": ["NL", "DE"] * (N_USERS // 2)})
    return train_model(
        repo.path, "shop", LOG, columns=Columns(weight="weight"), user_attributes=countries, user_content="none",
        trainer="als", parameters=PARAMETERS, options=RunOptions(seed=seed), evaluation=False, align_to=None,
    ).artifact  # fmt: skip


@pytest.fixture(scope="module", params=ENGINES)
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    repo = new_repo(request, tmp_path_factory.mktemp("vectors") / "repo")
    artifact = trained(repo)
    yield from serving(request, repo, artifact)


@pytest.fixture
def store(shop: Shop) -> Iterator[EmbeddingStore]:
    yield EmbeddingStore(shop.feature_store, "shop")
    (shop.repo.data / "shop.events.sqlite").unlink(missing_ok=True)


def event(user: str, item: str, minutes: int, weight: float = 1.0) -> dict[str, Any]:
    return {"user_id": user, "item_id": item, "weight": weight, "timestamp": LATER + timedelta(minutes=minutes)}


def ranked(store: EmbeddingStore, user: str, **options: Any) -> tuple[list[Any], npt.NDArray[np.float32]]:
    answer = store.rank(user, N_ITEMS, **options)
    return answer.ids, answer.scores


def same(left: tuple[list[Any], npt.NDArray[np.float32]], right: tuple[list[Any], npt.NDArray[np.float32]]) -> None:
    assert left[0] == right[0]
    np.testing.assert_allclose(left[1], right[1], rtol=1e-5, atol=1e-6)


def row(store: EmbeddingStore, entity: Any, id: str) -> dict[str, Any]:
    (found,) = (each for each in store.export(entity).read_all().to_pylist() if each[f"{entity}_id"] == id)
    return dict(found)


def test_a_user_has_the_vector_that_rank_used(store: EmbeddingStore, shop: Shop) -> None:
    """With history and events, and their weights; attributes stay; no event counts twice, and each later one once."""
    before = row(store, "user", "u-0")
    again = before["seen_items"][1]
    store.add_interactions([event("u-0", again, 2, 2.0), event("u-0", "sku-23", 1, 3.0), event("u-0", "gone", 1)])
    wanted = ranked(store, "u-0"), ranked(store, "u-0", exclude_seen=False)
    weights = {r["item_id"]: r["weight"] for r in LOG.to_pylist() if r["user_id"] == "u-0"}
    weights = {"sku-23": 3.0} | weights | {again: weights[again] + 2.0}
    rows = [{"user_id": "u-0", "item_id": item, "weight": weight} for item, weight in weights.items()]
    log = read_interactions(pa.Table.from_pylist(rows), Columns(weight="weight"))
    vector = fold_in(shop.artifact, "user", log).vectors[0]

    folded = store.fold_in_events("user", push=True)
    assert (folded.ids, folded.known.to_pylist(), folded.missing.to_pylist()) == (["u-0"], ["u-0"], [])
    assert (folded.n_interactions, folded.n_unknown) == (3, 1)
    np.testing.assert_allclose(folded.vectors[0], vector, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(store.user_embeddings(["u-0"]).vectors[0], folded.vectors[0])
    same(ranked(store, "u-0"), wanted[0])
    same(ranked(store, "u-0", exclude_seen=False), wanted[1])
    after = row(store, "user", "u-0")
    assert after["seen_items"] == [i for i in before["seen_items"] if i != again] + ["sku-23", "gone", again]
    assert after["event_timestamp"] == LATER + timedelta(minutes=2)
    assert after["n_interactions"] == before["n_interactions"] + 2
    changed = {"embedding", "seen_items", "event_timestamp", "n_interactions"}
    assert {k: v for k, v in after.items() if k not in changed} == {k: v for k, v in before.items() if k not in changed}
    assert not len(store.fold_in_events("user", push=True).table)

    store.add_interactions([event("u-0", "sku-22", 3, 2.0), event("u-0", again, 4, 5.0)])
    weights = weights | {"sku-22": 2.0, again: weights[again] + 5.0}
    same(ranked(store, "u-0"), _visitor(store, weights | {"gone": 1.0}))


def _visitor(store: EmbeddingStore, history: dict[Any, float]) -> tuple[list[Any], npt.NDArray[np.float32]]:
    answer = store.rank_visitor(history, N_ITEMS)
    return answer.ids, answer.scores


def test_newcomers(store: EmbeddingStore, shop: Shop) -> None:
    """Every query has them, and so has Feast; who did nothing with what is known is missing."""
    store.add_interactions([event("new", "sku-1", 1), event("new", "sku-2", 2), event("odd", "gone", 1)])
    wanted = ranked(store, "new")
    assert store.user_embeddings(["new"]).found.tolist() == [False]
    folded = store.fold_in_events("user")
    assert store.user_embeddings(["new"]).found.tolist() == [False]  # not without push
    assert (folded.ids, folded.missing.to_pylist(), len(folded.known)) == (["new"], ["odd"], 0)
    pushed = store.push_events()
    assert (pushed.users, pushed.items) == (1, 0)
    same(ranked(store, "new"), wanted)
    assert "new" in store.users_for_item("sku-3", N_USERS).ids
    assert "new" in store.similar_users("u-2", N_USERS).ids
    online = shop.feature_store.get_online_features(
        ["shop_user_embeddings:embedding", "shop_user_embeddings:country"], [{"user_id": "new"}]
    ).to_dict()
    np.testing.assert_array_equal(np.array(online["embedding"][0], np.float32), folded.vectors[0])
    assert online["country"] == [None]
    assert row(store, "user", "new")["event_timestamp"] == LATER + timedelta(minutes=2)


def test_new_items(store: EmbeddingStore, shop: Shop) -> None:
    """Folded in from the vectors that their users have now, newcomers among them; again when more events come."""
    users = ["u-4", "u-6", "fan"]
    store.add_interactions(
        [event("fan", "sku-1", 0), event("fan", "sku-2", 0), event("lost", "alone", 0)]
        + [event(user, "brand-new", i, 2.0) for i, user in enumerate(users)]
    )
    pushed = store.push_events()
    assert pushed[:3] == (3, 1, 2)  # the user and the item that know only each other are missing
    vector = store.item_embeddings(["brand-new"]).vectors[0]
    np.testing.assert_allclose(vector, _als_item(store, shop, dict.fromkeys(users, 2.0)), rtol=1e-4, atol=1e-5)
    assert row(store, "item", "brand-new")["event_timestamp"] == LATER + timedelta(minutes=2)
    assert "brand-new" in store.rank("u-8", N_ITEMS + 1).ids
    assert len(store.similar_items("brand-new", 3).ids) == 3
    assert "brand-new" in store.similar_items("sku-1", N_ITEMS + 1).ids
    assert store.push_events()[:2] == (0, 0)
    assert store.push_events(pushed.position)[:3] == (0, 0, 0)

    store.add_interactions([event("u-10", "brand-new", 9)])
    assert store.push_events(pushed.position)[:3] == (1, 1, 0)
    vector = store.item_embeddings(["brand-new"]).vectors[0]
    np.testing.assert_allclose(
        vector, _als_item(store, shop, dict.fromkeys(users, 2.0) | {"u-10": 1.0}), rtol=1e-4, atol=1e-5
    )


def _als_item(store: EmbeddingStore, shop: Shop, weights: dict[str, float]) -> npt.NDArray[np.float32]:
    """The trainer's equations of an item with these users, whose vectors are the stored ones."""
    table = shop.artifact.table("user")
    ids = table["user_id"].to_pylist()
    new = [user for user in weights if user not in ids]
    factors = np.concatenate([embedding_matrix(table), np.zeros((len(new), 8), np.float32)])
    places = [[*ids, *new].index(user) for user in weights]
    factors[places] = store.user_embeddings(list(weights)).vectors
    known = KnownSide("user", factors, np.zeros(len(factors), np.float32), np.array([6] * len(ids) + [0] * len(new)))
    interactions = csr_matrix((list(weights.values()), ([0] * len(places), places)), (1, len(factors)), np.float32)
    config = ALS.configure(shop.artifact.manifest.trainer.config)
    found: npt.NDArray[np.float32] = fold_in_als(interactions, known, config, RunOptions()).factors[0]
    return found


def test_on_the_command_line(
    store: EmbeddingStore, shop: Shop, command: Command, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """It writes a file, pushes, or both, and says how many; options of a log mean nothing with it."""
    if "stand-in" in request.node.name:
        pytest.skip("the stand-in for a server is in the memory of its own store")
    asked = ("fold-in", "--events", "--repo", shop.repo.path, "--model", "shop")
    nothing = command(*asked, "--entity", "user", "--push")
    assert (nothing.code, nothing.out.split(" folded")[0]) == (0, "0 users")
    store.add_interactions(
        [event("u-12", "sku-23", 1), event("cli-user", "sku-1", 1), event("cli-user", "cli-item", 2)]
    )
    wanted = ranked(store, "u-12")
    file = tmp_path / "users.parquet"
    said = command(*asked, "--entity", "user", "--output", file, "--push", "--json")
    assert said.code == 0, said.err
    report = json.loads(said.out)
    assert (report["folded_in"], report["known"], report["interactions"], report["unknown"]) == (2, 1, 3, 1)
    assert sorted(pq.read_table(file)["user_id"].to_pylist()) == ["cli-user", "u-12"]
    same(ranked(store, "u-12"), wanted)
    said = command(*asked, "--entity", "item", "--push")
    assert said.out.startswith(f"1 item folded into version {shop.artifact.manifest.version}, and pushed"), said
    assert store.item_embeddings(["cli-item"]).found.all()
    again = command(*asked, "--entity", "item", "--push")
    assert again.out.startswith("0 items"), again
    for wrong in (
        ["--interactions", "log.csv"],
        ["--update"],
        ["--users", "u.csv"],
        ["--seed", 1],
        ["--version", "live"],
    ):
        refused = command(*asked, "--entity", "user", "--push", *wrong)
        assert (refused.code, "has no effect with --events" in refused.err) == (2, True), refused
    assert command(*asked, "--entity", "user").code == 2  # neither a file nor a push


def test_a_kill_at_any_step(shop: Shop, store: EmbeddingStore, start: Start, request: pytest.FixtureRequest) -> None:
    """Killed in the push of users, or between users and items, and run again, it leaves what one run leaves."""
    if "stand-in" in request.node.name:
        pytest.skip("the stand-in for a server is in the memory of its own store")
    moments = random.Random(0)  # noqa: S311
    users = [f"u-{n}" for n in range(14, 20)] + ["kill-user"]
    store.add_interactions([event(user, item, 1, 2.0) for user in users for item in ("sku-20", "kill-item")])
    wanted = _now(store, users)
    for step in ("users", "users", "items"):
        job = start(process_jobs.push_events_and_tell, shop.repo.path)
        while job.receive() != step:
            pass
        time.sleep(moments.uniform(0, 0.05))
        job.kill()
    store.push_events()
    np.testing.assert_allclose(store.user_embeddings(users).vectors, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(_now(store, users), wanted, rtol=1e-5, atol=1e-6)
    vector = store.item_embeddings(["kill-item"]).vectors[0]
    np.testing.assert_allclose(vector, _als_item(store, shop, dict.fromkeys(users, 2.0)), rtol=1e-4, atol=1e-5)
    assert store.push_events()[:2] == (0, 0)


def _now(store: EmbeddingStore, users: list[str]) -> list[npt.NDArray[np.float32]]:
    """The vectors that rank uses."""
    live = store.live()
    vectors, _ = vectors_now(live.side("user"), live.visitors, live.events, users, histories=False)
    assert all(vector is not None for vector in vectors)
    return [vector for vector in vectors if vector is not None]


def test_follow_pushes(
    shop: Shop, store: EmbeddingStore, command: Command, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """After each batch; and at the start, what a process recorded that was killed before it pushed."""
    if "stand-in" in request.node.name:
        pytest.skip("the stand-in for a server is in the memory of its own store")
    follow = ("follow", "--source", tmp_path, "--repo", shop.repo.path, "--model", "shop", "--once", "--push")
    text = "user_id,item_id,timestamp\n{},sku-20,2026-05-02T00:00:00Z\n{},follow-item,2026-05-02T00:00:01Z\n"
    (tmp_path / "a.csv").write_text(text.format("u-21", "follow-user"))
    (tmp_path / "b.csv").write_text(text.format("follow-user", "u-23"))
    said = command(*follow)
    assert (said.code, said.err) == (0, "")
    assert said.out == (
        "a.csv: 2 added; 1 behind; pushed 1 users and 0 items\nb.csv: 2 added; 0 behind; pushed 2 users and 1 items\n"
    )
    assert store.user_embeddings(["follow-user"]).found.all()
    assert store.item_embeddings(["follow-item"]).found.all()
    (tmp_path / "c.csv").write_text("user_id,item_id,timestamp\nu-25,sku-20,2026-05-02T00:00:00Z\n")
    assert command(*follow[:-1], "--quiet").code == 0  # recorded, and not pushed
    before = store.user_embeddings(["u-25"]).vectors[0]
    said = command(*follow, "--json")
    assert (said.code, said.out) == (0, "")
    np.testing.assert_allclose(store.user_embeddings(["u-25"]).vectors[0], _now(store, ["u-25"])[0], rtol=1e-6)
    assert (store.user_embeddings(["u-25"]).vectors[0] != before).any()


def test_a_rollback(shop: Shop, store: EmbeddingStore) -> None:
    """Events count again in the version that goes live, which has another space and was not pushed into."""
    store.add_interactions([event("u-27", "sku-20", 1), event("back", "sku-1", 1), event("u-27", "back-item", 2)])
    assert store.push_events()[:2] == (2, 1)
    at_first = store.user_embeddings(["u-27", "back"]).vectors
    other = trained(shop.repo, seed=1)
    publish_any(shop.feature_store, other)
    wanted = _now(store, ["u-27", "back"])
    assert not np.allclose(wanted, at_first, atol=0.1)
    assert store.push_events()[:2] == (2, 1)
    np.testing.assert_allclose(store.user_embeddings(["u-27", "back"]).vectors, wanted, rtol=1e-5, atol=1e-6)
    publish_any(shop.feature_store, shop.artifact)
    np.testing.assert_allclose(_now(store, ["u-27", "back"]), at_first, rtol=1e-5, atol=1e-6)
    store.push_events()
    np.testing.assert_allclose(store.user_embeddings(["u-27", "back"]).vectors, at_first, rtol=1e-5, atol=1e-6)
    assert store.push_events()[:2] == (0, 0)

"""Forget: no byte of an id is left below the repo, everything else is as it was, and a kill loses nothing."""

from __future__ import annotations

import base64
import dataclasses
import os
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from qdrant_client import QdrantClient
from tests.conftest import Command
from tests.support.job import Job
from tests.support.maps import save_any_map
from tests.support.publishing import in_space, publish_any
from tests.support.shop import AS_OF, ENGINES, Shop, apply, item_table, new_repo, qdrant, user_table, write_tables

from feast_embeddings.artifact import list_artifacts, load_artifact
from feast_embeddings.artifact.history import history_folder
from feast_embeddings.artifact.seen import NEXT_TO_SEEN
from feast_embeddings.codec.seen_weights import unpacked
from feast_embeddings.engines.server.engine import ServerEngine
from feast_embeddings.errors import IdTypeError, InputError, UnknownIdError
from feast_embeddings.publish.versions import list_versions, roll_back
from feast_embeddings.query.store import EmbeddingStore

N = 24
# Spread over all changes of files that one call makes.
KILLS = 5
USERS = [f"zz-forget-me-{i}-7f3a" for i in range(N)]
ITEMS = [f"yy-lose-me-{i}-91bc" for i in range(N)]


def seen_by(user: int) -> list[str]:
    return [ITEMS[user], ITEMS[(user + 1) % N]]


def weights_of(user: int) -> dict[str, float]:
    return dict(zip(seen_by(user), [user + 2.0, 0.5], strict=True))


def times_of(user: int) -> dict[str, datetime]:
    return {item: AS_OF - timedelta(days=place) for place, item in enumerate(seen_by(user), user)}


def version(data: Path, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    users = user_table(rng, pa.array(USERS), [seen_by(user) for user in range(N)])
    users = dataclasses.replace(
        users,
        seen_weights=pa.array([[*weights_of(user).values()] for user in range(N)], NEXT_TO_SEEN["seen_weights"]),
        seen_times=pa.array([[*times_of(user).values()] for user in range(N)], NEXT_TO_SEEN["seen_times"]),
    )
    artifact = write_tables(data, users, item_table(rng, pa.array(ITEMS)), as_of=AS_OF, seed=seed)
    return in_space(artifact, "one")


def open_shop(request: pytest.FixtureRequest, folder: Path) -> Shop:
    """Two published versions, and interactions since."""
    repo = new_repo(request, folder / "repo")
    first, second = version(repo.data, 0), version(repo.data, 1)
    feature_store = apply(repo)
    if request.param == "server-stand-in":
        qdrant(feature_store)._engine = ServerEngine(QdrantClient(":memory:"), streams=1)
    publish_any(feature_store, first)
    publish_any(feature_store, second)
    store = EmbeddingStore(feature_store, "shop")
    store.add_interactions(
        [{"user_id": u, "item_id": i, "event_id": f"{u}/{i}"} for u, i in zip(USERS[:-1], ITEMS[1:], strict=True)]
    )
    store.set_attributes(
        items={id: {"price": 5.5} for id in ITEMS}, users={id: {"country": f"of {id}"} for id in USERS}
    )
    return Shop(repo, second, feature_store)


@pytest.fixture(params=ENGINES)
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    shop = open_shop(request, tmp_path)
    yield shop
    shop.feature_store.teardown()  # type: ignore[no-untyped-call]
    qdrant(shop.feature_store).engine(shop.feature_store.config).close()


def mentions(folder: Path, text: str) -> list[str]:
    """Every file below a folder that has the text: its bytes, or a Parquet file's decompressed values."""
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        raw = path.read_bytes()
        texts = [raw]
        if raw[:4] == b"PAR1":
            texts.append(repr(pq.read_table(path, partitioning=None).to_pylist()).encode())
            texts.append(repr(pq.read_metadata(path).to_dict()).encode())
        if any(encoded in one for one in texts for encoded in encodings(text)):
            found.append(str(path.relative_to(folder)))
    return found


def encodings(text: str) -> list[bytes]:
    """The text itself, and what it is in base64 at each offset."""
    inner = [base64.b64encode(b"\0" * shift + text.encode())[4:-4] for shift in range(3)]
    return [text.encode(), *inner]


def stored(shop: Shop) -> dict[str, dict[Any, Any]]:
    """Collection -> point -> its payload and the bytes of its vectors."""
    engine = qdrant(shop.feature_store).engine(shop.feature_store.config)
    found: dict[str, dict[Any, Any]] = {}
    for alias in [alias for alias in engine.aliases() if alias.startswith(shop.feature_store.project)]:
        for name, spec in engine.collections(alias).items():
            pages = engine.scroll(name, payload=None, vectors=list(spec.vectors))
            found[name] = {
                point.id: (point.payload, {n: v.tobytes() for n, v in point.vectors.items()})
                for page in pages
                for point in page
            }
    return found


def test_the_scan_finds_what_is_there(shop: Shop) -> None:
    """The oracle of these tests sees the id in each kind of file; without that it would prove nothing."""
    found = mentions(shop.repo.path, USERS[3])
    assert any(name.endswith("users.parquet") for name in found)
    assert any("history" in name for name in found)
    assert any(name.startswith("data/shop.events.sqlite") for name in found)
    # No interaction has these, only an attribute that was set.
    for id in (USERS[-1], ITEMS[0]):
        assert any(name.startswith("data/shop.events.sqlite") for name in mentions(shop.repo.path, id))
    if (shop.repo.path / "qdrant_storage").exists():
        assert any(name.startswith("qdrant_storage/shards") for name in found)
        assert any(name.startswith("qdrant_storage/shards") for name in mentions(shop.repo.path, ITEMS[3]))


def test_hidden_ids_are_forgotten(shop: Shop) -> None:
    """Those and no others."""
    store, file = EmbeddingStore(shop.feature_store, "shop"), "data/shop.hidden.json"
    store.hide(users=USERS[:4], items=ITEMS[:4])
    assert file in mentions(shop.repo.path, USERS[3])
    store.forget(users=[USERS[3]], items=[ITEMS[0]])
    assert mentions(shop.repo.path, USERS[3]) == mentions(shop.repo.path, ITEMS[0]) == []
    assert sorted(map(str, store.hidden("user"))) == USERS[:3]
    assert sorted(map(str, store.hidden("item"))) == ITEMS[1:4]


def test_saved_maps_are_forgotten(shop: Shop) -> None:
    """Whoever is on them, and who gives a segment its name."""
    store = EmbeddingStore(shop.feature_store, "shop")
    for artifact in list_artifacts(shop.repo.data, "shop"):
        save_any_map(artifact, "user", [ITEMS[5]])
        save_any_map(artifact, "item", [ITEMS[4]])
    assert sum("map-" in name for name in mentions(shop.repo.path, ITEMS[5])) == 4
    store.forget(users=[USERS[3]], items=[ITEMS[5]])
    assert mentions(shop.repo.path, USERS[3]) == mentions(shop.repo.path, ITEMS[5]) == []
    assert sum("map-" in name for name in mentions(shop.repo.path, ITEMS[4])) == 2


def test_no_byte_of_a_user_is_left_and_the_others_are_unchanged(shop: Shop) -> None:
    store, gone = EmbeddingStore(shop.feature_store, "shop"), [USERS[3], USERS[7]]
    before, planned = stored(shop), store.forget(users=gone, dry_run=True)
    assert stored(shop) == before
    done = store.forget(users=gone)
    assert done == planned
    assert (len(done.versions), len(done.collections), done.points, done.lists, done.events) == (2, 2, 4, 0, 2)

    for user in gone:
        assert mentions(shop.repo.path, user) == []
        with pytest.raises(UnknownIdError):
            store.similar_users(user)
    points = set(store._watch.sides["user"].point_ids(gone))
    after = stored(shop)
    assert after == {
        name: {id: value for id, value in held.items() if id not in points} for name, held in before.items()
    }
    for artifact in list_artifacts(shop.repo.data, "shop"):
        assert artifact.table("user")["user_id"].to_pylist() == [user for user in USERS if user not in gone]
        assert artifact.table("item")["item_id"].to_pylist() == ITEMS
        ((entity, count),) = [(record.entity, record.count) for record in artifact.manifest.forgotten]
        assert (entity, count, artifact.manifest.n_users, artifact.manifest.n_items) == ("user", 2, N - 2, N)
    again = store.forget(users=gone)
    assert (again.versions, again.collections, again.points, again.events) == ([], [], 0, 0)
    assert stored(shop) == after


def test_no_byte_of_an_item_is_left_also_in_what_users_saw(shop: Shop) -> None:
    store, gone = EmbeddingStore(shop.feature_store, "shop"), ITEMS[5]
    before = stored(shop)
    done = store.forget(items=[gone])
    assert (len(done.versions), len(done.collections), done.points, done.lists, done.events) == (2, 4, 2, 4, 1)
    assert mentions(shop.repo.path, gone) == []
    for artifact in list_artifacts(shop.repo.data, "shop"):
        seen = [[item for item in seen_by(user) if item != gone] for user in range(N)]
        table = artifact.table("user")
        assert table["seen_items"].to_pylist() == seen
        for name, of in (("seen_weights", weights_of), ("seen_times", times_of)):
            assert table[name].to_pylist() == [[of(user)[item] for item in seen[user]] for user in range(N)]
        assert artifact.manifest.forgotten[0].count == 1
    side = store._watch.sides["user"]
    after = stored(shop)
    for name, held in after.items():
        for id, (payload, vectors) in held.items():
            assert vectors == before[name][id][1]
            if side.id_name in payload:
                user = USERS.index(payload[side.id_name])
                left = [item for item in seen_by(user) if item != gone]
                assert side.codec.native("seen_items", payload) == left
                assert unpacked(payload, len(left)) == [weights_of(user)[item] for item in left]
    assert gone not in store.rank(USERS[-1], k=N, exclude_seen=False).ids
    assert len(store.rank(USERS[-1], k=N, exclude_seen=False).ids) == N - 1


def test_the_versions_work_afterwards(shop: Shop) -> None:
    """Publish, rollback, the listing and training frames of every version, without the forgotten."""
    store = EmbeddingStore(shop.feature_store, "shop")
    store.forget(users=[*USERS[:2]], items=ITEMS[:1])
    assert mentions(shop.repo.path, ITEMS[0]) == []
    versions = list_versions(shop.feature_store, shop.repo.data, "shop")
    assert [(v.points, v.problem, v.kept) for v in versions] == [({"user": N - 2, "item": N - 1}, None, True)] * 2
    assert not publish_any(shop.feature_store, load_artifact(shop.repo.data, "shop")).changed
    assert roll_back(shop.feature_store, shop.repo.data, "shop").version == versions[0].version
    assert store.live_version() == versions[0].version
    loaded = stored(shop)
    result = publish_any(shop.feature_store, load_artifact(shop.repo.data, "shop"))
    assert (result.changed, result.n_users, stored(shop)) == (True, N - 2, loaded)
    times = [AS_OF.replace(month=8)] * 3
    frame = store.training_frame(pd.DataFrame({"user_id": USERS[1:4], "event_timestamp": times}))
    assert [value is not None for value in frame["user_embedding"].tolist()] == [False, True, True]


def test_what_cannot_be_asked(shop: Shop) -> None:
    store = EmbeddingStore(shop.feature_store, "shop")
    before = stored(shop)
    with pytest.raises(InputError, match="expected ids of users or items, got none"):
        store.forget()
    with pytest.raises(InputError, match="takes a list of ids"):
        store.forget(users="u-1")
    with pytest.raises(IdTypeError, match="are text, got 7"):
        store.forget(users=[USERS[0]], items=[7])
    assert stored(shop) == before


def test_the_command_asks_first(shop: Shop, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (shop.repo.path / "qdrant_storage").exists():
        pytest.skip("the command opens the repo's own store")
    repo = shop.repo.path
    answers = iter([False])
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: "y" if next(answers) else "n")
    refused = command("forget", "--repo", repo, "--user", USERS[0])
    assert refused.code != 0
    assert (
        "will remove 2 points and 0 mentions from 2 collections in Qdrant, rows from 2 versions on disk" in refused.out
    )
    assert mentions(repo, USERS[0])
    done = command("forget", "--repo", repo, "--user", USERS[0], "--item", ITEMS[0], "--item", ITEMS[1], "--yes")
    assert (done.code, done.err) == (0, "")
    assert done.out == (
        "removed 6 points and 4 mentions from 4 collections in Qdrant, rows from 2 versions on disk, "
        "1 recorded interaction\n"
    )
    for id in (USERS[0], ITEMS[0], ITEMS[1]):
        assert mentions(repo, id) == []
    bad = command("forget", "--repo", repo)
    assert (bad.code, bad.err.count("\n")) == (2, 1)
    assert "--user ID or --item ID" in bad.err
    assert command("forget", "--repo", repo, "--user", "a", "--json").code == 2
    assert command("doctor", "--repo", repo, "--max-age", 100_000).code == 0


def forget_until(pipe: Any, repo: str, user: str, item: str, steps: int) -> None:
    """Forget, and die with SIGKILL at this change of a file; says how many there were if it lives longer."""
    from feast import FeatureStore

    store = EmbeddingStore(FeatureStore(repo), "shop")
    count = 0

    def hook(event: str, _: Any) -> None:
        nonlocal count
        if event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree", "os.truncate"):
            count += 1
            if count == steps:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    store.forget(users=[user], items=[item])
    pipe.send(count)


@pytest.mark.parametrize("request_param", ["embedded"])
def test_killed_at_any_change_of_a_file(
    request: pytest.FixtureRequest, request_param: str, tmp_path: Path, start: Callable[..., Job]
) -> None:
    """kill -9 at each rename, deletion or new folder: every version stays whole, and running it again finishes."""
    request.param = request_param
    shop = open_shop(request, tmp_path)
    repo, feature_store = shop.repo, shop.feature_store
    total = start(forget_until, str(repo.path), USERS[0], ITEMS[0], -1).finish()[0]
    assert total >= KILLS
    gone = 1
    for number, steps in enumerate(np.unique(np.linspace(1, total, KILLS).astype(int)).tolist(), start=1):
        assert start(forget_until, str(repo.path), USERS[number], ITEMS[number], steps).exit_code() == -signal.SIGKILL
        for artifact in list_artifacts(repo.data, "shop"):
            for entity, ids in (("user", USERS), ("item", ITEMS)):
                there = artifact.table(entity)[f"{entity}_id"].to_pylist()  # type: ignore[arg-type]
                assert there in (ids[gone:], ids[gone + 1 :])
        store = EmbeddingStore(feature_store, "shop")
        assert len(store.similar_users(USERS[-1], k=N).ids) in (N - gone - 1, N - gone - 2)
        store.forget(users=[USERS[number]], items=[ITEMS[number]])
        gone += 1
        for id in (USERS[number], ITEMS[number]):
            assert mentions(repo.path, id) == []
        for entity in ("user", "item"):
            history = history_folder(repo.data / "shop", entity)
            tables = [pq.read_table(path) for path in history.iterdir()]
            assert [table.num_rows for table in tables] == [N - gone] * 2
    qdrant(feature_store).engine(feature_store.config).close()


def test_events_of_a_log_that_is_read_meanwhile(tmp_path: Path) -> None:
    """While another process reads, the bytes cannot go; it says so, and again finishes."""
    from feast_embeddings.errors import EmbeddingsError
    from feast_embeddings.events import Event, EventLog, file

    events = EventLog(tmp_path / "x.sqlite")
    events.add([Event(user, ITEMS[0], 1, 1.0, None) for user in USERS])
    reader = sqlite3.connect(events.path)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM events").fetchone()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file, "_WAIT_SECONDS", 0.1)
        with pytest.raises(EmbeddingsError, match="run it again"):
            events.forget([USERS[0]], [])
    assert events.count([USERS[0]], []) == 0
    reader.close()
    assert events.forget([USERS[0]], []) == 0
    assert mentions(tmp_path, USERS[0]) == []
    assert events.count(USERS, []) == events.count([], ITEMS) == N - 1

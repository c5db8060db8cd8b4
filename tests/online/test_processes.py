"""Several processes on one repo, and processes that are killed. Real ones: each job of process_jobs is a process."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, PushSource, ValueType
from feast.types import Int64
from tests.support import process_jobs as jobs
from tests.support.job import TIMEOUT, Job
from tests.support.publishing import publish_any
from tests.support.shop import apply

from feast_embeddings.artifact import list_artifacts
from feast_embeddings.doctor import examine
from feast_embeddings.engines.embedded.engine import EmbeddedEngine
from feast_embeddings.publish.versions import prune_versions
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.repo import Repo, init_repo


def versions(repo: Repo) -> list[str]:
    """The versions on disk, each one verified against its checksums."""
    artifacts = list_artifacts(repo.data, jobs.MODEL)
    for artifact in artifacts:
        assert artifact.table("user").num_rows == artifact.manifest.n_users
        assert artifact.table("item").num_rows == artifact.manifest.n_items
    return [artifact.manifest.version for artifact in artifacts]


def history(repo: Repo, entity: str) -> set[str]:
    """The versions that DuckDB finds in the history, where Feast reads it; each must be whole."""
    files = str(repo.data / jobs.MODEL / "history" / f"{entity}s" / "*.parquet")
    query = "SELECT version, count(*), count(embedding) FROM read_parquet(?) GROUP BY version"
    with duckdb.connect() as connection:
        found = connection.execute(query, [files]).fetchall()
    for version, rows, vectors in found:
        (artifact,) = (a for a in list_artifacts(repo.data, jobs.MODEL) if a.manifest.version == version)
        expected = artifact.manifest.n_users if entity == "user" else artifact.manifest.n_items
        assert (rows, vectors) == (expected, expected)
    return {version for version, _, _ in found}


@pytest.mark.parametrize("job", [jobs.write_versions, jobs.train_versions], ids=["write", "train"])
def test_killed_training(
    job: Callable[..., None], tmp_path: Path, start: Callable[..., Job], rng: np.random.Generator
) -> None:
    """Killed at any moment, training leaves whole versions only, and a history that can be read."""
    repo = init_repo(tmp_path / "repo")
    (repo.path / "log.csv").write_text(
        "user_id,item_id\n" + "".join(f"u-{u},sku-{(u * i) % 50}\n" for u in range(100) for i in range(9))
    )
    whole: list[str] = []
    for round in range(10):
        writer = start(job, repo.data, round * 1000)
        whole.append(writer.receive())
        time.sleep(rng.uniform(0, 0.06))
        said = writer.kill()
        whole += said
        found = versions(repo)
        # One more may have been whole before the writer could say so.
        assert set(whole) <= set(found)
        assert len(found) <= len(whole) + 1
        whole = found
        for entity in ("user", "item"):
            missing = set(whole) - history(repo, entity)
            assert len(missing) <= 1, "only the version that was being written may be missing from the history"
    folder = repo.data / jobs.MODEL
    after = start(job, repo.data, 99_000)
    after.receive()
    after.receive()
    after.kill()
    newest = set(versions(repo))
    assert len(newest) >= len(whole) + 2
    assert len(newest - history(repo, "item")) <= 1
    # Only what the last kill left may be there.
    assert len([*folder.glob(".*"), *(folder / "history").glob(".*")]) <= 1


@pytest.fixture
def shop(tmp_path: Path) -> tuple[Repo, FeatureStore]:
    """A repo with one published version, and an ordinary feature view `clicks`."""
    repo = init_repo(tmp_path / "repo")
    artifact = jobs.write_random(repo.data, 0)
    feature_store = apply(repo, jobs.MODEL)
    user = Entity(name="clicker", join_keys=["user_id"], value_type=ValueType.INT64)
    batch = FileSource(name="clicks_file", path=str(tmp_path / "none.parquet"), timestamp_field="event_timestamp")
    source = PushSource(name="clicks_push", batch_source=batch)
    schema = [Field(name="user_id", dtype=Int64), Field(name="clicks", dtype=Int64)]
    feature_store.apply([user, source, FeatureView(name="clicks", entities=[user], schema=schema, source=source)])
    publish_any(feature_store, artifact)
    return repo, feature_store


def pointer(repo: Repo) -> dict[str, Any]:
    """What the embedded engine says is there."""
    content: dict[str, Any] = json.loads((repo.path / "qdrant_storage" / "pointer.json").read_text())
    return content


def assert_no_leftovers(repo: Repo) -> None:
    """Every folder of shards is one that a collection uses."""
    used = {collection["shard"] for collection in pointer(repo)["collections"].values()}
    shards = repo.path / "qdrant_storage" / "shards"
    assert {path.name for path in shards.iterdir() if path.is_dir()} == used


def test_killed_publish(shop: tuple[Repo, FeatureStore], start: Callable[..., Job], rng: np.random.Generator) -> None:
    """Killed at any moment, a publish leaves a live version that answers fully, and the next publish works."""
    repo, feature_store = shop
    reader, truth = EmbeddingStore(feature_store, jobs.MODEL), jobs.Truth(repo.data)
    live = truth.check_all(reader)
    seconds = 0.0
    killed = 0
    moments = [0.0, *rng.permutation(np.linspace(0, 1, 16))]
    for round, moment in enumerate(moments):
        artifact = jobs.write_random(repo.data, round + 1)
        version = artifact.manifest.version
        publisher = start(jobs.publish, repo.path, version)
        assert publisher.receive() == "ready"
        publisher.pipe.send("go")
        if round == 0:
            # Time of an undisturbed run; the others are killed within that time.
            ((outcome, seconds),) = publisher.finish()
            assert outcome == "changed"
        else:
            time.sleep(moment * seconds)
            killed += not publisher.kill()
        live_now = truth.check_all(reader)
        assert live_now in (live, version)
        feature_store = apply(repo, jobs.MODEL)
        publish_any(feature_store, artifact)
        live = truth.check_all(reader)
        assert live == version
        assert truth.check_all(EmbeddingStore(feature_store, jobs.MODEL)) == version
        assert_no_leftovers(repo)
    assert killed >= 1
    shards = repo.path / "qdrant_storage" / "shards"
    for lock in shards.glob("*.building"):
        os.utime(lock, (0, 0))
    publish_any(feature_store, jobs.write_random(repo.data, 99))
    assert list(shards.glob("*.building")) == []


def test_what_killed_writers_leave_is_told_and_cleared(
    shop: tuple[Repo, FeatureStore], start: Callable[..., Job]
) -> None:
    """Each a copy of a collection: while the writer lives it is no leftover; then a dry run names it, a prune goes."""
    repo, feature_store = shop
    artifact = jobs.write_random(repo.data, 1)
    engine = EmbeddedEngine(repo.path / "qdrant_storage")
    for count in range(3):
        publisher = start(jobs.publish_until, repo.path, artifact.manifest.version, "index")
        assert publisher.receive() == "index"
        assert len(engine.leftovers()) == count
        publisher.kill()
        assert len(engine.leftovers()) == count + 1
    left = engine.leftovers()
    assert prune_versions(feature_store, repo.data, jobs.MODEL, dry_run=True).leftovers == left
    findings = [found for found in examine(repo).findings if found.check == "leftovers" and found.level == "warning"]
    assert len(findings) == 1
    assert all(name in findings[0].message for name in left)
    assert prune_versions(feature_store, repo.data, jobs.MODEL).leftovers == left
    assert engine.leftovers() == []
    assert_no_leftovers(repo)


@pytest.mark.parametrize("how", ["push", "online_write_batch"])
def test_killed_push(
    how: str, shop: tuple[Repo, FeatureStore], start: Callable[..., Job], rng: np.random.Generator
) -> None:
    """A row whose write has returned is there, whenever the process is killed after that."""
    repo, feature_store = shop
    written: list[int] = []
    for round in range(6):
        first = 1 + 1000 * round
        pusher = start(jobs.push_rows, repo.path, how, first, 900)
        assert pusher.receive() == "ready"
        pusher.pipe.send("go")
        said = [pusher.receive() for _ in range(int(rng.integers(0, 4)))]
        time.sleep(rng.uniform(0, 0.1))
        said += pusher.kill()
        assert said == list(range(first, first + len(said)))
        written += said
        assert jobs.read_clicks(feature_store, written) == [number**2 for number in written]
        following = range(first + len(said), first + len(said) + 3)
        begun, *later = jobs.read_clicks(feature_store, following)
        assert begun in (None, following[0] ** 2)
        assert later == [None, None]
    assert len(written) >= 6


def parts_at_work(folder: Path) -> list[str]:
    """The processes that write a part of a shard in this folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            command = process.read_text()
            if "shard_part" in command and str(folder) in command:
                found.append(command)
    return found


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc, to see what processes there are")
def test_killed_while_several_processes_write(
    tmp_path: Path, start: Callable[..., Job], rng: np.random.Generator
) -> None:
    """What was written before stays whole; the helpers end by themselves, and the next write clears up."""
    folder = tmp_path / "store"
    written: list[int] = []
    for round in range(3):
        writer = start(jobs.fill_collections, folder, 1000 * round)
        said = [writer.receive()]
        time.sleep(rng.uniform(0, 0.4))
        written += said + writer.kill()
        deadline = time.monotonic() + TIMEOUT
        while parts_at_work(folder):
            assert time.monotonic() < deadline, "the helpers of a killed writer go on"
            time.sleep(0.01)
    engine = EmbeddedEngine(folder)
    for name, collection in json.loads((folder / "pointer.json").read_text())["collections"].items():
        segments = list((folder / "shards" / collection["shard"] / "segments").iterdir())
        # Those of two processes, or one of all.
        assert len(segments) == (2 if int(name.rpartition("_")[2]) % 2 else 1)
    for number in written:
        expected = [jobs.filled_points(number, part) for part in range(20)]
        ids = [id for batch in expected for id in batch.ids]
        points = engine.retrieve(jobs.filled_collection(number), ids, vectors=["v"])
        vectors = np.stack([point.vectors["v"] for point in points if point is not None])
        assert vectors.tobytes() == np.concatenate([batch.vectors["v"][0] for batch in expected]).tobytes()
        assert engine.count(jobs.filled_collection(number)) == len(ids)
    engine.drop(jobs.filled_collection(number) for number in written)
    engine.close()
    # But for locks whose folder had not been made yet.
    assert [path.name for path in (folder / "shards").iterdir() if path.suffix != ".building"] == []


def test_readers_during_publishes(shop: tuple[Repo, FeatureStore], start: Callable[..., Job]) -> None:
    """While versions are published one after the other, every answer in three readers is of one version."""
    repo, _ = shop
    readers = [start(jobs.read_until_told, repo.path) for _ in range(3)]
    first = list_artifacts(repo.data, jobs.MODEL)[0].manifest.version
    for reader in readers:
        assert reader.receive() == first
    for seed in range(1, 6):
        version = jobs.write_random(repo.data, seed).manifest.version
        publisher = start(jobs.publish, repo.path, version)
        assert publisher.receive() == "ready"
        publisher.pipe.send("go")
        assert publisher.finish()[0][0] == "changed"
        if seed <= 3:
            # No reader is told; each one finds the new version by itself.
            assert [reader.receive() for reader in readers] == [version] * 3
    # The last two came as fast as they could be published, and a reader may have passed over some.
    last = [reader.receive() for reader in readers]
    for reader, seen in zip(readers, last, strict=True):
        while seen != version:
            assert seen > first
            seen = reader.receive()
        reader.pipe.send("stop")
        (rounds,) = reader.finish()
        assert rounds > 5


def test_readers_during_pushes(shop: tuple[Repo, FeatureStore], start: Callable[..., Job]) -> None:
    """While rows are pushed and readers come and go, no read or write fails and no row is lost."""
    repo, feature_store = shop
    n = 12
    readers = [start(jobs.read_clicks_until_told, repo.path, n) for _ in range(3)]
    assert [reader.receive() for reader in readers] == ["ready"] * 3
    pusher = start(jobs.push_rows, repo.path, "push", 1, n)
    assert pusher.receive() == "ready"
    pusher.pipe.send("go")
    assert pusher.finish() == [*range(1, n + 1), "done"]
    for reader in readers:
        reader.pipe.send("stop")
        (count,) = reader.finish()
        assert count <= n
    # What could not be deleted under the eyes of a reader is deleted by the next writer.
    publish_any(feature_store, jobs.write_random(repo.data, 1))
    assert jobs.read_clicks(feature_store, range(1, n + 1)) == [number**2 for number in range(1, n + 1)]
    assert_no_leftovers(repo)


def test_two_publishes_at_once(shop: tuple[Repo, FeatureStore], start: Callable[..., Job]) -> None:
    """Both succeed; one of the two is live afterwards, whole."""
    repo, feature_store = shop
    names = [jobs.write_random(repo.data, seed).manifest.version for seed in (1, 2)]
    publishers = [start(jobs.publish, repo.path, version) for version in names]
    assert [publisher.receive() for publisher in publishers] == ["ready", "ready"]
    for publisher in publishers:
        publisher.pipe.send("go")
    assert [publisher.finish()[0][0] for publisher in publishers] == ["changed", "changed"]
    reader = EmbeddingStore(feature_store, jobs.MODEL)
    assert jobs.Truth(repo.data).check_all(reader) in names
    assert_no_leftovers(repo)


def test_two_pushers_at_once(shop: tuple[Repo, FeatureStore], start: Callable[..., Job]) -> None:
    """One waits for the other; no row of either is lost."""
    repo, feature_store = shop
    # The first write makes the collection.
    first = start(jobs.push_rows, repo.path, "push", 0, 1)
    first.receive()
    first.pipe.send("go")
    assert first.finish() == [0, "done"]
    pushers = [start(jobs.push_rows, repo.path, "push", start_at, 6) for start_at in (1000, 2000)]
    assert [pusher.receive() for pusher in pushers] == ["ready", "ready"]
    for pusher in pushers:
        pusher.pipe.send("go")
    assert [pusher.finish()[-1] for pusher in pushers] == ["done", "done"]
    numbers = [0, *range(1000, 1006), *range(2000, 2006)]
    assert jobs.read_clicks(feature_store, numbers) == [number**2 for number in numbers]


def test_a_writer_that_cannot_wait(shop: tuple[Repo, FeatureStore], start: Callable[..., Job]) -> None:
    """With a short lock_timeout the second writer is told who holds the lock, and works once it is free."""
    repo, feature_store = shop
    settings = repo.path / "feature_store.yaml"
    settings.write_text(
        settings.read_text().replace("path: qdrant_storage", "path: qdrant_storage\n  lock_timeout: 0.1")
    )
    version = jobs.write_random(repo.data, 1).manifest.version
    holder = start(jobs.hold_lock, repo.path)
    assert holder.receive() == "holding"
    publisher = start(jobs.publish, repo.path, version)
    assert publisher.receive() == "ready"
    publisher.pipe.send("go")
    ((outcome, message),) = publisher.finish()
    assert outcome == "WriterLockedError"
    assert f"(pid {holder.process.pid} on " in message
    held_by = json.loads((repo.path / "qdrant_storage" / "writer.lock").read_text())["program"]
    assert held_by
    assert f"is being written by {held_by} (pid" in message
    assert "waited 0.1 s" in message
    reader, truth = EmbeddingStore(feature_store, jobs.MODEL), jobs.Truth(repo.data)
    assert truth.check_all(reader) != version
    holder.pipe.send("let go")
    assert holder.finish() == []
    again = start(jobs.publish, repo.path, version)
    again.receive()
    again.pipe.send("go")
    assert again.finish()[0][0] == "changed"
    assert truth.check_all(reader) == version


def test_a_reader_sees_what_others_write(shop: tuple[Repo, FeatureStore], start: Callable[..., Job]) -> None:
    """A process that has been reading sees another's publish and push at its next question, without a restart."""
    repo, _ = shop
    first = list_artifacts(repo.data, jobs.MODEL)[0].manifest.version
    reader = start(jobs.answer_on_demand, repo.path)
    reader.pipe.send(7)
    assert reader.receive() == (first, [None])
    pusher = start(jobs.push_rows, repo.path, "push", 7, 1)
    pusher.receive()
    pusher.pipe.send("go")
    assert pusher.finish() == [7, "done"]
    reader.pipe.send(7)
    assert reader.receive() == (first, [49])
    version = jobs.write_random(repo.data, 1).manifest.version
    publisher = start(jobs.publish, repo.path, version)
    publisher.receive()
    publisher.pipe.send("go")
    assert publisher.finish()[0][0] == "changed"
    reader.pipe.send(7)
    assert reader.receive() == (version, [49])
    reader.pipe.send(None)
    assert reader.finish() == []


def test_fork(shop: tuple[Repo, FeatureStore], start: Callable[..., Job]) -> None:
    """After a fork, parent and child both answer, as under a web server that forks its workers."""
    repo, _ = shop
    version = list_artifacts(repo.data, jobs.MODEL)[0].manifest.version
    said = start(jobs.fork, repo.path).finish()
    assert said == [("before", version), ("child", version), ("status", 0), ("parent", version)]


def test_going_back_while_another_publish_comes_in_between(shop: tuple[Repo, FeatureStore]) -> None:
    """Going back to an old version that has to be loaded again succeeds, also if a newer one goes live meanwhile."""
    repo, feature_store = shop
    artifacts = [jobs.write_random(repo.data, seed) for seed in range(1, 5)]
    for artifact in artifacts:
        publish_any(feature_store, artifact)
    newest = jobs.write_random(repo.data, 5)
    oldest, *_ = list_artifacts(repo.data, jobs.MODEL)
    written: list[int] = []

    def publish_another(count: int) -> None:
        written.append(count)
        if len(written) == 2:  # The users of the old version are there, and its items not yet.
            publish_any(feature_store, newest)

    publish_any(feature_store, oldest, progress=publish_another)
    live = EmbeddingStore(feature_store, jobs.MODEL).live_version()
    assert live == oldest.manifest.version

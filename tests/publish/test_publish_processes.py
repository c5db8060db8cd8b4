"""What publish promises, with real processes that read, write, publish and are killed, over both engines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from feast import FeatureStore
from tests.support import process_jobs as jobs
from tests.support.job import Job
from tests.support.publishing import in_space, publish_any
from tests.support.shop import apply, new_repo, qdrant

from feast_embeddings.artifact import load_artifact
from feast_embeddings.publish.run import KEEP, STEPS
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.repo import Repo

Start = Callable[..., Job]
Shop = tuple[Repo, FeatureStore]


@pytest.fixture(params=["embedded", "server"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    """A repo with one published version."""
    repo = new_repo(request, tmp_path / "repo")
    artifact = jobs.write_random(repo.data, 0)
    feature_store = apply(repo, jobs.MODEL)
    publish_any(feature_store, artifact)
    yield repo, feature_store
    feature_store.teardown()  # type: ignore[no-untyped-call]
    qdrant(feature_store).engine(feature_store.config).close()


def assert_no_leftovers(shop: Shop) -> None:
    """All there is in Qdrant is whole versions, no more than are kept; no file of the engine is of anything else."""
    repo, feature_store = shop
    engine = qdrant(feature_store).engine(feature_store.config)
    count = 0
    for alias in engine.aliases():
        if alias.startswith(feature_store.project):
            specs = engine.collections(alias)
            assert all(spec.verified for spec in specs.values())
            assert len(specs) <= KEEP + 1
            count += len(specs)
    shards = repo.path / "qdrant_storage" / "shards"
    if shards.exists():
        assert len([path for path in shards.iterdir() if path.is_dir()]) == count


def killed(shop: Shop, live: str, version: str) -> str:
    """After a kill: the live version answers fully, and publishing again works and leaves nothing over."""
    repo, feature_store = shop
    truth = jobs.Truth(repo.data)
    assert truth.check_all(EmbeddingStore(feature_store, jobs.MODEL)) in (live, version)
    # Feast rewrites its registry file in place. A kill in that instant empties it, which `feast apply` repairs.
    feature_store = apply(repo, jobs.MODEL)
    publish_any(feature_store, load_artifact(repo.data, jobs.MODEL, version))
    assert truth.check_all(EmbeddingStore(feature_store, jobs.MODEL)) == version
    assert_no_leftovers((repo, feature_store))
    return version


def test_killed_at_each_step(shop: Shop, start: Start) -> None:
    """SIGKILL as a step begins: before the switch the old version is live, after it the new one; never both."""
    repo, feature_store = shop
    live = str(EmbeddingStore(feature_store, jobs.MODEL).live_version())
    for seed, step in enumerate(STEPS, 1):
        version = jobs.write_random(repo.data, seed).manifest.version
        publisher = start(jobs.publish_until, repo.path, version, step)
        assert publisher.receive() == step
        publisher.kill()
        now = EmbeddingStore(feature_store, jobs.MODEL).live_version()
        assert now == (live if STEPS.index(step) <= STEPS.index("switch") else version)
        live = killed(shop, live, version)


@pytest.mark.parametrize("count", [4, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_at_any_moment(shop: Shop, start: Start, rng: np.random.Generator, count: int) -> None:
    """SIGKILL at random moments of a publish, spread over how long it takes."""
    repo, feature_store = shop
    live, seconds, n_killed = str(EmbeddingStore(feature_store, jobs.MODEL).live_version()), 0.0, 0
    for seed, moment in enumerate([0.0, *rng.permutation((np.arange(count) + rng.random(count)) / count)], 1):
        version = jobs.write_random(repo.data, seed).manifest.version
        publisher = start(jobs.publish, repo.path, version)
        assert publisher.receive() == "ready"
        publisher.pipe.send("go")
        if seed == 1:
            # Time of an undisturbed run; the others are killed within that time.
            ((outcome, seconds),) = publisher.finish()
            assert outcome == "changed"
        else:
            time.sleep(moment * seconds)
            n_killed += not publisher.kill()
        live = killed(shop, live, version)
    assert n_killed >= count // 4


@pytest.mark.parametrize("count", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_no_answer_mixes_versions(shop: Shop, start: Start, count: int) -> None:
    """Four processes query without a pause while versions are published: vector, ids and scores are of one version."""
    repo, feature_store = shop
    readers = [start(jobs.read_until_told, repo.path) for _ in range(4)]
    first = EmbeddingStore(feature_store, jobs.MODEL).live_version()
    assert [reader.receive() for reader in readers] == [first] * 4
    for seed in range(1, count + 1):
        version = jobs.write_random(repo.data, seed).manifest.version
        publish_any(feature_store, load_artifact(repo.data, jobs.MODEL, version))
    for reader in readers:
        while reader.receive() != version:
            pass
        reader.pipe.send("stop")
        (rounds,) = reader.finish()
        assert rounds > count


def test_no_user_that_is_folded_in_gets_lost(shop: Shop, start: Start) -> None:
    """Another process folds in users while aligned versions are published; each that it has written stays served."""
    repo, feature_store = shop
    space = load_artifact(repo.data, jobs.MODEL).manifest.space_id
    pusher = start(jobs.push_users_until_told, repo.path)
    assert pusher.receive() == "ready"
    for seed in range(1, 4):
        pusher.receive()
        publish_any(feature_store, in_space(jobs.write_random(repo.data, seed), space))
    pusher.pipe.send("stop")
    numbers = []
    while (said := pusher.receive()) != "done":
        numbers.append(said)
    pusher.finish()
    last = numbers[-1]
    found = EmbeddingStore(feature_store, jobs.MODEL).user_embeddings([f"late-{number}" for number in range(last + 1)])
    assert found.missing == []
    assert found.vectors[:, 0].tolist() == list(range(last + 1))
    assert last >= 3


@pytest.mark.parametrize("shop", ["server"], indirect=True)
def test_two_publishes_at_once_lose_no_user(shop: Shop, start: Start) -> None:
    """One goes live while the other, which is newer, is about to; a third process folds in users all the time."""
    repo, feature_store = shop
    space = load_artifact(repo.data, jobs.MODEL).manifest.space_id
    pusher = start(jobs.push_users_until_told, repo.path)
    assert pusher.receive() == "ready"
    older, newer = (in_space(jobs.write_random(repo.data, seed), space).manifest.version for seed in (1, 2))
    second = start(jobs.publish_until, repo.path, newer, "switch")
    assert second.receive() == "switch"
    first = start(jobs.publish, repo.path, older)
    assert first.receive() == "ready"
    first.pipe.send("go")
    assert first.finish()[0][0] == "changed"
    while pusher.pipe.poll():
        pusher.receive()
    # The first of the next two may have been on its way before; the second is of the version in between.
    assert pusher.receive() < pusher.receive()
    second.pipe.send("go")
    assert second.finish() == ["done"]
    assert EmbeddingStore(feature_store, jobs.MODEL).live_version() == newer
    pusher.pipe.send("stop")
    written = [said for said in pusher.finish() if said != "done"]
    found = EmbeddingStore(feature_store, jobs.MODEL).user_embeddings([f"late-{n}" for n in range(written[-1] + 1)])
    assert found.missing == []
    assert found.vectors[:, 0].tolist() == list(range(written[-1] + 1))

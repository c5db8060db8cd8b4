"""`feast apply` and `feast-embeddings publish`, killed at any moment, over both engines: what is live stays whole.

Each is the program itself, in a process that has Feast imported: a kill while it imports would show nothing.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from feast import FeatureStore
from qdrant_client import QdrantClient
from tests.publish.test_publish_processes import Shop, shop
from tests.support import process_jobs as jobs
from tests.support.job import TIMEOUT, Job
from tests.support.shop import qdrant

from feast_embeddings.artifact import ENTITIES
from feast_embeddings.doctor import examine
from feast_embeddings.engines.engine import Engine
from feast_embeddings.model.sides import model_view
from feast_embeddings.publish.versions import prune_versions
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.repo import Repo

__all__ = ["shop"]  # the fixture

Start = Callable[..., Job]


class Commands:
    """The programs, on one repo."""

    def __init__(self, start: Start, repo: Repo, output: Path) -> None:
        self._start, self._output = start, output
        self._lines = {
            "apply": ("feast", "-c", str(repo.path), "apply"),
            "publish": (
                *("feast-embeddings", "publish", "--quiet", "--repo", str(repo.path), "--model", jobs.MODEL),
                *("--allow-worse", "--allow-shrink", "--allow-new-space"),
            ),
        }

    def begin(self, name: str) -> Job:
        """A command at work."""
        job = self._start(jobs.run_program, self._output, *self._lines[name])
        assert job.receive() == "ready"
        job.pipe.send("go")
        return job

    def finish(self, name: str) -> float:
        """Run a command, which must succeed; the seconds that took."""
        job, began = self.begin(name), time.monotonic()
        job.process.join(TIMEOUT)
        assert job.process.exitcode == 0, f"{name}: {self._output.read_text()[-2000:]}"
        return time.monotonic() - began


class State:
    """What is live, and what else is there, as a process finds it that has just come."""

    def __init__(self, repo: Repo) -> None:
        self.repo = repo
        self.feature_store = FeatureStore(repo_path=str(repo.path))
        self.engine: Engine = qdrant(self.feature_store).engine(self.feature_store.config)

    def check_live(self, truth: jobs.Truth) -> str:
        """The one version that answers, all rows of which, and no other, are live."""
        version = truth.check_all(EmbeddingStore(self.feature_store, jobs.MODEL))
        aliases = self.engine.aliases()
        for entity, n in zip(ENTITIES, (jobs.N_USERS, jobs.N_ITEMS), strict=True):
            alias = f"{self.feature_store.project}_{model_view(self.feature_store, jobs.MODEL, entity).name}"
            (live,) = (name for other, name in aliases.items() if other.partition("@")[0] == alias)
            pages = self.engine.scroll(live, payload=["version"], vectors=[])
            assert Counter(point.payload["version"] for page in pages for point in page) == {version: n}
        return version

    def collections(self) -> set[str]:
        """Every collection that is there, by what the engine itself says, not by ours."""
        settings = self.feature_store.config.online_store
        if settings.url is None:
            folder = self.repo.path / "qdrant_storage" / "shards"
            return {path.name for path in folder.iterdir() if path.is_dir()}
        client = QdrantClient(url=settings.url, check_compatibility=False)
        try:
            names = {collection.name for collection in client.get_collections().collections}
        finally:
            client.close()
        return {name for name in names if name.startswith(self.feature_store.project)}

    def known(self, versions: set[str] | None = None) -> set[str]:
        """Those of the collections that are of these versions, or whole."""
        found = set()
        for alias in self.engine.aliases():
            if alias.startswith(self.feature_store.project):
                for name, spec in self.engine.collections(alias).items():
                    if spec.verified if versions is None else spec.version in versions:
                        found.add(name)
        if self.feature_store.config.online_store.url is not None:
            return found
        pointer = json.loads((self.repo.path / "qdrant_storage" / "pointer.json").read_text())
        return {pointer["collections"][name]["shard"] for name in found}

    def check_reported(self) -> int:
        """What is neither live nor kept is named by doctor; how many collections that is."""
        stray = self.collections() - self.known()
        findings = examine(self.repo).findings
        said = " ".join(f.message for f in findings if f.check == "leftovers" and f.level == "warning")
        unfinished = {version for version in self._versions() if version in said}
        assert {name for name in stray if name not in said} <= self.known(unfinished)
        assert [f for f in findings if f.level == "problem" and f.check in ("store", "live", "spaces")] == []
        return len(stray)

    def _versions(self) -> set[str]:
        return {path.name for path in (self.repo.data / jobs.MODEL).iterdir()}

    def prune(self) -> None:
        """Nothing stays but what is live."""
        version = EmbeddingStore(self.feature_store, jobs.MODEL).live_version()
        prune_versions(self.feature_store, self.repo.data, jobs.MODEL, keep=0)
        assert self.collections() == self.known({str(version)})
        assert len(self.collections()) == 2

    def close(self) -> None:
        self.engine.close()


@pytest.mark.parametrize("rounds", [6, pytest.param(40, marks=pytest.mark.slow)])
def test_killed_at_any_moment(
    shop: Shop,
    start: Start,
    rng: np.random.Generator,
    rounds: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """After each kill the live version answers, whatever is left is named, and the same commands then succeed."""
    repo, reader_store = shop
    commands, truth = Commands(start, repo, tmp_path / "output"), jobs.Truth(repo.data)
    reader = EmbeddingStore(reader_store, jobs.MODEL)  # opened once, for all that follows
    jobs.write_random(repo.data, 1, varied=True)
    seconds = {name: commands.finish(name) for name in ("apply", "publish")}
    moments = rng.permutation((np.arange(rounds) + rng.random(rounds)) / rounds)
    live, killed, strays = truth.check_all(reader), Counter[str](), 0
    for seed, moment in enumerate(moments, 2):
        version = jobs.write_random(repo.data, seed, varied=True).manifest.version
        name = "apply" if seed % 3 == 0 else "publish"
        if name == "publish":
            commands.finish("apply")
        job = commands.begin(name)
        job.process.join(moment * seconds[name])
        job.kill()
        killed[name] += job.process.exitcode == -9
        state = State(repo)
        now = state.check_live(truth)
        assert now == truth.check_all(reader)
        assert now in ((live, version) if name == "publish" else (live,))
        strays += state.check_reported()
        state.close()
        for following in ("apply", "publish"):
            commands.finish(following)
        state = State(repo)
        live = state.check_live(truth)
        assert live == version == truth.check_all(reader)
        assert state.check_reported() == 0
        if seed % 2:
            state.prune()
            assert truth.check_all(reader) == live
        state.close()
    assert sum(killed.values()) >= rounds // 2
    with capsys.disabled():
        took = ", ".join(f"{name} {second:.1f} s" for name, second in seconds.items())
        print(f"\n{took}; killed of {rounds}: {dict(killed)}; {strays} collections were left, named and cleared")

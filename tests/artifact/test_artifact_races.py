"""Versions of one model, written and deleted by several processes, which are killed; and by any order of calls."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from tests.support import process_jobs as jobs
from tests.support.job import Job

from feast_embeddings.artifact import ENTITIES, delete_artifacts, list_artifacts, load_artifact, version_folders
from feast_embeddings.artifact import new_version as artifact_module
from feast_embeddings.artifact.history import history_folder
from feast_embeddings.publish.versions import list_versions
from feast_embeddings.repo import init_repo

Start = Callable[..., Job]


def check_whole(data: Path) -> list[str]:
    """The versions on disk, each with the tables that its training wrote."""
    artifacts = list_artifacts(data, jobs.MODEL)
    for artifact in artifacts:
        for entity in ENTITIES:
            assert set(artifact.table(entity)["version"].to_pylist()) == {artifact.manifest.version}
    return [artifact.manifest.version for artifact in artifacts]


def check_history(data: Path, versions: list[str]) -> None:
    """Each version's rows are there, under one schema, and nothing else."""
    for entity in ENTITIES:
        files = sorted(history_folder(data / jobs.MODEL, entity).iterdir())
        assert [file.stem for file in files] == versions
        tables = [pq.read_table(file, partitioning=None) for file in files]
        assert all(table.schema.equals(tables[0].schema) for table in tables)
        assert [set(table["version"].to_pylist()) for table in tables] == [{version} for version in versions]


def hidden(data: Path) -> list[Path]:
    folder = data / jobs.MODEL
    return [*folder.glob(".*"), *folder.glob("history/.*")]


@pytest.mark.parametrize("rounds", [5, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_and_raced(
    rounds: int, tmp_path: Path, start: Start, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two trainings and a prune at a time, of which one is killed each round: nothing but what was deleted is lost."""
    data = tmp_path / "data"
    jobs.write_random(data, 0)

    def begin(number: int) -> Job:
        return start(jobs.delete_versions, data) if number % 3 == 2 else start(jobs.write_versions, data, number * 1000)

    at_work = {number: begin(number) for number in range(3)}
    said: dict[int, list[str]] = {number: [] for number in range(3)}
    for round in range(rounds):
        # Until the one that is to die is in the middle of it.
        victim = int(rng.integers(0, 3))
        said[victim].append(at_work[victim].receive())
        at_work[victim].process.join(float(rng.uniform(0, 0.05)))
        assert at_work[victim].process.exitcode is None, "it failed before it was killed"
        said[victim] += at_work[victim].kill()
        at_work[victim] = begin(victim + 3 * (round + 1))
    for number, job in at_work.items():
        assert job.process.exitcode is None, "it failed while others were killed"
        said[number] += job.kill()
    deleted = set(said[2])
    for number in (0, 1):
        assert said[number] == sorted(set(said[number])), "a newer version had an older name"
    assert len({*said[0], *said[1]}) == len(said[0]) + len(said[1]), "two trainings gave one name"
    whole = check_whole(data)
    assert {*said[0], *said[1]} - deleted <= set(whole)
    after = jobs.write_random(data, 99).manifest.version
    assert max(whole) < after
    assert hidden(data) == []
    check_history(data, check_whole(data))
    with capsys.disabled():
        written = len(said[0]) + len(said[1])
        print(f"\n{rounds} processes killed, {written} versions written, {len(deleted)} deleted, none lost")


def test_listing_while_versions_go(tmp_path: Path, start: Start) -> None:
    """What a prune deletes between the look at the folder and the look into it is not listed, and no error."""
    repo = init_repo(tmp_path / "repo")
    jobs.write_random(repo.data, 0)
    feature_store = repo.feature_store()
    writer, pruner = start(jobs.write_versions, repo.data, 0), start(jobs.delete_versions, repo.data)
    seen = 0
    for _ in range(15):
        writer.receive()
        for listed in (list_versions(feature_store, repo.data, jobs.MODEL), list_artifacts(repo.data, jobs.MODEL)):
            assert listed
            seen += len(listed)
        assert all(row.manifest and row.bytes_on_disk for row in list_versions(feature_store, repo.data, jobs.MODEL))
    writer.kill()
    assert pruner.kill()
    assert seen


class Clock(datetime):
    """What the writer of versions takes for the time."""

    at = datetime(2026, 1, 1, tzinfo=UTC)

    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
        return cls.at.astimezone(tz)


class Versions(RuleBasedStateMachine):
    """A model of what is on disk: versions in the order of their writing, with the seed of each."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.data = Path(self.folder.name) / "data"
        self.expected: dict[str, int] = {}
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(artifact_module, "datetime", Clock)
        Clock.at = datetime(2026, 1, 1, tzinfo=UTC)

    def teardown(self) -> None:
        self.patch.undo()
        self.folder.cleanup()

    @rule(milliseconds=st.one_of(st.integers(-2, 2), st.integers(-(10**12), 10**11)))
    def set_the_clock(self, milliseconds: int) -> None:
        Clock.at += timedelta(milliseconds=milliseconds)

    @rule(seed=st.integers(0, 5))
    def write(self, seed: int) -> None:
        version = jobs.write_random(self.data, seed, varied=True).manifest.version
        assert all(version > other for other in self.expected)
        self.expected[version] = seed
        self.check_all()

    @precondition(lambda self: self.expected)
    @rule(chosen=st.data())
    def delete(self, chosen: st.DataObject) -> None:
        unwanted = chosen.draw(st.sets(st.sampled_from(sorted(self.expected))))
        delete_artifacts(self.data, jobs.MODEL, unwanted)
        for version in unwanted:
            del self.expected[version]
        self.check_all()

    @precondition(lambda self: self.expected)
    @rule(what=st.sampled_from(["version", "link", "half", "cut", "extra"]))
    def be_killed_or_meddled_with(self, what: str) -> None:
        """What processes leave that are killed, here or in older releases, and what others write into the history."""
        folder, newest = self.data / jobs.MODEL, max(self.expected)
        copy = history_folder(folder, "item") / f"{newest}.parquet"
        if what == "version":
            (folder / f".{newest}.0123abcd").mkdir(exist_ok=True)
        elif what == "link":
            copy.unlink()
            copy.hardlink_to(folder / newest / "items.parquet")
        elif what == "half":
            (folder / "history" / f".items-{newest}.parquet").write_bytes(b"PAR1")
        elif what == "cut" and copy.stat().st_nlink == 1:
            copy.write_bytes(copy.read_bytes()[:-1])
        elif what == "extra":
            copy.with_name("another.parquet").write_bytes(b"")

    def check_all(self) -> None:
        """After each call of ours there is nothing left over, and the history is in line."""
        assert hidden(self.data) == []
        check_history(self.data, sorted(self.expected))

    @invariant()
    def every_version_is_whole(self) -> None:
        assert check_whole(self.data) == sorted(self.expected)
        assert [path.name for path in version_folders(self.data, jobs.MODEL)] == sorted(self.expected)
        for version, seed in self.expected.items():
            assert load_artifact(self.data, jobs.MODEL, version).manifest.seed == seed


@pytest.mark.parametrize(("histories", "steps"), [(6, 12), pytest.param(200, 30, marks=pytest.mark.slow)])
def test_any_order_of_calls(histories: int, steps: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the clock does and killed processes leave: versions are whole, in order, and in the history."""
    run_state_machine_as_test(
        Versions, settings=settings(max_examples=histories, stateful_step_count=steps, deadline=None)
    )
    with capsys.disabled():
        print(f"\n{histories} histories of up to {steps} steps")

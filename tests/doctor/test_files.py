"""Versions on disk that are damaged, gone or not in the history are found, and nothing else."""

from __future__ import annotations

import shutil

import pytest

from feast_embeddings.artifact import load_artifact
from feast_embeddings.files import writer_lock
from feast_embeddings.repo import Repo

from .conftest import Doctor, Fix, copy, fixing


@pytest.mark.parametrize("broken", ["users.parquet", "manifest.json", "items.parquet"])
def test_a_damaged_version(doctor: Doctor, repo: Repo, broken: str, fix: Fix) -> None:
    """A bit flipped, a file gone; it can be taken out of the history without harm to the others."""
    older, live = sorted(path for path in (repo.data / "shop").iterdir() if path.name.startswith("2"))
    file = older / broken
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.unlink()  # the history has a link to it
    if broken != "items.parquet":
        file.write_bytes(raw)
    _, bad, report = doctor()
    assert bad == [("artifacts", "problem")]
    assert older.name in next(row["message"] for row in report["findings"] if row["fix"])
    fix(fixing(report, "artifacts"))
    assert doctor()[1] == []
    assert load_artifact(repo.data, "shop").path == live
    assert not older.exists()


def test_missing_folders(doctor: Doctor, repo: Repo) -> None:
    """The versions of a model; the whole data folder, with the registry in it; the vectors."""
    shutil.rmtree(repo.data / "shop")
    _, bad, report = doctor()
    assert bad == [("artifacts", "problem")]
    assert fixing(report, "artifacts").endswith("--model shop --interactions LOG")
    shutil.rmtree(repo.data)
    _, bad, _ = doctor()
    assert bad == [("registry", "problem"), ("artifacts", "warning")]
    shutil.rmtree(repo.path / "qdrant_storage")
    assert doctor()[1] == bad


def test_what_a_killed_training_left(doctor: Doctor, repo: Repo, fix: Fix) -> None:
    """Counts once no training is at it any more."""
    left = repo.data / "shop" / ".20260101T000000000Z.abc"
    left.mkdir()
    with writer_lock(repo.data / "shop" / "writer.lock", timeout=0):
        assert doctor()[1] == []
    _, bad, report = doctor()
    assert bad == [("artifacts", "warning")]
    fix(fixing(report, "artifacts"))
    assert doctor()[1] == []


def test_a_history_that_is_not_in_line(doctor: Doctor, repo: Repo, fix: Fix) -> None:
    """A version lost, and one that is gone."""
    folder = repo.data / "shop" / "history" / "items"
    first = min(folder.iterdir())
    first.rename(folder / "20200101T000000000Z.parquet")
    _, bad, report = doctor()
    assert bad == [("history", "problem")]
    assert first.stem in next(row["message"] for row in report["findings"] if row["fix"])
    fix(fixing(report, "history"))
    assert doctor()[1] == []


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_a_repo_at_another_place(doctor: Doctor, repo: Repo, fix: Fix, how: str) -> None:
    """The registry holds absolute paths: a training frame would read the old place, if it is there still."""
    other = repo.path.with_name(how)
    copy(repo.path, other)
    if how == "moved":
        shutil.rmtree(repo.data)
    _, bad, report = doctor(repo=other)
    assert bad == [("history", "problem")]
    assert str(repo.data) in next(row["message"] for row in report["findings"] if row["fix"])
    fix(fixing(report, "history"))
    assert doctor(repo=other)[1] == []


def test_a_live_version_that_is_gone(doctor: Doctor, repo: Repo) -> None:
    """Queries still work, but fold-in does not; the history reports it too."""
    live = max(path for path in (repo.data / "shop").iterdir() if path.name.startswith("2"))
    shutil.rmtree(live)
    _, bad, report = doctor()
    assert bad == [("history", "problem"), ("live", "warning")]
    assert f"{live.name} is live but not on disk" in " ".join(row["message"] for row in report["findings"])

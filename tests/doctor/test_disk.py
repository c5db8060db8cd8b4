"""A disk that is full or read-only: what is live is read all the same, and nothing is taken for damaged."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import Command

from feast_embeddings.errors import ArtifactError, EngineError, is_refused_write
from feast_embeddings.repo import Repo

from .conftest import Doctor, fixing


def mount(path: Path, *arguments: str) -> None:
    """Mount something there, or skip the test."""
    program = shutil.which("mount")
    done = program and subprocess.run([program, *arguments, str(path)], capture_output=True, text=True, check=False)
    if not done or done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip() if done else 'no program mount'}")


@pytest.fixture(params=["read-only", "full"])
def stuck(request: pytest.FixtureRequest, repo: Repo) -> Iterator[str]:
    """The repo's vectors are where nothing can be written."""
    folder = repo.path / "qdrant_storage"
    if request.param == "read-only":
        mount(folder, "--bind", "-o", "ro", str(folder))
    else:
        kept = folder.with_name("kept")
        folder.rename(kept)
        folder.mkdir()
        mount(folder, "-t", "tmpfs", "-o", "size=600m", "tmpfs")
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        fill(folder / "filling")
    yield request.param
    subprocess.run(["umount", str(folder)], check=True)


def fill(path: Path) -> None:
    """Write until nothing more fits."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        while os.write(descriptor, bytes(2**16)):
            pass
    except OSError:
        pass
    finally:
        os.close(descriptor)


def test_what_is_live_is_read(stuck: str, repo: Repo, doctor: Doctor, command: Command) -> None:
    """Queries answer; the doctor names the disk, and does not have the store moved away."""
    _, bad, report = doctor()
    assert bad == [("store", "warning")]
    assert fixing(report, "store") == f"df -h {repo.path / 'qdrant_storage'}"
    (message,) = (found["message"] for found in report["findings"] if found["check"] == "store")
    assert {"read-only": "mounted read-only", "full": "full disk"}[stuck] in message
    answer = command("similar-items", "sku-1", "--repo", repo.path, "-k", "3")
    assert (answer.code, len(answer.out.splitlines())) == (0, 4), answer.err


def test_neither_can_the_copy_be_made(
    stuck: str, repo: Repo, doctor: Doctor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The error says where room is missing; the doctor still does not take it for damage."""
    full = tmp_path / "full"
    full.mkdir()
    mount(full, "-t", "tmpfs", "-o", "size=1m", "tmpfs")
    monkeypatch.setattr("tempfile.tempdir", str(full))
    try:
        _, bad, report = doctor()
    finally:
        subprocess.run(["umount", str(full)], check=True)
    assert ("live", "problem") in bad
    assert fixing(report, "live") == f"df -h {repo.path / 'qdrant_storage'}"
    assert any("TMPDIR" in found["message"] for found in report["findings"] if found["check"] == "live")


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (OSError(30, "Read-only file system"), True),
        (OSError(2, "No such file"), False),
        (EngineError("failed: No space left on device (os error 28)"), True),
        (EngineError("failed: Input/output error (os error 5)"), False),
        (ArtifactError("damaged"), False),
    ],
)
def test_which_errors_are_of_the_disk(error: Exception, refused: bool) -> None:
    """By its number, also inside what Qdrant's engine says, and of what caused it."""
    assert is_refused_write(error) == refused
    outer = EngineError("cannot be read")
    outer.__cause__ = error
    assert is_refused_write(outer) == refused

"""Shards that no collection names are deleted, also while a reader adds files to one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from feast_embeddings.engines.embedded.folder import Pointer, ShardFolder


def test_a_file_that_comes_while_a_shard_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that still loads the shard writes next to its files; then no leftover stays behind."""
    folder = ShardFolder(tmp_path, lock_timeout=1)
    with folder.new_shard("one") as shard:
        shard.mkdir()
        (shard / "data").write_text("x")
    assert folder.leftovers() == [shard.name]
    rmtree, left = shutil.rmtree, [1]

    def with_a_reader(path: Path, ignore_errors: bool) -> None:
        rmtree(path, ignore_errors=ignore_errors)
        if left:
            left.pop()
            path.mkdir()
            (path / ".atomicwrite1").write_text("")

    monkeypatch.setattr(shutil, "rmtree", with_a_reader)
    with folder.writing():
        folder.replace(Pointer())

    assert folder.leftovers() == []
    assert not shard.exists()

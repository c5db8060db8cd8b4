"""A table of several files reads as one of a single file does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.shop import item_table, user_table, write_tables, write_version

from feast_embeddings.artifact import ENTITIES, Artifact, EmbeddingTable, delete_artifacts, load_artifact, table_files
from feast_embeddings.artifact.history import history_folder
from feast_embeddings.errors import ArtifactError, InputError

SIZE = 7
STAMPS = ["created_timestamp", "version", "space"]


@pytest.fixture
def whole(tmp_path: Path) -> Artifact:
    """20 users and 40 items, in one file each."""
    return write_version(tmp_path / "whole")


@pytest.fixture
def parts(whole: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Artifact:
    """The same, 20 users in 3 files and 40 items in 6."""
    monkeypatch.setattr(table_files, "PART_ROWS", SIZE)
    return write_version(tmp_path / "parts")


def test_the_manifest_lists_rows_and_checksum_of_each_part(whole: Artifact, parts: Artifact) -> None:
    """No file is there that it does not list, and they are in the order of the rows."""
    assert set(whole.manifest.files) == {"users.parquet", "items.parquet"}
    written = json.loads((parts.path / "manifest.json").read_text())["files"]
    assert {path.name for path in parts.path.iterdir()} == {*written, "manifest.json"}
    for entity, rows in (("user", [7, 7, 6]), ("item", [7, 7, 7, 7, 7, 5])):
        files = parts.manifest.parts(entity)
        assert list(files) == [f"{entity}s-{i:05d}.parquet" for i in range(len(rows))]
        assert [info.rows for info in files.values()] == rows
        for name, info in files.items():
            assert info.rows == pq.read_metadata(parts.path / name).num_rows == written[name]["rows"]
            assert info.sha256 == hashlib.sha256((parts.path / name).read_bytes()).hexdigest()
        assert parts.manifest.hash_of(entity) != whole.manifest.hash_of(entity)


def test_parts_read_as_one_table_does(whole: Artifact, parts: Artifact) -> None:
    """As a whole, some columns, in batches, and single rows in any order."""
    for entity in ENTITIES:
        one, many = whole.verified(entity), parts.verified(entity)
        assert (one.num_rows, one.schema) == (many.num_rows, many.schema)
        expected = whole.table(entity).drop_columns(STAMPS)
        assert parts.table(entity).drop_columns(STAMPS).equals(expected)
        names = [f"{entity}_id", "embedding"]
        assert parts.table(entity, names).equals(expected.select(names))
        batches = list(parts.batches(entity, names, rows=4))
        assert max(map(len, batches)) == 4
        assert pa.Table.from_batches(batches).equals(expected.select(names))
        rows = np.array([19, 0, 6, 7, 7, 13])
        assert many.take(rows).drop_columns(STAMPS).equals(expected.take(rows))
        assert many.take(rows[:0], names).equals(expected.select(names).slice(0, 0))


def test_seen_items_are_made_a_row_group_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function makes those of the rows of a group; they never exist all at once."""
    monkeypatch.setattr(table_files, "PART_ROWS", SIZE)
    monkeypatch.setattr(table_files, "GROUP_ROWS", SIZE - 2)
    rng = np.random.default_rng(0)
    asked: list[tuple[int, int]] = []

    def seen(rows: slice) -> pa.ChunkedArray:
        asked.append((rows.start, rows.stop))
        return pa.chunked_array([[[f"sku-{i}"] for i in range(rows.start, rows.stop)]], pa.list_(pa.string()))

    ids = pa.array([f"u-{i}" for i in range(16)])
    users = EmbeddingTable(ids, rng.standard_normal((16, 8), np.float32), np.ones(16, np.int64), seen_items=seen)
    artifact = write_tables(tmp_path, users, item_table(rng, pa.array(["sku-0"])))
    assert artifact.table("user")["seen_items"].to_pylist() == [[f"sku-{i}"] for i in range(16)]
    assert max(stop - start for start, stop in asked) == SIZE - 2
    groups = [pq.ParquetFile(part).metadata for part in artifact.verified("user").paths]
    sizes = [file.row_group(group).num_rows for file in groups for group in range(file.num_row_groups)]
    assert (max(sizes), sum(sizes)) == (SIZE - 2, 16)


@pytest.mark.parametrize("damage", ["missing", "changed", "from another version"])
def test_a_damaged_part_is_named(damage: str, parts: Artifact, whole: Artifact) -> None:
    """Whichever it is, nothing is read from the table."""
    path = parts.path / "items-00003.parquet"
    if damage == "missing":
        path.unlink()
    elif damage == "changed":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    else:
        path.write_bytes((whole.path / "items.parquet").read_bytes())
    for read in (parts.verified, parts.table, parts.batches):
        with pytest.raises(ArtifactError, match=r"items-00003\.parquet (is missing|was changed)"):
            read("item")
    assert parts.table("user").num_rows == 20


def test_the_history_has_every_part_of_every_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DuckDB, as Feast reads it, sees each row of each version once; a deleted version takes all its parts along."""
    first = write_version(tmp_path, seed=1)
    monkeypatch.setattr(table_files, "PART_ROWS", SIZE)
    second = write_version(tmp_path, seed=2)
    folder = history_folder(tmp_path / "shop", "user")

    def rows() -> dict[str, int]:
        read = duckdb.connect().read_parquet(f"{folder}/*.parquet")
        return dict(read.aggregate("version, count(DISTINCT user_id)").fetchall())

    names = [f"{second.manifest.version}-{i:05d}.parquet" for i in range(3)]
    assert sorted(path.name for path in folder.iterdir()) == [f"{first.manifest.version}.parquet", *names]
    assert rows() == {first.manifest.version: 20, second.manifest.version: 20}
    delete_artifacts(tmp_path, "shop", [second.manifest.version])
    assert rows() == {first.manifest.version: 20}


def test_a_failure_between_parts_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts that are there go with the version that never was."""
    monkeypatch.setattr(table_files, "PART_ROWS", SIZE)
    whole = write_version(tmp_path)
    written: list[str] = []

    def fail(path: Path, groups: Iterable[pa.Table]) -> int:
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        written.append(path.name)
        return write(path, groups)

    write = table_files._write
    monkeypatch.setattr(table_files, "_write", fail)
    with pytest.raises(OSError, match="No space"):
        write_version(tmp_path)
    assert written == ["users-00000.parquet", "users-00001.parquet"]
    assert sorted(path.name for path in (tmp_path / "shop").iterdir()) == sorted(
        ["history", "writer.lock", whole.manifest.version]
    )
    assert load_artifact(tmp_path, "shop") == whole


def test_a_version_of_another_width_is_refused_whatever_its_parts(tmp_path: Path, parts: Artifact) -> None:
    """A column that changes its type is found by the first part, which has the columns of all."""
    rng = np.random.default_rng(0)
    ids = pa.array(range(3))
    with pytest.raises(InputError, match="changed its type"):
        write_tables(tmp_path / "parts", user_table(rng, ids), user_table(rng, ids))

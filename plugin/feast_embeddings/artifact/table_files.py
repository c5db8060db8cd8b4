"""The files of one table of a version: one Parquet file, or numbered parts, which are read and written in order."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from feast_embeddings.artifact.manifest import FileInfo

__all__ = [
    "GROUP_ROWS",
    "PART_ROWS",
    "TableFiles",
    "fsync",
    "part_slices",
    "sha256_of",
    "table_files",
    "write_durably",
    "write_parts",
]

# Rows of a part, unless the table fits in one: 256 MiB of vectors with 64 dimensions.
PART_ROWS = 1 << 20
# A reader holds a row group at a time.
GROUP_ROWS = 1 << 17


@dataclass(frozen=True)
class TableFiles:
    """A table of a version on disk, whose files were verified.

    Attributes:
        paths: its files, in the order of the rows.
        schema: the columns, the same in each file.
        num_rows: rows in all files together.
    """

    paths: Sequence[Path]
    schema: pa.Schema
    num_rows: int

    def batches(self, columns: Sequence[str] | None = None, rows: int = 10_000) -> Iterator[pa.RecordBatch]:
        """Yield the rows in order, at most `rows` at a time; the table is never in memory as a whole."""
        for path in self.paths:
            with pq.ParquetFile(path) as parquet:
                yield from parquet.iter_batches(rows, columns=None if columns is None else list(columns))

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the whole table, or some of its columns."""
        # partitioning=None: otherwise Arrow reads columns from folder names such as "model=shop".
        parts = [
            pq.read_table(path, columns=None if columns is None else list(columns), partitioning=None, pre_buffer=False)
            for path in self.paths
        ]
        pa.default_memory_pool().release_unused()  # memory that reading used in addition
        return parts[0] if len(parts) == 1 else pa.concat_tables(parts)

    def take(self, rows: npt.NDArray[np.integer], columns: Sequence[str] | None = None) -> pa.Table:
        """Read some rows, in the order in which they are asked for.

        Args:
            rows: row numbers, in any order, shape (n,).
        """
        order = np.argsort(rows, kind="stable")
        wanted, start, taken = rows[order], 0, []
        for batch in self.batches(columns):
            first, last = np.searchsorted(wanted, (start, start + len(batch)))
            if first < last:
                taken.append(batch.take(pa.array(wanted[first:last] - start)))
            start += len(batch)
        back = np.empty(len(order), dtype=np.int64)
        back[order] = np.arange(len(order))
        schema = self.schema if columns is None else pa.schema([self.schema.field(name) for name in columns])
        return pa.Table.from_batches(taken, schema).take(pa.array(back))


def table_files(paths: Sequence[Path]) -> TableFiles:
    """Return the table in these files, of which only the metadata is read."""
    metadata = [pq.read_metadata(path) for path in paths]
    return TableFiles(paths, pq.read_schema(paths[0]), sum(part.num_rows for part in metadata))


def part_slices(n: int) -> Iterator[list[slice]]:
    """Yield the row groups of each part of a table with `n` rows; at least one part, which may be empty."""
    for start in range(0, max(n, 1), PART_ROWS):
        end = min(start + PART_ROWS, n)
        yield [slice(first, min(first + GROUP_ROWS, end)) for first in range(start, max(end, start + 1), GROUP_ROWS)]


def write_parts(folder: Path, stem: str, parts: Iterable[Iterable[pa.Table]]) -> Mapping[str, FileInfo]:
    """Write the parts of a table durably: ``users.parquet``, or ``users-00000.parquet`` and so on.

    Args:
        parts: the row groups of each, at least one, which are taken one at a time.

    Returns:
        Rows and checksum of each file, by name.
    """
    written: dict[str, FileInfo] = {}
    names = (f"{stem}-{number:05d}.parquet" for number in range(100_000))
    for name, part in zip(names, parts, strict=False):
        path = folder / name
        written[name] = FileInfo(rows=_write(path, part), sha256=sha256_of(path))
    if len(written) == 1:
        ((name, info),) = written.items()
        (folder / name).rename(folder / f"{stem}.parquet")
        return {f"{stem}.parquet": info}
    return written


def _write(path: Path, groups: Iterable[pa.Table]) -> int:
    """Write one file, and return its number of rows."""
    rows, waiting = 0, iter(groups)
    group = next(waiting)
    with pq.ParquetWriter(path, group.schema) as writer:
        while group is not None:
            writer.write_table(group, row_group_size=GROUP_ROWS)
            rows += group.num_rows
            del group  # not two at a time
            group = next(waiting, None)
    fsync(path)
    return rows


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_durably(path: Path, content: bytes) -> None:
    """Write a file, and wait until it is on the disk."""
    path.write_bytes(content)
    fsync(path)


def fsync(path: Path) -> None:
    """Wait until what was written to a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

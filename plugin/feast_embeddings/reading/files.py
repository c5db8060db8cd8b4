"""Find the files of a path, a folder or a glob, with the format and partitions in their names."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from feast_embeddings.errors import InputError

Format = Literal["parquet", "csv", "json"]
Compression = Literal["none", "gzip", "zstd"]

_FORMATS: dict[str, Format] = {
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
    **dict.fromkeys((".csv", ".tsv", ".tab", ".psv", ".txt"), "csv"),
    **dict.fromkeys((".json", ".jsonl", ".ndjson"), "json"),
}
_COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}
EXPECTED = ".parquet, .csv, .tsv, .txt, .json, .jsonl or .ndjson; text also as .gz or .zst"
# Hive's and Spark's spelling of a null.
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class DataFile:
    """One file of a table.

    Attributes:
        partitions: columns named by the folders of a file, as ``event=view``; None is a null.
        shown: its name in errors, if it is a copy.
    """

    path: Path
    format: Format
    compression: Compression = "none"
    partitions: Mapping[str, str | None] = field(default_factory=dict)
    shown: str = ""

    def __str__(self) -> str:
        return self.shown or str(self.path)


def find_files(source: Path | str) -> list[DataFile]:
    """Find the files of a table, in the order of their paths.

    A folder means all files below it. Names that start with ``_`` or ``.`` are ignored, as by every reader of such
    folders: they are logs, checksums, and unfinished work. Folders ``column=value`` add a column.

    Args:
        source: a file, a folder, or a glob (``logs/*.csv.gz``, ``logs/**/part-*.parquet``).

    Raises:
        InputError: there is no such file, or its name does not show its format.
    """
    path = Path(source)
    if path.is_dir():
        files = sorted(_below(path, path), key=lambda file: file.path)
        if not files:
            raise InputError(f"{path} is a folder without files that can be read; expected {EXPECTED}")
        return files
    if path.exists():
        return [_described(path, {})]
    if glob.has_magic(str(source)):
        root = _root(path)
        matches = sorted(Path(match) for match in glob.glob(str(source), recursive=True))
        files = []
        for match in matches:
            if not _is_hidden(match.relative_to(root)):
                files += list(_below(match, root)) if match.is_dir() else [_described(match, _partitions(match, root))]
        if not files:
            raise InputError(f"no file matches {source}")
        return sorted({file.path: file for file in files}.values(), key=lambda file: file.path)
    raise InputError(f"{path} does not exist")


def _below(folder: Path, root: Path) -> Iterator[DataFile]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _is_hidden(Path(name)))
        for name in sorted(names):
            if not _is_hidden(Path(name)):
                path = Path(parent, name)
                yield _described(path, _partitions(path, root))


def _described(path: Path, partitions: Mapping[str, str | None]) -> DataFile:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compression = _COMPRESSIONS.get(suffixes[-1], "none") if suffixes else "none"
    if compression != "none":
        suffixes.pop()
    kind = _FORMATS.get(suffixes[-1]) if suffixes else None
    if kind is None or (kind == "parquet" and compression != "none"):
        raise InputError(f"{path}: cannot tell the format from the name; expected {EXPECTED}")
    return DataFile(path, kind, compression, partitions)


def _is_hidden(relative: Path) -> bool:
    # The column of a partition may have a name that starts with "_".
    return any(part.startswith(".") or (part.startswith("_") and "=" not in part) for part in relative.parts)


def _partitions(path: Path, root: Path) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for part in path.relative_to(root).parts[:-1]:
        name, equals, value = part.partition("=")
        if equals and name:
            key, said = unquote(name), None if value == _NULL_PARTITION else unquote(value)
            if found.setdefault(key, said) != said:
                raise InputError(f"{path}: two of its folders give {key!r}, as {found[key]!r} and {said!r}; rename one")
    return found


def _root(pattern: Path) -> Path:
    """Return the folders before the first one with a pattern."""
    parts = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        parts.append(part)
    return Path(*parts)

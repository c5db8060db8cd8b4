"""Copies of what cannot be read in place: files of object stores (through fsspec), and standard input."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from feast_embeddings.errors import InputError, MissingExtraError
from feast_embeddings.reading.faults import first_line
from feast_embeddings.reading.files import DataFile, find_files

__all__ = ["copied_files", "spooled_input"]

# The first bytes of a file -> the end of its name.
_MAGIC: Mapping[bytes, str] = {b"PAR1": ".parquet", b"{": ".jsonl", b"[": ".json"}
_PACKED: Mapping[bytes, str] = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}


def copied_files(name: str, url: str, scratch: Path) -> list[DataFile]:
    """Copy a file, a folder or a glob of an object store to a scratch folder.

    Args:
        name: what to call it in an error.
        url: ``s3://…``, ``gs://…``, ``https://…`` or another one that fsspec knows; credentials come from where
            those programs look for them.

    Raises:
        InputError: there is nothing there, or it cannot be read.
        MissingExtraError: the package for this scheme is not installed.
    """
    target = scratch / "copied"
    try:
        system, path = fsspec.url_to_fs(url)
        found = _found(system, path)
        if not found:
            raise InputError(f"{name} does not exist, or no file matches it")
        root = PurePosixPath(path.partition("*")[0] if "*" in path else path)
        places = {}
        for file in found:
            inside = PurePosixPath(file).relative_to(root) if len(found) > 1 or file != path else PurePosixPath()
            places[file] = target / (inside if inside.parts else PurePosixPath(file).name)
        for local in places.values():
            local.parent.mkdir(parents=True, exist_ok=True)
        system.get(list(places), [str(local) for local in places.values()])
    except ImportError as error:
        # fsspec says "Install s3fs to access S3", without the name.
        named = re.search(r"install (\w+)|\"(\w+)\"", str(error), re.IGNORECASE)
        package = (error.name or (named and (named[1] or named[2])) or str(error)).partition(".")[0]
        raise MissingExtraError(f"reading {name}", "cloud", package) from None
    except ValueError as error:
        raise InputError(f"{name}: {first_line(error)}") from None
    except OSError as error:
        raise InputError(f"{name} cannot be read: {first_line(error)}") from None
    shown = {str(local): f"{name.partition(':')[0]}://{file}" for file, local in places.items()}
    return [replace(file, shown=shown.get(str(file.path), name)) for file in find_files(target)]


def _found(system: Any, path: str) -> list[str]:
    if "*" in path or "?" in path:
        return sorted(file for file in system.glob(path) if not system.isdir(file))
    if system.isdir(path):
        return sorted(system.find(path))
    return [path] if system.exists(path) else []


def spooled_input(scratch: Path) -> list[DataFile]:
    """Copy standard input to a file, whose format its first bytes tell: Parquet, JSON, or else delimited text."""
    raw = scratch / "stdin"
    with raw.open("wb") as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy, 1 << 20)
    with raw.open("rb") as file:
        head = file.read(4)
    packed = next((name for magic, name in _PACKED.items() if head.startswith(magic)), "")
    if packed:
        with fsspec.open(str(raw), "rb", compression=packed) as unpacked:
            head = unpacked.read(4)
    kind = next((end for magic, end in _MAGIC.items() if head.lstrip().startswith(magic)), ".csv")
    path = raw.with_name(f"stdin{kind}{ {'gzip': '.gz', 'zstd': '.zst'}.get(packed, '') }")
    raw.rename(path)
    return [replace(file, shown="standard input") for file in find_files(path)]

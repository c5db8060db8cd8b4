"""Files that a command writes: whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from feast_embeddings.errors import InputError

__all__ = ["parquet_path", "written_whole"]


def parquet_path(option: str, name: str) -> Path:
    """The Parquet file that an option names.

    Raises:
        InputError: it cannot be written there.
    """
    path = Path(name)
    # Not Path.is_dir, which raises for a name that is too long.
    if path.suffix != ".parquet" or os.path.isdir(path) or not os.path.isdir(path.parent):
        raise InputError(f"{option} {name}: expected a file name that ends in .parquet, in a folder that exists")
    return path


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file that takes its name, and the place of one that has it, when the block ends well; else it is deleted.

    Raises:
        InputError: the folder takes no file.
    """
    # A name of its own: a second run, begun before this one ends, must not write into the same file.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        file = temporary.open("xb")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; name another file") from None
    try:
        with file:
            yield file
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise

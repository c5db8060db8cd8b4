"""Files that a command writes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from feast_embeddings.errors import InputError

__all__ = ["new_file", "output_path"]


def output_path(option: str, name: str, *endings: str) -> Path:
    """Check the name of a file to write that an option gives; it must have one of the endings, such as ``.parquet``.

    Raises:
        InputError: the file cannot be written there.
    """
    path = Path(name)
    # Not Path.is_dir, which raises for a name that is too long.
    if path.suffix not in endings or os.path.isdir(path) or not os.path.isdir(path.parent):
        raise InputError(
            f"{option} {name}: expected a file name that ends in {' or '.join(endings)}, in a folder that exists"
        )
    return path


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Wrap `written_whole` for a file that the user named.

    Raises:
        InputError: the file cannot be written in its folder.
    """
    from feast_embeddings.files import written_whole

    with ExitStack() as stack:
        try:
            file = stack.enter_context(written_whole(path))
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror}; name another file") from None
        yield file

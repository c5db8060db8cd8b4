"""Files that a command writes, and one of metrics for Prometheus' node exporter."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from feast_embeddings.errors import InputError

__all__ = ["Gauge", "new_file", "output_path", "write_textfile"]


def output_path(option: str, name: str, *endings: str) -> Path:
    """Check the name of a file to write that an option gives; it must have one of the endings, such as ``.parquet``.

    Raises:
        InputError: the file cannot be written there.
    """
    path = Path(name)
    # Not Path.is_dir, which raises for a name that is too long.
    if path.suffix not in endings or os.path.isdir(path) or not os.path.isdir(path.parent):
        known = " or ".join(filter(None, (", ".join(endings[:-1]), endings[-1])))
        raise InputError(f"{option} {name}: expected a file name that ends in {known}, in a folder that exists")
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


class Gauge(NamedTuple):
    """A metric: its name, what it is, and its values by label, such as ``step="train"``; empty for no label."""

    name: str
    about: str
    values: Mapping[str, float]


def write_textfile(path: Path, command: str, model: str, gauges: Sequence[Gauge]) -> None:
    """Write the metrics of a command's run, each labelled with the model; the file is replaced as a whole."""
    lines = []
    for gauge in gauges:
        name = f"feast_embeddings_{command}_{gauge.name}"
        lines += [f"# HELP {name} {gauge.about}", f"# TYPE {name} gauge"]
        for label, value in gauge.values.items():
            lines.append(f'{name}{{model="{model}"{label and f",{label}"}}} {value!r}')
    with new_file(path) as file:
        file.write("".join(f"{line}\n" for line in lines).encode())

"""Metrics in a file for Prometheus' node exporter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from feast_embeddings.cli.output_file import new_file

__all__ = ["Gauge", "write_textfile"]


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

"""Types of options whose values the command line and a settings file write in different ways.

The command line has text. A file may have TOML's times and tables, and a version's manifest has values of Python; each
type takes all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, get_args

import click

from embedding_trainers.commands.times import parse_duration, parse_time
from feast_embeddings.errors import InputError

if TYPE_CHECKING:
    from feast_embeddings.reading import ColumnType

__all__ = ["ATTRIBUTE_TYPES", "DURATION", "EVENT_WEIGHTS", "PROBE", "TIME", "FileValue", "Pair"]


class FileValue(click.ParamType[Any]):
    """A type that takes more than text from a file.

    Attributes:
        in_file: what else it takes.
        expected: what a file should have, in words.
    """

    in_file: ClassVar[tuple[type, ...]] = ()
    expected: ClassVar[str]

    def located(self, value: Any, folder: Path) -> Any:
        """Return a value from a file in this folder with its paths taken from there."""
        return value


class _Time(FileValue):
    name = "time"
    in_file = (date,)  # a datetime is a date
    expected = "a time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, date):
            value = value.isoformat()
        return parse_time(value)


class _Duration(FileValue):
    name = "duration"
    expected = 'text such as "30d"'

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        return value if isinstance(value, timedelta) else parse_duration(value)


class _EventWeights(FileValue):
    name = "weights"
    in_file = (Mapping,)
    expected = 'a table, or text such as "view=1,purchase=5"'

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, float]:
        if isinstance(value, Mapping):
            for event, weight in value.items():
                if isinstance(weight, bool) or not isinstance(weight, int | float):
                    raise InputError(f"the weight of {event!r} must be a number, but it is {weight!r}")
            return {event: float(weight) for event, weight in value.items()}
        return _weights(value)


class _AttributeTypes(FileValue):
    name = "types"
    in_file = (Mapping,)
    expected = 'a table, or text such as "price=float,zip=text"'

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, ColumnType]:
        from feast_embeddings.reading import ColumnType, parse_types

        if not isinstance(value, Mapping):
            return parse_types(value, "--attribute-types")
        known = get_args(ColumnType)
        for name, word in value.items():
            if word not in known:
                raise InputError(f"the type of {name!r} must be one of {', '.join(known)}, but it is {word!r}")
        return dict(value)


class Pair(FileValue):
    """A name and a value of an option that may be repeated; a file has them as a table, whose values have types."""

    name = "pair"
    in_file = (Mapping,)
    expected = 'a table, or a list of texts "NAME=VALUE"'

    def __init__(self, example: str) -> None:
        self.example = example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        if isinstance(value, tuple):
            return value[0], value[1]
        name, equals, text = value.partition("=")
        if not equals or not name:
            option, form = (param.opts[0], param.metavar) if param else ("option", "NAME=VALUE")
            raise InputError(f"{option} {value!r}: expected {form}, e.g. {self.example}")
        return name, text


class _Probe(Pair):
    """A pair whose value is a table and its column; in a file the table is relative to that file."""

    expected = 'a table such as {churn = "labels.parquet:churned"}, or a list of texts "NAME=FILE:COLUMN"'

    def located(self, value: Any, folder: Path) -> Any:
        from embedding_trainers.probes import located

        if isinstance(value, Mapping):
            return {name: located(str(where), folder) for name, where in value.items()}
        pairs = [text.partition("=") for text in value]
        return [f"{name}{equals}{located(where, folder)}" for name, equals, where in pairs]


PROBE = _Probe("churn=labels.parquet:churned")
TIME, DURATION, EVENT_WEIGHTS, ATTRIBUTE_TYPES = _Time(), _Duration(), _EventWeights(), _AttributeTypes()


def _weights(text: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for part in text.split(","):
        event, _, weight = part.rpartition("=")
        event = event.strip()
        try:
            number = float(weight)
        except ValueError:
            event = ""
        if not event:
            raise InputError(f"--event-weights {part!r}: expected TYPE=WEIGHT, e.g. view=1,cart=3,purchase=5")
        if event in weights:
            raise InputError(f"--event-weights gives {event!r} twice")
        weights[event] = number
    return weights

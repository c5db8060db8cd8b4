"""Which columns of a catalogue say what an item is, and how each is read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from feast_embeddings.errors import InputError

__all__ = ["KINDS", "ContentColumn", "Kind", "parse_content", "with_close"]

Kind = Literal["text", "category", "list", "number", "vector", "image"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class ContentColumn:
    """A column of a table of users or items.

    Attributes:
        name: of the column.
        how: a kind, which takes the encoder of that kind, or the name of an encoder.
        model: what the encoder is to load, for one that loads something.
    """

    name: str
    how: str
    model: str = ""

    def __str__(self) -> str:
        return ":".join(part for part in (self.name, self.how, self.model) if part)


def parse_content(
    text: str, columns: Sequence[str], encoders: Iterable[str] = (), option: str = "--content"
) -> tuple[ContentColumn, ...]:
    """Read ``title:text,price:number,photo:vector``.

    Each part is a column and its kind, or the name of an encoder, which a model may follow:
    ``title:model2vec:owner/name``.

    Args:
        text: as given on the command line.
        columns: those there are.
        encoders: names of the installed encoders.
        option: what the text was given as.

    Raises:
        InputError: a part is no such pair, or names what there is not, or a column comes twice.
    """
    known = [*KINDS, *(name for name in sorted(encoders) if name not in KINDS)]
    found: dict[str, ContentColumn] = {}
    for part in text.split(","):
        name, _, how = (piece.strip() for piece in part.strip().partition(":"))
        how, _, model = (piece.strip() for piece in how.partition(":"))
        if not name or not how:
            raise InputError(
                f"{option} {text!r}: expected COLUMN:KIND, separated by commas, with a kind of {', '.join(KINDS)}; "
                f"got {part.strip()!r}"
            )
        if name not in columns:
            there = f"the columns are {', '.join(columns)}" if columns else "there are no columns"
            raise InputError(f"{option}: no column {name!r}; {there}{with_close(name, columns)}")
        if how not in known:
            raise InputError(
                f"{option} {name}:{how}: no kind or encoder {how!r}; there are {', '.join(known)}"
                f"{with_close(how, known)}"
            )
        if name in found:
            raise InputError(f"{option}: the column {name!r} comes twice, as {found[name]} and {part.strip()}")
        found[name] = ContentColumn(name, how, model)
    return tuple(found.values())


def with_close(name: str, known: Iterable[str]) -> str:
    """A guess at what was meant, to end an error with; empty if nothing is close."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""

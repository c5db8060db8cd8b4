"""The options of the commands that rank items: pages, what to leave out, limits per value, diversity, the fallback."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypedDict

import click

from feast_embeddings.errors import InputError

if TYPE_CHECKING:
    from feast_embeddings.query.options import Fallback, RankOptions
    from feast_embeddings.query.store import EmbeddingStore

__all__ = ["Given", "ranking_options", "to_options"]


class Given(TypedDict):
    """What these options were given on the command line."""

    exclude: tuple[str, ...]
    offset: int
    max_per: tuple[str, ...]
    diversity: float
    fallback: Fallback


def ranking_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command."""
    for option in (
        click.option(
            "--fallback",
            type=click.Choice(["popular", "recent", "none"]),
            default="none",
            show_default=True,
            help="What someone without a vector gets; popular: by the number of interactions in training; recent: by "
            "the time of recorded interactions.",
        ),
        click.option(
            "--diversity",
            type=click.FloatRange(0, 1),
            default=0.0,
            help="From 0, in order of score, to 1: how much less an item counts the more it is like those before it.",
        ),
        click.option(
            "--max-per", multiple=True, metavar="NAME=N", help="At most N items of one value of an attribute."
        ),
        click.option("--offset", type=click.IntRange(min=0), default=0, help="How many of the first to skip."),
        click.option("--exclude", multiple=True, metavar="ID", help="An item to leave out."),
    ):
        command = option(command)
    return command


def to_options(store: EmbeddingStore, filter: str | None, include_seen: bool, given: Given) -> RankOptions:
    """Convert what was given to the keywords of `EmbeddingStore.rank`."""
    return {
        "filter": filter,
        "exclude_seen": not include_seen,
        "exclude_ids": [store.parse_id("item", text) for text in given["exclude"]],
        "offset": given["offset"],
        "max_per": dict(_limit(text) for text in given["max_per"]),
        "diversity": given["diversity"],
        "fallback": given["fallback"],
    }


def _limit(text: str) -> tuple[str, int]:
    name, _, number = text.rpartition("=")
    if not name or not (number.isascii() and number.isdecimal()):
        raise InputError(f"--max-per: expected an attribute and a number, as category=2, got {text!r:.80}")
    return name, int(number)

"""The options that shape an answer: pages, what to leave out, boosts, limits per value, diversity, the fallback."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypedDict, cast

import click

from feast_embeddings.errors import InputError

if TYPE_CHECKING:
    from feast_embeddings.artifact import Entity
    from feast_embeddings.query.options import By, Fallback, RankOptions, ShapingOptions, SimilarOptions
    from feast_embeddings.query.store import EmbeddingStore

__all__ = ["Given", "Similar", "ranking_options", "similar_options", "to_options", "to_similar"]


class Shaped(TypedDict):
    """What the options of any list were given on the command line."""

    exclude: tuple[str, ...]
    boost: tuple[tuple[float, str], ...]
    offset: int
    max_per: tuple[str, ...]
    diversity: float


class Similar(Shaped):
    """The values of the options of similar users or items."""

    by: By


class Given(Shaped):
    """The values of the options of a ranking."""

    fallback: Fallback
    explain: bool


def _shaping_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of any list to a command."""
    for option in (
        click.option(
            "--diversity",
            type=click.FloatRange(0, 1),
            default=0.0,
            help="From 0, in order of score, to 1: how much less one counts the more it is like those before it.",
        ),
        click.option("--max-per", multiple=True, metavar="NAME=N", help="At most N of one value of an attribute."),
        click.option("--offset", type=click.IntRange(min=0), default=0, help="How many of the first to skip."),
        click.option(
            "--boost",
            type=(float, str),
            multiple=True,
            metavar="WEIGHT CONDITION",
            help="Add WEIGHT to the score of those that pass CONDITION; can be given several times.",
        ),
        click.option("--exclude", multiple=True, metavar="ID", help="One to leave out; can be given several times."),
    ):
        command = option(command)
    return command


def similar_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of similar users or items to a command."""
    by = click.option(
        "--by",
        type=click.Choice(["blend", "behaviour", "content"]),
        default="blend",
        show_default=True,
        help="Compare vectors as they are, only rows with interactions, or vectors from attributes alone.",
    )
    return by(_shaping_options(command))


def ranking_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a ranking of items to a command."""
    explain = click.option(
        "--explain", is_flag=True, help="Say which items of theirs add most to each score, and what."
    )
    return _shaping_options(
        click.option(
            "--fallback",
            type=click.Choice(["popular", "recent", "none"]),
            default="none",
            show_default=True,
            help="What someone without a vector gets; popular: by the number of interactions in training; recent: by "
            "the time of recorded interactions.",
        )(explain(command))
    )


def _to_shaping(store: EmbeddingStore, entity: Entity, given: Shaped) -> ShapingOptions:
    """Convert what was given to the keywords of `EmbeddingStore`."""
    return {
        "exclude_ids": [store.parse_id(entity, text) for text in given["exclude"]],
        "boosts": [{"filter": condition, "weight": weight} for weight, condition in given["boost"]],
        "offset": given["offset"],
        "max_per": dict(_limit(text) for text in given["max_per"]),
        "diversity": given["diversity"],
    }


def to_similar(store: EmbeddingStore, entity: Entity, filter: str | None, given: Similar) -> SimilarOptions:
    """Convert what was given to the keywords of `EmbeddingStore.similar_items` and `similar_users`."""
    return cast("SimilarOptions", {**_to_shaping(store, entity, given), "filter": filter, "by": given["by"]})


def to_options(store: EmbeddingStore, filter: str | None, include_seen: bool, given: Given) -> RankOptions:
    """Convert what was given to the keywords of `EmbeddingStore.rank`."""
    own = {
        "filter": filter,
        "exclude_seen": not include_seen,
        "fallback": given["fallback"],
        "explain": given["explain"],
    }
    return cast("RankOptions", {**_to_shaping(store, "item", given), **own})


def _limit(text: str) -> tuple[str, int]:
    name, _, number = text.rpartition("=")
    if not name or not (number.isascii() and number.isdecimal()):
        raise InputError(f"--max-per: expected an attribute and a number, as category=2, got {text!r:.80}")
    return name, int(number)

"""Handle collections that another process drops between two calls; a live one only after its alias has moved or gone.

An engine has no call that looks up an alias and reads its collection in one step. So callers look again on failure.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import TypeVar

from feast_embeddings.engines.engine import CollectionSpec, Engine
from feast_embeddings.errors import EmbeddingsError, EngineError

__all__ = ["ask_live", "ask_live_on_loop", "count_unless_dropped", "is_gone", "live_collections", "why_unreadable"]

Live = TypeVar("Live")
Answer = TypeVar("Answer")


def ask_live(
    look: Callable[[], Live],
    ask: Callable[[Live], Answer],
    failures: tuple[type[EmbeddingsError], ...] = (EngineError,),
) -> Answer:
    """Query the live collections; retry after a failure as long as they have changed since.

    Args:
        look: returns the live collections.
        ask: the query, given the last result of `look`.
        failures: exceptions of the query if a collection is gone.
    """
    live = look()
    while True:
        try:
            return ask(live)
        except failures as error:
            try:
                now = look()
            except EngineError:
                raise error from None  # the first failure says more
            if now == live:
                raise
            live = now


async def ask_live_on_loop(look: Callable[[], Awaitable[Live]], ask: Callable[[Live], Awaitable[Answer]]) -> Answer:
    """`ask_live`, on an event loop."""
    live = await look()
    while True:
        try:
            return await ask(live)
        except EngineError as error:
            try:
                now = await look()
            except EngineError:
                raise error from None
            if now == live:
                raise
            live = now


def live_collections(engine: Engine, aliases: Collection[str]) -> dict[str, tuple[str, CollectionSpec]]:
    """Return alias -> its live collection and spec, if it has one, from one read of the aliases."""

    def look() -> dict[str, str]:
        live = engine.aliases()
        return {alias: live[alias] for alias in aliases if alias in live}

    return ask_live(look, lambda live: {alias: (name, engine.describe(name)) for alias, name in live.items()})


def count_unless_dropped(engine: Engine, collection: str, alias: str) -> int | None:
    """Count the points in a collection of an alias exactly; None if it is gone."""
    try:
        return engine.count(collection)
    except EngineError:
        if is_gone(engine, alias, collection):
            return None
        raise


def why_unreadable(engine: Engine, collection: str) -> str:
    """Return why a collection cannot be read, as with shards on a dead node; empty if it can."""
    try:
        engine.count(collection)
    except EngineError as error:
        return str(error)
    return ""


def is_gone(engine: Engine, alias: str, collection: str) -> bool:
    """Return whether a collection is known to be gone; called after a failure, so it raises nothing."""
    try:
        return collection not in engine.collections(alias)
    except EngineError:
        return False

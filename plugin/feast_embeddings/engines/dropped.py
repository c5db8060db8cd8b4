"""Collections that another process drops between two calls: a live one only once something else is live, or nothing.

An engine has no call that looks up an alias and reads behind it in one step. So whoever fails looks again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import TypeVar

from feast_embeddings.engines.engine import CollectionSpec, Engine
from feast_embeddings.errors import EmbeddingsError, EngineError

__all__ = ["ask_live", "ask_live_on_loop", "count_unless_dropped", "is_gone", "live_collections"]

Live = TypeVar("Live")
Answer = TypeVar("Answer")


def ask_live(
    look: Callable[[], Live],
    ask: Callable[[Live], Answer],
    failures: tuple[type[EmbeddingsError], ...] = (EngineError,),
) -> Answer:
    """Ask about what is live; after a failure again, as often as something else is live by then.

    Args:
        look: what is live now.
        ask: the question, to what was live at the last look.
        failures: what the question raises when a collection is gone.
    """
    live = look()
    while True:
        try:
            return ask(live)
        except failures as error:
            try:
                now = look()
            except EngineError:
                raise error from None  # what failed first says more
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
    """Alias -> its live collection and what that holds, for those that have one, out of one look at the aliases."""

    def look() -> dict[str, str]:
        live = engine.aliases()
        return {alias: live[alias] for alias in aliases if alias in live}

    return ask_live(look, lambda live: {alias: (name, engine.describe(name)) for alias, name in live.items()})


def count_unless_dropped(engine: Engine, collection: str, alias: str) -> int | None:
    """Exact number of points in a collection of an alias; None when it is gone."""
    try:
        return engine.count(collection)
    except EngineError:
        if is_gone(engine, alias, collection):
            return None
        raise


def is_gone(engine: Engine, alias: str, collection: str) -> bool:
    """Whether a collection is known to be no more; asked after a failure, which stays the one that is told."""
    try:
        return collection not in engine.collections(alias)
    except EngineError:
        return False

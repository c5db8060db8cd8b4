"""Until when a query may go on: looked at between its parts, so that no thread works on what nobody waits for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from feast_embeddings.errors import OutOfTimeError

__all__ = ["check_time", "within"]

_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """What is asked in the block, and in copies of its context, ends after so many seconds."""
    token = _deadline.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


def check_time() -> None:
    """Raise `OutOfTimeError` when the time of this query is over."""
    deadline = _deadline.get()
    if deadline is not None and time.monotonic() > deadline:
        raise OutOfTimeError("the query took longer than its time limit; ask for less at once")

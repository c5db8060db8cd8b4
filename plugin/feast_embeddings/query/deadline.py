"""Deadline of a query, checked between its parts, so that no thread works on an answer that no one waits for."""

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
    """Limit queries in the block, and in copies of its context, to this many seconds."""
    token = _deadline.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


def check_time() -> None:
    """Raise `OutOfTimeError` if the query is past its deadline."""
    deadline = _deadline.get()
    if deadline is not None and time.monotonic() > deadline:
        raise OutOfTimeError("the query took longer than its time limit; ask for less at once")

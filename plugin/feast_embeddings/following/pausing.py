"""Wait until it is worth looking again, and end early when told to stop."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["pause"]

_POLL_SECONDS = 1.0
_STOP_SECONDS = 0.1


def pause(stopped: Callable[[], bool]) -> None:
    """Wait a second, or until this says so."""
    until = time.monotonic() + _POLL_SECONDS
    while not stopped() and time.monotonic() < until:
        time.sleep(_STOP_SECONDS)

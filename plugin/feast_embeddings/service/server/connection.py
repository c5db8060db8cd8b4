"""uvicorn's HTTP protocol on h11, which limits the size of a request head; here stalled connections end too."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["HEAD_BYTES", "LOOK_SECONDS", "BoundedConnection"]

# Limit on a request line with its headers, and on other input that is buffered until complete.
HEAD_BYTES = 32 * 1024
# Seconds between checks of a connection. In between, a request head or this many bytes of an answer must pass.
LOOK_SECONDS, _LEAST_TAKEN = 10.0, 64 * 1024
_MOST_CONNECTIONS = 1_000


class BoundedConnection(H11Protocol):
    """A connection to a client; the app limits the duration of a request itself."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, unless there are too many."""
        super().connection_made(transport)
        self._left = 0
        self._state = self._stands()
        self._look_again = self.loop.call_later(LOOK_SECONDS, self._look)
        if len(self.connections) > _MOST_CONNECTIONS:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up after the connection."""
        self._look_again.cancel()
        super().connection_lost(exc)

    def _stands(self) -> tuple[Any, bool]:
        """Return the last request, and whether the connection waits for the next one."""
        return self.cycle, self.cycle is None or self.cycle.response_complete

    def _look(self) -> None:
        state, left = self._stands(), self.transport.get_write_buffer_size()
        if state != self._state:
            moved = True
        elif left:
            moved = not self._left or left <= self._left - _LEAST_TAKEN
        else:
            moved = not state[1]
        if not moved:
            self.transport.abort()
            return
        self._state, self._left = state, left
        self._look_again = self.loop.call_later(LOOK_SECONDS, self._look)

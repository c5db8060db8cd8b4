"""uvicorn's HTTP protocol on httptools, where request heads have a largest size, and stalled connections end."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["HEAD_BYTES", "LOOK_SECONDS", "BoundedConnection"]

# Limit on a request line with its headers.
HEAD_BYTES = 32 * 1024
# Seconds between checks of a connection. In between, a request head or this many bytes of an answer must pass.
LOOK_SECONDS, _LEAST_TAKEN = 10.0, 64 * 1024
_MOST_CONNECTIONS = 1_000
_TOO_LARGE = f"The head of a request has at most {HEAD_BYTES:,} bytes."


class BoundedConnection(HttpToolsProtocol):
    """A connection to a client; the app limits the duration of a request itself."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, unless there are too many."""
        super().connection_made(transport)
        self._left, self._head_bytes, self._in_head = 0, 0, False
        self._state = self._stands()
        self._look_again = self.loop.call_later(LOOK_SECONDS, self._look)
        if len(self.connections) > _MOST_CONNECTIONS:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up after the connection."""
        self._look_again.cancel()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Begin to count the bytes of a head."""
        super().on_message_begin()
        self._head_bytes, self._in_head = 0, True

    def data_received(self, data: bytes) -> None:
        """Take what came, unless it is the rest of a head that has become too large."""
        if self._in_head and self._head_bytes > HEAD_BYTES:
            self.send_400_response(_TOO_LARGE)
            return
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)

    def on_headers_complete(self) -> None:
        """Start the request, unless its head is too large."""
        self._in_head = False
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > HEAD_BYTES:
            raise ValueError(_TOO_LARGE)  # the parser ends the connection with status 400
        super().on_headers_complete()

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

"""One client for several nodes of a cluster: what one cannot answer goes to the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from qdrant_client import AsyncQdrantClient, QdrantClient

from feast_embeddings.engines.server.failures import may_have_arrived, may_work_elsewhere

__all__ = ["any_of", "any_of_on_loop"]

# A second request would fail on what the first has made. All others have the same effect twice as once.
_ONCE = {"create_collection"}


class _Nodes:
    """The clients, and the one that answered last, which gets the next request."""

    def __init__(self, clients: Sequence[Any]) -> None:
        self._clients = clients
        self._last = 0

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._clients[self._last], name)
        return self._asking(name) if callable(attribute) else attribute

    def _asking(self, name: str) -> Callable[..., Any]:
        raise NotImplementedError

    def _order(self) -> list[int]:
        count = len(self._clients)
        return [(self._last + step) % count for step in range(count)]


def _ends(error: Exception, name: str, left: int) -> bool:
    """Return whether a failed request must not go to the next of the nodes left."""
    if not may_work_elsewhere(error) or (name in _ONCE and may_have_arrived(error)):
        return True
    if not left:
        error.add_note("no other address answered either")
    return not left


class _BlockingNodes(_Nodes):
    def _asking(self, name: str) -> Callable[..., Any]:
        def ask(*arguments: Any, **named: Any) -> Any:
            order = self._order()
            for left, number in zip(reversed(range(len(order))), order, strict=True):
                try:
                    answer = getattr(self._clients[number], name)(*arguments, **named)
                except Exception as error:
                    if _ends(error, name, left):
                        raise
                else:
                    self._last = number
                    return answer
            raise AssertionError("the last node answers or raises")

        return ask

    def close(self) -> None:
        for client in self._clients:
            client.close()


class _NodesOnLoop(_Nodes):
    def _asking(self, name: str) -> Callable[..., Any]:
        async def ask(*arguments: Any, **named: Any) -> Any:
            order = self._order()
            for left, number in zip(reversed(range(len(order))), order, strict=True):
                try:
                    answer = await getattr(self._clients[number], name)(*arguments, **named)
                except Exception as error:
                    if _ends(error, name, left):
                        raise
                else:
                    self._last = number
                    return answer
            raise AssertionError("the last node answers or raises")

        return ask

    async def close(self) -> None:
        for client in self._clients:
            await client.close()


def any_of(clients: Sequence[QdrantClient]) -> QdrantClient:
    """Return a client that asks the node that answered last, and the others in turn if it does not."""
    return clients[0] if len(clients) == 1 else cast(QdrantClient, _BlockingNodes(clients))


def any_of_on_loop(clients: Sequence[AsyncQdrantClient]) -> AsyncQdrantClient:
    """Do the same for clients of an event loop."""
    return clients[0] if len(clients) == 1 else cast(AsyncQdrantClient, _NodesOnLoop(clients))

"""Feast's online store, with a say in what all reads of one request have in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from feast import RepoConfig
from feast.infra.online_stores.online_store import OnlineStore

__all__ = ["RequestStore"]


class RequestStore(OnlineStore):
    """Feast's interface of stores; those of it can answer ``view@v2:feature``.

    Feast reads the views of one request one after the other, or side by side: in `answer`, or in `answer_on_loop`.
    """

    # Feast has a list of its own stores that can answer a version of a view; this is how others join it.
    _versioned_read_supported = True

    def answer(self, config: RepoConfig, read: Callable[[], None]) -> None:
        """Call `read`, which makes all reads of a request; again, if that is how to get one that is whole."""
        raise NotImplementedError

    async def answer_on_loop(self, config: RepoConfig, read: Callable[[], Awaitable[None]]) -> None:
        """The same, where Feast reads without blocking the event loop."""
        raise NotImplementedError

    def _read_features_per_fv(
        self, config: RepoConfig, refs: Any, keys: Any, names: Any, response: Any, *more: Any
    ) -> None:
        begun = type(response)()
        begun.CopyFrom(response)

        def read() -> None:
            response.CopyFrom(begun)  # without the views that were read before one could not be
            super(RequestStore, self)._read_features_per_fv(config, refs, keys, names, response, *more)

        self.answer(config, read)

    async def _read_features_per_fv_async(self, config: RepoConfig, *args: Any, **more: Any) -> None:
        async def read() -> None:
            # It begins the response when all views are read.
            await super(RequestStore, self)._read_features_per_fv_async(config, *args, **more)

        await self.answer_on_loop(config, read)

"""Feast's online store, with a hook around all reads of one request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from feast import RepoConfig
from feast.infra.online_stores.online_store import OnlineStore

__all__ = ["RequestStore"]


class RequestStore(OnlineStore):
    """Feast's interface of stores; subclasses can answer ``view@v2:feature``.

    Feast reads the views of one request one after the other in `answer`, or concurrently in `answer_on_loop`.
    """

    # Feast lists its own stores that can answer a version of a view; this adds ours.
    _versioned_read_supported = True

    def answer(self, config: RepoConfig, read: Callable[[], None]) -> None:
        """Call `read`, which makes all reads of a request; call it again if the answer would be inconsistent."""
        raise NotImplementedError

    async def answer_on_loop(self, config: RepoConfig, read: Callable[[], Awaitable[None]]) -> None:
        """Do the same where Feast reads without blocking the event loop."""
        raise NotImplementedError

    def _read_features_per_fv(
        self, config: RepoConfig, refs: Any, keys: Any, names: Any, response: Any, *more: Any
    ) -> None:
        begun = type(response)()
        begun.CopyFrom(response)

        def read() -> None:
            response.CopyFrom(begun)  # without the views that were read before one failed
            super(RequestStore, self)._read_features_per_fv(config, refs, keys, names, response, *more)

        self.answer(config, read)

    async def _read_features_per_fv_async(self, config: RepoConfig, *args: Any, **more: Any) -> None:
        async def read() -> None:
            # Feast starts the response after it has read all views.
            await super(RequestStore, self)._read_features_per_fv_async(config, *args, **more)

        await self.answer_on_loop(config, read)

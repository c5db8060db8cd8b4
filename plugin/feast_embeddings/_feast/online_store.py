"""Feast's online store, with a say in what all reads of one request have in common."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any

from feast import RepoConfig
from feast.infra.online_stores.online_store import OnlineStore

__all__ = ["RequestStore"]


class RequestStore(OnlineStore):
    """Feast's interface of stores; those of it can answer ``view@v2:feature``.

    Feast reads the views of one request one after the other, or side by side: within `request` or `request_on_loop`.
    """

    # Feast has a list of its own stores that can answer a version of a view; this is how others join it.
    _versioned_read_supported = True

    def request(self, config: RepoConfig) -> AbstractContextManager[None]:
        """Entered for all reads of a request."""
        raise NotImplementedError

    def request_on_loop(self, config: RepoConfig) -> AbstractAsyncContextManager[None]:
        """The same, where Feast reads without blocking the event loop."""
        raise NotImplementedError

    def _read_features_per_fv(self, config: RepoConfig, *args: Any, **more: Any) -> None:
        with self.request(config):
            super()._read_features_per_fv(config, *args, **more)

    async def _read_features_per_fv_async(self, config: RepoConfig, *args: Any, **more: Any) -> None:
        async with self.request_on_loop(config):
            await super()._read_features_per_fv_async(config, *args, **more)

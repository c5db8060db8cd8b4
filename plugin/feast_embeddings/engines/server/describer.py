"""The specs of a server's collections, also of those with shards on nodes that do not answer."""

from __future__ import annotations

import contextlib

from qdrant_client import QdrantClient, models

from feast_embeddings.engines.engine import CollectionSpec
from feast_embeddings.engines.server.catalog import Catalog, spec_in
from feast_embeddings.engines.server.cluster import ClusterView
from feast_embeddings.engines.server.failures import Caller, has_no_shards, misses_shards
from feast_embeddings.errors import EngineError

__all__ = ["Describer"]


class Describer:
    """Reads specs, by the catalog if it knows them.

    Qdrant describes a collection only if all its shards answer, as it adds up their points. Otherwise the spec comes
    from the node that was asked: each has the configuration of all collections.
    """

    def __init__(self, caller: Caller, client: QdrantClient, catalog: Catalog, cluster: ClusterView) -> None:
        self._ask = caller.ask
        self._client = client
        self._catalog = catalog
        self._cluster = cluster

    def collections(self, alias: str) -> dict[str, CollectionSpec]:
        """As `Engine.collections`."""
        names = [c.name for c in self._ask("list collections", self._client.get_collections).collections]
        # Names start with the alias, or an older release's form of it; so may names of other aliases, so the metadata
        # decides.
        start = alias.partition("@")[0]
        specs = {name: self._listed(name) for name in names if name.startswith(start)}
        return {name: spec for name, spec in specs.items() if spec is not None and spec.alias == alias}

    def describe(self, collection: str) -> CollectionSpec:
        """As `Engine.describe`."""
        if (spec := self._catalog.spec(collection)) is not None:
            return spec
        mark = self._catalog.mark(collection)
        return self._catalog.learn(collection, mark, self.spec(collection))

    def spec(self, collection: str) -> CollectionSpec | None:
        """Return the spec of a collection, read from the server; None if this package did not make it."""
        try:
            return spec_in(self.info(collection))
        except EngineError as error:
            # One that is being deleted has no shards either, but has lost its aliases, its mark too.
            if not misses_shards(error) or (has_no_shards(error) and not self._has_alias(collection)):
                raise
            with contextlib.suppress(EngineError):
                return self._cluster.spec(collection)
            raise

    def info(self, collection: str) -> models.CollectionInfo:
        """Return what Qdrant says of a collection."""
        return self._ask(f"describe {collection!r}", self._client.get_collection, collection)

    def exists(self, collection: str) -> bool:
        """Return whether there is a collection of this name."""
        return self._ask(f"look for {collection!r}", self._client.collection_exists, collection)

    def _has_alias(self, collection: str) -> bool:
        aliases = self._ask("list aliases", self._client.get_aliases).aliases
        return any(alias.collection_name == collection for alias in aliases)

    def _listed(self, collection: str) -> CollectionSpec | None:
        """Return the spec of a listed collection; None if this package did not make it, or it is gone."""
        try:
            return self.spec(collection)
        except EngineError as error:
            if self._is_gone(collection, error):
                return None
            raise

    def _is_gone(self, collection: str, error: EngineError) -> bool:
        """Return whether the server reports it as gone; called after a failure, so it raises nothing."""
        with contextlib.suppress(EngineError):
            return has_no_shards(error) or not self.exists(collection)
        return False

"""Feast's local compute engine, with a hook to materialize one view."""

from __future__ import annotations

from typing import Any

from feast.infra.common.materialization_job import MaterializationTask
from feast.infra.compute_engines.local.compute import LocalComputeEngine
from feast.infra.compute_engines.local.job import LocalMaterializationJob
from feast.infra.registry.base_registry import BaseRegistry

__all__ = ["ViewEngine"]


class ViewEngine(LocalComputeEngine):
    """Feast's engine, with `materialize_view` to override."""

    def materialize_view(
        self, registry: BaseRegistry, task: MaterializationTask, **kwargs: Any
    ) -> LocalMaterializationJob:
        """Materialize one view, by default as Feast does."""
        return super()._materialize_one(registry, task, **kwargs)

    def _materialize_one(
        self, registry: BaseRegistry, task: MaterializationTask, **kwargs: Any
    ) -> LocalMaterializationJob:
        return self.materialize_view(registry, task, **kwargs)

"""Serve the queries over HTTP, as a separate app or as part of Feast's feature server.

``feast-embeddings serve`` runs it. In a repo whose ``static_artifacts.py`` reads ::

    from pathlib import Path
    from feast_embeddings.service import mount

    def load_artifacts(app):
        mount(app, Path(__file__).parent)

``feast serve`` serves it too, under ``/embeddings``.

Stability: provisional, see docs/compatibility.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from feast_embeddings.errors import MissingExtraError

if TYPE_CHECKING:
    from feast_embeddings.service.app import create_app, mount
    from feast_embeddings.service.settings import ServiceSettings

__all__ = ["ServiceSettings", "create_app", "mount"]

# Name -> module, loaded on first use: making an API key does not wait for Feast.
_HOME = {"ServiceSettings": "settings", "create_app": "app", "mount": "app"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "uvicorn", "prometheus_client"):
            raise
        raise MissingExtraError("the service", "service", str(error.name)) from None

"""The packages that only some locations need are imported when one is read."""

from __future__ import annotations

import importlib
from typing import Any

from feast_embeddings.errors import MissingExtraError

__all__ = ["import_reader"]


def import_reader(module: str, what: str, extra: str) -> Any:
    """Import a module that reads `what`.

    Raises:
        MissingExtraError: its package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(f"reading {what}", extra, (error.name or module).partition(".")[0]) from None

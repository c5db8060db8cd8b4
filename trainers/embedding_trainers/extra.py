"""The packages that only training needs are imported when training runs."""

from __future__ import annotations

import importlib
from types import ModuleType

from feast_embeddings.errors import MissingExtraError

__all__ = ["import_extra"]


def import_extra(module: str, purpose: str = "training", extra: str = "trainers") -> ModuleType:
    """Import a module of an extra, e.g. ``scipy.sparse``.

    Args:
        purpose: what needs it, for the error.
        extra: the extra that installs it.

    Raises:
        MissingExtraError: its package, or one that it needs, is not installed, or lacks a library of the system.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = (error.name or module).partition(".")[0]
        raise MissingExtraError(purpose, extra, package) from None
    except ImportError as error:
        raise MissingExtraError(purpose, extra, module.partition(".")[0], str(error)) from None

"""The packages that only training needs are imported when training runs."""

from __future__ import annotations

from typing import Any

from feast_embeddings import errors

__all__ = ["import_extra"]


def import_extra(module: str, purpose: str = "training", extra: str = "trainers") -> Any:
    """`feast_embeddings.errors.import_extra`, by default for training."""
    return errors.import_extra(module, purpose, extra)

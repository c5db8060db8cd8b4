"""Qdrant's notation for the payload of a feature."""

from __future__ import annotations

import re
from collections.abc import Sequence

from feast_embeddings.errors import FilterError

__all__ = ["payload_key", "payload_keys"]


def payload_key(name: str) -> str:
    """Return Qdrant's path to the payload of a feature; FilterError if its notation cannot express the name."""
    if re.fullmatch(r"[A-Za-z0-9_-]+", name):
        return name
    if not name or '"' in name or "\\" in name:
        raise FilterError(f"feature {name!r} cannot be filtered on: Qdrant cannot address this name; rename it")
    return f'"{name}"'


def payload_keys(names: Sequence[str] | None) -> list[str] | bool:
    """Return Qdrant's selection of the payload of these features; of all if None."""
    return True if names is None else [payload_key(name) for name in names] or False

"""A faster import of Feast, for processes that do not load users' definitions."""

from __future__ import annotations

import sys
from typing import Any

import typeguard

__all__ = ["skip_type_checks"]


def skip_type_checks() -> None:
    """Disable the type checks that Feast wraps its classes in; call before Feast is imported.

    They take two thirds of the time of its import (tests/benchmarks/start.py).
    """
    if "feast" not in sys.modules:
        typeguard.typechecked = _unchecked


def _unchecked(target: Any = None, **_options: Any) -> Any:
    """Replace `typeguard.typechecked`: with or without arguments, return the decorated object unchanged."""
    return _unchecked if target is None else target

"""A quicker import of Feast, for processes that make no objects of users' definitions."""

from __future__ import annotations

import sys
from typing import Any

import typeguard

__all__ = ["skip_type_checks"]


def skip_type_checks() -> None:
    """Before Feast is imported: leave out the type checks that it wraps its classes in.

    They take two thirds of the time of its import (tests/benchmarks/start.py).
    """
    if "feast" not in sys.modules:
        typeguard.typechecked = _unchecked


def _unchecked(target: Any = None, **_options: Any) -> Any:
    """`typeguard.typechecked`, but for the checks: with or without arguments, it returns what it decorates."""
    return _unchecked if target is None else target

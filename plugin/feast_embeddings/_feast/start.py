"""A faster import of Feast, for processes that do not load users' definitions."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from typing import Any

__all__ = ["skip_type_checks"]


def skip_type_checks() -> None:
    """Disable the type checks that Feast wraps its classes in; call before Feast is imported.

    They take two thirds of the time of its import (tests/benchmarks/start.py).
    """
    if "feast" not in sys.modules and _BEFORE_FEAST not in sys.meta_path:
        sys.meta_path.insert(0, _BEFORE_FEAST)


class _BeforeFeast(MetaPathFinder):
    """Finds nothing, but is asked before Feast is imported: help, which needs no Feast, does not wait for typeguard."""

    def find_spec(self, fullname: str, *_: Any) -> None:
        if fullname == "feast":
            import typeguard

            typeguard.typechecked = _unchecked


_BEFORE_FEAST = _BeforeFeast()


def _unchecked(target: Any = None, **_options: Any) -> Any:
    """Replace `typeguard.typechecked`: with or without arguments, return the decorated object unchanged."""
    return _unchecked if target is None else target

"""The option that names the Feast repo of a command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

__all__ = ["repo_option"]


def repo_option(help: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add ``--repo``, by default this folder."""
    kind = click.Path(path_type=Path)
    return click.option("--repo", type=kind, default=Path(), show_default="this folder", metavar="DIR", help=help)

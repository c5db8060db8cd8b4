"""The file of hyper-parameters that ``--config`` names."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from feast_embeddings.errors import InputError

__all__ = ["read_config"]


def read_config(path: Path) -> dict[str, Any]:
    """Hyper-parameters by name from a TOML file, and the name of their trainer as ``trainer`` if it is there.

    Raises:
        InputError: the file cannot be read, or is not TOML.
    """
    try:
        parameters = tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise InputError(f"--config {path}: {error.strerror or error}") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise InputError(f"--config {path} is not TOML: {error}") from None
    if not isinstance(parameters.get("trainer", ""), str):
        raise InputError(f"--config {path}: trainer must be a name in quotes, not {parameters['trainer']!r}")
    return parameters

"""The option of the query commands that names the version to ask."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from feast_embeddings.cli.version_words import LIVE, VERSION, version_named

if TYPE_CHECKING:
    from feast_embeddings.query.store import EmbeddingStore

__all__ = ["asked_version", "version_option"]

version_option = click.option(
    "--version", default=LIVE, show_default=True, type=VERSION, help="Another version to ask, if Qdrant still holds it."
)


def asked_version(store: EmbeddingStore, word: str) -> str | None:
    """Return the version that the option names; None for the live one."""
    return None if word == LIVE else version_named(Path(str(store.feature_store.repo_path)), store.model, word)

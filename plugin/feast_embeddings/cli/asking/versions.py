"""The option of the query commands that names the version to ask."""

from __future__ import annotations

import click

from feast_embeddings.cli.version_words import LIVE, VERSION

__all__ = ["version_option"]

version_option = click.option(
    "--version", default=LIVE, show_default=True, type=VERSION, help="Another version to ask, if Qdrant still holds it."
)

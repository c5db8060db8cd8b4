"""The words for a version, which every option that takes a version understands."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["LIVE", "VERSION", "version_named"]

LIVE = "live"


class _Version(click.ParamType[str]):
    name = "version"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "live|latest|previous|V"


VERSION = _Version()
"""Type of the options and arguments that name a version; the command resolves it with `version_named`."""


def version_named(repo: Path, model: str, word: str) -> str:
    """Return the version that ``live``, ``latest`` or ``previous`` stands for; any other word is a version's name.

    ``latest`` is the newest on disk, ``previous`` the one before it.

    Raises:
        InputError: there is none.
        NotPublishedError: it is ``live``, and nothing is.
    """
    from feast_embeddings.artifact import LATEST, PREVIOUS, load_artifact

    if word == LIVE:
        from feast_embeddings.errors import NotPublishedError
        from feast_embeddings.query.store import EmbeddingStore
        from feast_embeddings.repo import Repo

        live = EmbeddingStore(Repo.open(repo).feature_store(), model).live_version()
        if live is None:
            raise NotPublishedError(f"no version of model {model!r} is live; run feast-embeddings publish")
        return live
    return load_artifact(repo / "data", model, word).manifest.version if word in (LATEST, PREVIOUS) else word

"""Load what the trainers offer the plugin. It never imports them, but finds them by entry point."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from feast_embeddings.errors import MissingExtraError

__all__ = ["from_trainers"]


def from_trainers(name: str) -> Any:
    """Load an object of the entry point group ``feast_embeddings.fold_in``.

    ``fold_in`` takes an `Artifact`, ``"user"`` or ``"item"``, a log and a seed, and returns a `FoldedIn`. ``new_rows``
    does the same with a table of attributes before the log, which may then be None. ``loaded`` takes the first two,
    and returns a `Loaded` of visitors. ``text_encoder`` takes an `Artifact` and returns an
    `Encoder` of `feast_embeddings.query.text.version_text`. ``options`` adds the options of a log to a
    command, which gets a ``source`` with a method `read`; ``columns`` only adds those
    that name columns and say how values are read, and gives it ``source_of``, which makes a source of a path.
    ``command`` is the class of such commands.

    Raises:
        MissingExtraError: no trainers are installed.
    """
    for found in entry_points(group="feast_embeddings.fold_in", name=name):
        return found.load()
    raise MissingExtraError("folding in", "trainers", "embedding_trainers")

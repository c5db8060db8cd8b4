"""Carry over to a new version what was written since its training: late rows, and attributes that were set."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from feast_embeddings.artifact import Artifact
from feast_embeddings.engines.dropped import is_gone
from feast_embeddings.engines.engine import Engine
from feast_embeddings.errors import EngineError
from feast_embeddings.events import set_attributes_of
from feast_embeddings.online.late_rows import carry_late_rows
from feast_embeddings.online.set_attributes import carry_set_attributes
from feast_embeddings.publish.target import Target

__all__ = ["carry_attributes", "carry_rows", "readable"]


def readable(collections: Iterable[str], unreadable: Collection[str]) -> list[str]:
    """Return the collections without the unreadable ones."""
    return [name for name in collections if name not in unreadable]


def carry_rows(engine: Engine, target: Target, sources: Iterable[str]) -> int:
    """Copy the late rows from the collections that were once live, and return how many."""
    specs = engine.collections(target.side.alias)
    once_live = {name for name in sources if name in specs and specs[name].verified} - {target.collection}
    once_live = {name for name in once_live if target.side.fits(specs[name])}
    carried = 0
    # Newest first: no other collection has a newer row of an entity that it holds.
    for name in sorted(once_live, key=lambda name: specs[name].version, reverse=True):
        try:
            carried += carry_late_rows(engine, target.side.codec, name, target.collection)
        except EngineError:
            # Another publish may have dropped it; then later versions have its late rows.
            if not is_gone(engine, target.side.alias, name):
                raise
    return carried


def carry_attributes(engine: Engine, artifact: Artifact, targets: list[Target], warnings: list[str]) -> int:
    """Set the attributes that are newer than the version in its collections; return how many, and warn of the rest."""
    kept, written = set_attributes_of(artifact.path.parents[1], artifact.manifest.model), 0
    for target in targets:
        entity = target.side.entity
        try:
            count, unfit = carry_set_attributes(engine, target.side.codec, entity, target.collection, kept)
        except EngineError:
            # Another publish may have dropped it; then its own version has them.
            if not is_gone(engine, target.side.alias, target.collection):
                raise
            continue
        written += count
        warnings += [
            f"values set for the {entity} attribute {name!r} do not fit version {artifact.manifest.version}, and are "
            "left out"
            for name in unfit
        ]
    return written

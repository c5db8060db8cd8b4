"""The options that a version was trained with, from its manifest."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from embedding_trainers.interactions import Columns, Preparation, Reading
from embedding_trainers.interactions.column_types import types_of_version
from feast_embeddings.artifact import RESERVED_COLUMNS, Artifact, Entity
from feast_embeddings.errors import InputError

__all__ = ["settings_of"]


def _content(artifact: Artifact, entity: Entity) -> str | None:
    """What was asked for of content; without it, whether that was on purpose: the training had a file."""
    if (described := artifact.manifest.content_of(entity)) is not None:
        return str(described["asked"]) if described["asked"] is not None else None
    names = artifact.schema(entity).names if entity in artifact.manifest.sides else []
    return None if RESERVED_COLUMNS.issuperset(names) else "none"


def settings_of(artifact: Artifact) -> dict[str, Any]:
    """Return the options by their parameter names; None is an option that was not given.

    Where the log was is not among them, nor are options that change no vector.

    Raises:
        InputError: the version was imported, or is of a release that did not record them.
    """
    manifest = artifact.manifest
    recorded = manifest.interactions
    if recorded is None:
        raise InputError(
            f"version {manifest.version} of model {manifest.model!r} does not record how a log was read (trainer "
            f"{manifest.trainer.name!r}); name a version that was trained by this release, or give the options"
        )
    columns = Columns(**recorded["columns"])
    preparation = TypeAdapter(Preparation).validate_python(recorded["preparation"])
    reading = Reading(**recorded["reading"])
    id_types = set(types_of_version(artifact).ids.values())
    parameters = dict(manifest.trainer.config)
    return {
        "user_column": columns.user,
        "item_column": columns.item,
        "timestamp_column": columns.timestamp,
        "weight_column": columns.weight,
        "event_column": columns.event,
        "time_format": reading.time_format,
        "allow_future": reading.allow_future,
        "on_bad_rows": reading.on_bad_rows,
        # Where the two sides differ, the log itself or the newest version says which is which.
        "id_type": id_types.pop() if len(id_types) == 1 else None,
        "event_weights": dict(preparation.event_weights) or None,
        **{
            name: getattr(preparation, name)
            for name in (
                "since", "until", "half_life", "drop_duplicates",
                "max_user_interactions", "min_user_interactions", "min_item_interactions",
            )
        },
        "history": manifest.history,
        "probes": tuple((manifest.probes or {}).items()),
        "content": _content(artifact, "item"),
        "user_content": _content(artifact, "user"),
        "trainer": manifest.trainer.name,
        "factors": parameters.pop("factors", None),
        "params": tuple(parameters.items()),
        "seed": manifest.seed,
        # What a search found is among the hyper-parameters.
        "tune": None,
        "tune_time": None,
        "patience": None,
    }  # fmt: skip

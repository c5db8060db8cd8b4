"""The Feast entity of a model's users or items: one that the repo has already, or one of this package's own."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from feast import Entity, ValueType

from feast_embeddings.artifact import Artifact
from feast_embeddings.artifact import Entity as Side
from feast_embeddings.errors import InputError

__all__ = ["entity_for"]

_ROWS = 1 << 20


def entity_for(
    artifact: Artifact, side: Side, given: Entity | None, *, tags: dict[str, str], owner: str
) -> tuple[Entity, ValueType]:
    """Return the entity of a version's users or items, and the Feast type of its ids.

    Args:
        given: an entity of the repo, which is returned unchanged; None to make one.
        tags, owner: of an entity that is made.

    Raises:
        InputError: the given one cannot be used for the version.
    """
    is_text = pa.types.is_string(artifact.schema(side).field(f"{side}_id").type)
    own_type = ValueType.STRING if is_text else ValueType.INT64
    if given is None:
        name = f"{artifact.manifest.model}_{side}"
        return Entity(name=name, join_keys=[f"{side}_id"], value_type=own_type, tags=tags, owner=owner), own_type
    where = f"{side}_entity of model {artifact.manifest.model!r}"
    if not isinstance(given, Entity):
        raise InputError(f"{where}: expected one feast.Entity, got {type(given).__name__} {given!r:.80}")
    where = f"{where}, {given.name!r}"
    _check_join_key(where, artifact, side, given.join_key)
    if given.value_type == ValueType.UNKNOWN:
        return given, own_type
    fitting = [ValueType.STRING] if is_text else [ValueType.INT64, ValueType.INT32]
    if given.value_type not in fitting:
        raise InputError(
            f"{where}: its value type is {given.value_type.name}, but the ids of version {artifact.manifest.version} "
            f"are {'text' if is_text else 'whole numbers'}, which need {' or '.join(each.name for each in fitting)}; "
            f"train or import again with --id-type {'int' if is_text else 'text'}, or give another entity"
        )
    if given.value_type == ValueType.INT32:
        _check_bits(where, artifact, side)
    return given, given.value_type


def _check_join_key(where: str, artifact: Artifact, side: Side, key: str) -> None:
    # DuckDB, which reads the history, does not distinguish upper from lower case.
    others = {name.casefold(): name for name in artifact.schema(side).names if name != f"{side}_id"}
    if column := others.get(key.casefold()):
        raise InputError(
            f"{where}: its join key {key!r} is also the name of the column {column!r} of version "
            f"{artifact.manifest.version}; rename that column, or leave it out, and train again"
        )
    if key.startswith("_") or set(key) & set('"\\'):
        raise InputError(f'{where}: the join key {key!r} cannot be stored: it begins with _, or has a " or \\ in it')


def _check_bits(where: str, artifact: Artifact, side: Side) -> None:
    for batch in artifact.verified(side).batches([f"{side}_id"], _ROWS):
        for id in pc.min_max(batch.column(0)).as_py().values():
            if not -(2**31) <= id < 2**31:
                raise InputError(f"{where}: its value type is INT32, but the id {id} needs INT64")

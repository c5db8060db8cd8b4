"""Vectors that events changed, as rows to store: of users as `rank` uses them, and of items that training did not know.

After they are pushed, no event of theirs is newer than their vector, so that none counts twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from feast_embeddings.arguments import Id
from feast_embeddings.artifact import Artifact, FoldedIn
from feast_embeddings.artifact.attributes import BEHAVIOUR, BOTH, CONTENT, SOURCE, TIMESTAMP
from feast_embeddings.artifact.seen import NEXT_TO_SEEN, SEEN, SEEN_WEIGHTS
from feast_embeddings.engines.engine import TIMESTAMP_KEY, StoredPoint
from feast_embeddings.errors import FoldInError, InputError
from feast_embeddings.events import Event
from feast_embeddings.model.from_trainers import from_trainers
from feast_embeddings.query.collection import LiveCollection
from feast_embeddings.query.events.histories import Recent, recent_users, vectors_now
from feast_embeddings.query.export import rows_of
from feast_embeddings.query.live import LiveModel
from feast_embeddings.query.loaded_once import LoadedOnce
from feast_embeddings.query.visitors import Loaded

__all__ = ["EventsPushed", "NewItems", "item_vectors", "user_vectors"]

_ROWS = 10_000
_COUNTED = "n_interactions"


class EventsPushed(NamedTuple):
    """What became of recorded events in the live collections.

    Attributes:
        users: whose vectors were written.
        items: whose vectors were written; the training knew none of them.
        missing: users and items without a vector, as nothing is known that their events are with.
        position: of the newest event in the log; what comes after it is new.
    """

    users: int
    items: int
    missing: int
    position: int


class NewItems(LoadedOnce[Loaded]):
    """Folds items into one version, whose users are read for the first one."""

    def fold_in(
        self, histories: Sequence[Mapping[Id, float]], vectors: Mapping[Id, npt.NDArray[np.float32]]
    ) -> list[tuple[npt.NDArray[np.float32], float] | None]:
        """Compute the vector and the bias of each item, from users and their weights; None if no user is known.

        Args:
            vectors: of users as of now, float32, shape (dim,); for others the trained vectors count.

        Raises:
            FoldInError: the version is not on this disk, or its trainer is not installed or cannot fold in.
            InputError: the weights give no vector.
        """
        loaded = self._load()
        if vectors:
            loaded = loaded.knowing(pa.array(list(vectors), loaded.ids.type), np.stack(list(vectors.values())))
        rows = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
        users = pa.array([id for history in histories for id in history], loaded.ids.type)
        weights = np.array([weight for history in histories for weight in history.values()], np.float32)
        with_vector, folded, _ = loaded.folded(rows, users, weights)
        if not (np.isfinite(folded.factors).all() and np.isfinite(folded.bias).all()):
            raise InputError("these events give no vectors of items; use weights closer to 1")
        found: list[tuple[npt.NDArray[np.float32], float] | None] = [None] * len(histories)
        for row, vector, bias in zip(with_vector.tolist(), folded.factors, folded.bias.tolist(), strict=True):
            found[row] = vector, bias
        return found

    def _make(self, artifact: Artifact) -> Loaded:
        loaded: Loaded = from_trainers("loaded")(artifact, "item")
        return loaded

    def _cannot(self, reason: str) -> FoldInError:
        return FoldInError(f"items cannot be folded into the live version {self.version}: {reason}")


class _Row(NamedTuple):
    """A row to store: its new values by column, and the point that has the others."""

    id: Id
    stored: StoredPoint | None
    values: dict[str, Any]


def user_vectors(live: LiveModel, user_ids: Sequence[Id]) -> FoldedIn:
    """Return rows of those users who did something since their vector was computed, with the vectors of `rank`.

    Attributes are as stored, the seen items and weights come from history and events together, and the event
    timestamp is the newest event's. `known` are the rows that are stored already.

    Raises:
        FoldInError: see `Visitors`.
        InputError: the version does not say what its users have seen.
        NotPublishedError, VersionMismatchError: as for `rank`.
    """
    users, _ = live.same_space()
    if SEEN not in users.side.codec.types:
        raise InputError(
            f"version {users.spec.version} does not say what its users have seen, so that no vector can be computed "
            "again; publish one that has seen_items"
        )
    found: dict[Id, Recent] = {}
    for part in _parts(user_ids):
        found |= recent_users(users, live.visitors, live.events, part)
    changed = {id: user for id, user in found.items() if user.vector is not None}

    def row(id: Id, user: Recent, stored: StoredPoint | None) -> _Row:
        native = _native(users, stored)
        values: dict[str, Any] = {
            "embedding": user.vector,
            _COUNTED: (native(_COUNTED) or 0) + user.n_known,
            SEEN: list(user.history),
            # None where all are 1, as in versions.
            SEEN_WEIGHTS: None if set(user.history.values()) == {1.0} else list(user.history.values()),
            "event_timestamp": user.newest,
        }
        if native(SOURCE) == CONTENT:
            values[SOURCE] = BOTH if user.n_known else CONTENT
        return _Row(id, stored, values)

    return _folded_in(
        users,
        [row(id, changed[id], stored) for id, stored in _stored(users, list(changed))],
        missing=[id for id, user in found.items() if user.vector is None and user.stored is None],
        n_interactions=sum(len(user.events) for user in found.values()),
        n_known=sum(user.n_known for user in found.values()),
    )


def item_vectors(live: LiveModel, new_items: NewItems, item_ids: Sequence[Id]) -> FoldedIn:
    """Return rows of items that the training did not know, folded in from all their events.

    Their users have the vectors of `rank`. An item that is stored is in it if it was folded in from its events, and has
    newer ones; not if content, or more interactions than were recorded, made its vector.

    Raises:
        FoldInError, InputError: see `NewItems`.
        NotPublishedError, VersionMismatchError: as for `rank`.
    """
    users, items = live.same_space()
    rows: list[_Row] = []
    missing: list[Id] = []
    n_interactions = n_known = 0
    for part in _parts(item_ids):
        unknown = [id for id, known in zip(part, live.visitors.knows(part), strict=True) if not known]
        stored, events = dict(_stored(items, unknown)), live.events.of_items(unknown)
        new = {id: found for id, found in events.items() if _is_of_events(items, stored[id], found)}
        if not new:
            continue
        asked = list(dict.fromkeys(event.user_id for found in new.values() for event in found))
        vectors, _ = vectors_now(users, live.visitors, live.events, asked, histories=False)
        known = {id: vector for id, vector in zip(asked, vectors, strict=True) if vector is not None}
        histories = [_weights(found) for found in new.values()]
        for (id, found), made in zip(new.items(), new_items.fold_in(histories, known), strict=True):
            n = sum(event.user_id in known for event in found)
            n_interactions, n_known = n_interactions + len(found), n_known + n
            if made is None:
                missing.append(id)
                continue
            vector, bias = made
            values = {"embedding": vector, "bias": bias, _COUNTED: n, "event_timestamp": found[-1].timestamp}
            rows.append(_Row(id, stored[id], values))
    return _folded_in(items, rows, missing=missing, n_interactions=n_interactions, n_known=n_known)


def _parts(ids: Sequence[Id]) -> Iterator[Sequence[Id]]:
    return (ids[start : start + _ROWS] for start in range(0, len(ids), _ROWS))


def _stored(live: LiveCollection, ids: Sequence[Id]) -> Iterator[tuple[Id, StoredPoint | None]]:
    for part in _parts(ids):
        yield from zip(part, live.whole(part), strict=True)


def _native(live: LiveCollection, stored: StoredPoint | None) -> Callable[[str], Any]:
    """Return a function that gives the stored value of a feature; None if there is none."""
    codec = live.side.codec
    return lambda name: None if stored is None or name not in codec.types else codec.native(name, stored.payload)


def _is_of_events(items: LiveCollection, stored: StoredPoint | None, events: Sequence[Event]) -> bool:
    """Return whether an item has no vector, or one of events alone and newer ones."""
    if stored is None or items.side.field.name not in stored.vectors:
        return True
    native, moment = _native(items, stored), int(stored.payload[TIMESTAMP_KEY])
    before = sum(event.timestamp <= moment for event in events)
    return before < len(events) and 0 < (native(_COUNTED) or 0) <= before and native(SOURCE) in (None, BEHAVIOUR)


def _weights(events: Sequence[Event]) -> dict[Id, float]:
    weights: dict[Id, float] = {}
    for event in events:
        weights[event.user_id] = weights.get(event.user_id, 0) + event.weight
    return weights


def _folded_in(
    live: LiveCollection, rows: Sequence[_Row], *, missing: list[Id], n_interactions: int, n_known: int
) -> FoldedIn:
    """Make the table: old values come from the stored point, and are null without one."""
    entity, spec = live.side.entity, live.spec
    there = [row for row in rows if row.stored is not None]
    places = {row.id: place for place, row in enumerate(there)}
    before = rows_of(live, [row.stored for row in there if row.stored is not None])
    before = before.take(pa.array([places.get(row.id) for row in rows], pa.int64()))
    ids = pa.array([row.id for row in rows], before.schema.field(live.side.id_name).type)
    columns: dict[str, pa.Array] = {}
    for field in before.schema:
        columns[field.name] = _column(field, rows, before.column(field.name))
    columns[live.side.id_name] = ids
    columns["version"] = pa.repeat(spec.version, len(rows))
    columns["space"] = pa.repeat(spec.space, len(rows))
    columns["created_timestamp"] = pa.repeat(pa.scalar(datetime.now(UTC), TIMESTAMP), len(rows))
    if entity == "user":
        weights = pa.field(SEEN_WEIGHTS, NEXT_TO_SEEN[SEEN_WEIGHTS])
        columns[SEEN_WEIGHTS] = _column(weights, rows, pa.nulls(len(rows), weights.type))
    table = pa.table(columns)
    id_column = table.schema.get_field_index(live.side.id_name)
    names = [f"{entity}_id" if place == id_column else name for place, name in enumerate(table.schema.names)]
    return FoldedIn(
        entity=entity,
        table=table.rename_columns(names),
        known=ids.filter(pa.array([row.stored is not None for row in rows], pa.bool_())),
        missing=pa.array(missing, ids.type),
        n_interactions=n_interactions,
        n_unknown=n_interactions - n_known,
    )


def _column(field: pa.Field, rows: Sequence[_Row], before: pa.Array) -> pa.Array:
    """Return the new values of a column, and the ones before where a row has no new one."""
    if not any(field.name in row.values for row in rows):
        return before
    if field.name == "embedding":
        flat = np.concatenate([row.values[field.name] for row in rows])
        return pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float32()), type=field.type)
    old = before.cast(pa.int64()) if pa.types.is_timestamp(field.type) else before
    values = [row.values.get(field.name, value) for row, value in zip(rows, old.to_pylist(), strict=True)]
    return pa.array(values, old.type).cast(field.type)

"""Rows of vectors as JSON, those of ids that are asked for again and again from memory."""

from __future__ import annotations

import itertools
import threading
from binascii import b2a_base64
from collections.abc import Hashable, Sequence
from typing import Any, Literal

import numpy.typing as npt

from feast_embeddings.arguments import Id
from feast_embeddings.engines.engine import TIMESTAMP_KEY
from feast_embeddings.query.side import LiveSide
from feast_embeddings.service.answers import embedding_row
from feast_embeddings.times import from_microseconds

__all__ = ["JsonRows"]

# Bytes of rows that are kept, and what Python needs for each beside its bytes.
_MOST, _OVERHEAD = 64 * 2**20, 200
# Of one request in so many all rows are kept: an id that few ask for is seldom in it, and keeping costs time.
_EACH = 8


class JsonRows:
    """An `EmbeddingRow` for each id, as JSON; safe to use from many threads.

    A row that is kept goes when others that were asked for since need half of the memory; one of what is not live any
    more, or was before a write to its collection, is not asked for any more.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._half = most // 2
        self._guard = threading.Lock()
        # By what they are rows of. The old ones go when the young ones need half of the memory, and these are the old.
        self._young: dict[Hashable, dict[Id, bytes]] = {}
        self._old: dict[Hashable, dict[Id, bytes]] = {}
        self._size = 0
        self._requests = itertools.count(1)

    def of(
        self, side: LiveSide, ids: Sequence[Id], encoding: Literal["float", "base64"], *, keep: bool
    ) -> list[bytes | None]:
        """Aligned with the ids, None for one that has no vector; all are of one state of the collection."""
        state = side.state() if keep else None
        if state is None:
            return _written(side, ids, encoding)
        of = (state, side.spec.version, side.spec.as_of, encoding)
        young, old = self._young.get(of, {}), self._old.get(of, {})
        rows = [young.get(id) or old.get(id) for id in ids]
        kept = {id: row for id, row in zip(ids, rows, strict=True) if row is not None and id not in young}
        if absent := [id for id, row in zip(ids, rows, strict=True) if row is None]:
            written = dict(zip(absent, _written(side, absent, encoding), strict=True))
            if side.state() != state:  # the rows from memory are older than those that were written
                return _written(side, ids, encoding)
            rows = [written[id] if row is None else row for id, row in zip(ids, rows, strict=True)]
            if next(self._requests) % _EACH == 0:
                # Copied, as what orjson gives has a buffer of several times its length.
                kept |= {id: bytes(memoryview(row)) for id, row in written.items() if row is not None}
        if kept:
            self._keep(of, kept)
        return rows

    def _keep(self, of: Hashable, rows: dict[Id, bytes]) -> None:
        with self._guard:
            size = sum(map(len, rows.values())) + _OVERHEAD * len(rows)
            if self._size + size > self._half:
                self._old, self._young, self._size = self._young, {}, 0
            self._young.setdefault(of, {}).update(rows)
            self._size += size


def _written(side: LiveSide, ids: Sequence[Id], encoding: Literal["float", "base64"]) -> list[bytes | None]:
    name, dim, spec = side.side.field.name, side.dim, side.spec
    times: dict[int, str] = {}
    rows: list[bytes | None] = []
    for id, point in zip(ids, side.points(ids, name, [TIMESTAMP_KEY]), strict=True):
        if point is None:
            rows.append(None)
            continue
        time = point.payload[TIMESTAMP_KEY]
        if time not in times:  # most are the same
            times[time] = from_microseconds(time).isoformat()
        vector = point.vectors[name][:dim]
        rows.append(embedding_row(spec, id, vector if encoding == "float" else _base64(vector), times[time]))
    return rows


def _base64(vector: npt.NDArray[Any]) -> str:
    return b2a_base64(vector.astype("<f4", copy=False).tobytes(), newline=False).decode()

"""Interactions: who did something with what, how much, and when."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedding_trainers.extra import import_extra
from embedding_trainers.interactions.vocabulary import Numbers, count_numbers
from embedding_trainers.trainer import TrainingLog
from feast_embeddings.artifact import Entity
from feast_embeddings.times import from_microseconds

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["Interactions", "LogReport", "LogSummary"]

_FINGERPRINT_ROWS = 1 << 20
_MOST_IN_HALVES = 1 << 25


@dataclass(frozen=True)
class Interactions:
    """An interaction log of n rows; a pair may occur in several of them.

    Attributes:
        users: the distinct user ids, ascending, string or int64, shape (n_users,).
        items: the distinct item ids, ascending, string or int64, shape (n_items,).
        user_numbers: int32, shape (n,); row r is by ``users[user_numbers[r]]``.
        item_numbers: int32, shape (n,); row r is about ``items[item_numbers[r]]``.
        weights: float32, shape (n,), positive; or None, which is 1 everywhere.
        timestamps: int64 microseconds since 1970 UTC, shape (n,); or None.
        targets: which rows a test may consist of, shape (n,); None if all of them.
    """

    users: pa.Array
    items: pa.Array
    user_numbers: Numbers
    item_numbers: Numbers
    weights: npt.NDArray[np.float32] | None = None
    timestamps: npt.NDArray[np.int64] | None = None
    targets: npt.NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.user_numbers)

    @property
    def as_of(self) -> datetime | None:
        """Time of the newest interaction, in UTC; None for a log without times."""
        return None if self.timestamps is None else from_microseconds(int(self.timestamps.max()))

    def where(self, keep: npt.NDArray[np.bool_]) -> Interactions:
        """These rows only, and the ids that occur in them."""
        if keep.all():
            return self
        users, user_numbers = _used(self.users, self.user_numbers[keep])
        items, item_numbers = _used(self.items, self.item_numbers[keep])
        weights = None if self.weights is None else self.weights[keep]
        timestamps = None if self.timestamps is None else self.timestamps[keep]
        targets = None if self.targets is None else self.targets[keep]
        return Interactions(users, items, user_numbers, item_numbers, weights, timestamps, targets)

    def to_csr(self) -> csr_matrix:
        """Sum up the weights of each pair: float32, shape (n_users, n_items), sorted indices.

        Raises:
            MissingExtraError: scipy is not installed.
        """
        sparse = import_extra("scipy.sparse")

        def sum_up(rows: slice) -> Any:
            users, items = self.user_numbers[rows], self.item_numbers[rows]
            weights = np.ones(len(users), dtype=np.float32) if self.weights is None else self.weights[rows]
            return sparse.csr_matrix((weights, (users, items)), shape=(len(self.users), len(self.items)))

        if len(self) > _MOST_IN_HALVES:  # both halves and their sum are twice the matrix
            matrix: csr_matrix = sum_up(slice(0, None))
        else:
            middle = len(self) // 2
            with ThreadPoolExecutor(2) as pool:
                first, second = pool.map(sum_up, (slice(0, middle), slice(middle, None)))
            matrix = first + second
        matrix.sort_indices()
        return matrix

    def training_log(self, attributes: Mapping[Entity, pa.Table | None] | None = None) -> TrainingLog:
        """The rows in the order of their times, numbered as in `to_csr`.

        Args:
            attributes: of the users and items, in the order of their ids.
        """
        of = attributes or {}
        rows = self.user_numbers, self.item_numbers, self.weights, self.timestamps
        return TrainingLog(*rows, of.get("user"), of.get("item")).by_time()

    def attributes_of(
        self, part: Interactions, attributes: Mapping[Entity, pa.Table | None] | None
    ) -> dict[Entity, pa.Table | None]:
        """Attributes of the users and items of a part of this log, in the order of its ids.

        Args:
            part: some of the rows, see `where`.
            attributes: of the users and items of this log, in the order of their ids.
        """
        ids: dict[Entity, tuple[pa.Array, pa.Array]] = {
            "user": (part.users, self.users),
            "item": (part.items, self.items),
        }
        return {
            entity: None if table is None else table.take(pc.index_in(ids[entity][0], value_set=ids[entity][1]))
            for entity, table in (attributes or {}).items()
        }

    def summary(self) -> LogSummary:
        """What a version says of the log, so that its rows need not stay in memory."""
        return LogSummary(
            users=self.users,
            items=self.items,
            of_users=count_numbers(self.user_numbers, len(self.users)),
            of_items=count_numbers(self.item_numbers, len(self.items)),
            n=len(self),
            as_of=self.as_of,
            fingerprint=self.fingerprint(),
        )

    def fingerprint(self) -> str:
        """SHA-256, in hex, that is equal for equal rows in whatever order.

        Each row is mixed to 128 bits and the rows are summed, as addition forgets the order; sorting 20
        million rows would take longer than reading them. It tells data sets apart, it does not defend
        against someone who makes two of them collide.
        """
        digest = hashlib.sha256(f"{len(self)} {self.users.type} {self.items.type}".encode())
        for ids in (self.users, self.items):
            for part in _id_bytes(ids):
                digest.update(part)
        sums = [0, 0]
        for start in range(0, len(self), _FINGERPRINT_ROWS):
            block = slice(start, start + _FINGERPRINT_ROWS)
            row = (self.user_numbers[block].astype(np.uint64) << np.uint64(32)) | self.item_numbers[block].astype(
                np.uint64
            )
            row = _mix(row)
            if self.weights is not None:
                row = _mix(row ^ self.weights[block].view(np.uint32))
            if self.timestamps is not None:
                row = _mix(row ^ self.timestamps[block].view(np.uint64))
            sums[0] += int(row.sum())
            sums[1] += int(_mix(row).sum())
        parts = (self.weights is not None, self.timestamps is not None, *(s % 2**64 for s in sums))
        digest.update(repr(parts).encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class LogSummary:
    """A log without its rows.

    Attributes:
        users, items: see `Interactions`.
        of_users, of_items: rows of each, int64, shape (n_users,) and (n_items,).
        n: rows.
        as_of: time of the newest row.
        fingerprint: see `Interactions.fingerprint`.
    """

    users: pa.Array
    items: pa.Array
    of_users: npt.NDArray[np.int64]
    of_items: npt.NDArray[np.int64]
    n: int
    as_of: datetime | None
    fingerprint: str


@dataclass
class LogReport:
    """What became of the rows of a log.

    Attributes:
        rows: how many there were.
        bad: rows that cannot be used, by kind of fault.
        n_bad: how many these are; a row may be bad in two ways.
        left_out: rows that were not to be used, by why.
    """

    rows: int = 0
    n_bad: int = 0
    bad: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)

    def leave_out(self, why: str, rows: int) -> None:
        """Count rows that are left out."""
        if rows:
            self.left_out[why] = self.left_out.get(why, 0) + rows

    def lines(self) -> list[str]:
        """What was dropped and what left out, a line each to read; none where all rows count."""
        lines = []
        if self.n_bad:
            kinds = "; ".join(f"{count:,} {kind}" for kind, count in self.bad.items())
            lines.append(f"{self.n_bad:,} of {self.rows:,} rows cannot be used and were dropped: {kinds}")
        if self.left_out:
            reasons = ", ".join(f"{count:,} {why}" for why, count in self.left_out.items())
            lines.append(f"of {self.rows:,} rows left out: {reasons}")
        return lines


def _used(ids: pa.Array, numbers: Numbers) -> tuple[pa.Array, Numbers]:
    used = count_numbers(numbers, len(ids)) > 0
    return ids.filter(pa.array(used)), (np.cumsum(used, dtype=np.int32) - np.int32(1))[numbers]


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Spread every input bit over all 64 output bits: one step of SplitMix64 (Steele et al., OOPSLA 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _id_bytes(ids: pa.Array) -> list[Any]:
    if ids.type == pa.int64():
        return [ids.to_numpy().tobytes()]
    lengths = pc.binary_length(ids).to_numpy().astype(np.int32)
    start, end = (int(np.frombuffer(ids.buffers()[1], np.int32)[ids.offset + i]) for i in (0, len(ids)))
    return [lengths.tobytes(), ids.buffers()[2][start:end]]

"""Vectors for visitors without an id, from their interactions: folded into one version, which is loaded once."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from itertools import islice
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from feast_embeddings.arguments import Id
from feast_embeddings.artifact import Artifact
from feast_embeddings.artifact_store import Versions
from feast_embeddings.errors import FoldInError, InputError, MissingExtraError
from feast_embeddings.model.from_trainers import from_trainers
from feast_embeddings.query.loaded_once import LoadedOnce

__all__ = ["Loaded", "Visitor", "Visitors"]

# Histories whose vectors are kept: who browses asks many times between two events. At 64 numbers each, 6 MB.
_KEPT = 10_000


class Loaded(Protocol):
    """A version loaded by the trainers, see `feast_embeddings.model.from_trainers`.

    `ids` are the items that it knows; `numbers` says at which place each of n is, -1 if not there, shape (n,).
    `history` is how many items of a user it keeps, None for all. `folded` takes n interactions, as row numbers from 0,
    item ids, and weights, each of shape (n,). It returns the m rows that get a vector, ascending; their `factors`,
    float32, shape (m, dim), and `bias`, shape (m,); and which interactions are with a known item, shape (n,).
    `knowing` is the same version with the vectors of some ids of the other side replaced or added, float32, shape
    (n, dim).
    `parts` splits a visitor's vector into the additions of n interactions with distinct known items, float32, shape
    (n, dim); `has_parts` is whether the trainer can say that.
    `with_content` makes one vector of those that n interactions and content give, each float32, shape (dim,).
    """

    ids: pa.Array
    history: int | None
    has_parts: bool

    def numbers(self, ids: pa.Array) -> npt.NDArray[np.int64]: ...

    def with_content(
        self, vector: npt.NDArray[np.float32], content: npt.NDArray[np.float32], n: int
    ) -> npt.NDArray[np.float32]: ...

    def folded(
        self, rows: npt.NDArray[np.int64], ids: pa.Array, weights: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.int64], Any, npt.NDArray[np.bool_]]: ...

    def knowing(self, ids: pa.Array, factors: npt.NDArray[np.float32]) -> Loaded: ...

    def parts(self, ids: pa.Array, weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]: ...


class Visitor(NamedTuple):
    """A visitor's vector, float32 (dim,), None if no item is known; and the unknown items."""

    vector: npt.NDArray[np.float32] | None
    unknown: list[Id]


class Visitors(LoadedOnce[Loaded]):
    """Folds visitors into one version, whose items are read for the first visitor."""

    def __init__(self, versions: Versions, version: str) -> None:
        super().__init__(versions, version)
        self._changing = threading.Lock()
        self._kept: dict[bytes, Visitor] = {}

    def fold_in(self, histories: Sequence[Mapping[Id, float]]) -> list[Visitor]:
        """Compute the vector of each visitor, from items and their weights.

        Args:
            histories: ids of the type of the model's item ids; positive weights.

        Raises:
            FoldInError: the version is not on this disk, or its trainer is not installed or cannot fold in.
            InputError: the weights give no vector.
        """
        # A vector depends on its history alone, but for rounding. Digests, as histories may be long.
        keys = [blake2b(repr(list(history.items())).encode(), digest_size=16).digest() for history in histories]
        with self._changing:
            kept = [self._kept.get(key) for key in keys]
        new = [place for place, visitor in enumerate(kept) if visitor is None]
        made = dict(zip(new, self._fold_in([histories[place] for place in new]) if new else (), strict=True))
        with self._changing:
            for place, visitor in made.items():
                self._kept[keys[place]] = visitor
            while len(self._kept) > _KEPT:
                del self._kept[next(iter(self._kept))]
        return [made[place] if visitor is None else visitor for place, visitor in enumerate(kept)]

    def _fold_in(self, histories: Sequence[Mapping[Id, float]]) -> list[Visitor]:
        loaded = self._load()
        items = [id for history in histories for id in history]
        rows = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
        given = [weight for history in histories for weight in history.values()]
        try:
            with np.errstate(over="ignore"):  # too large numbers become infinite, and are refused
                weights = np.array(given).astype(np.float32)
        except (TypeError, ValueError, OverflowError):
            weights = np.full(1, np.nan, np.float32)
        if not (np.isfinite(weights).all() and (weights > 0).all()):
            raise InputError("weights of interactions must be positive numbers that fit 32-bit floats")
        no_vector = InputError("these interactions give no vector; use weights closer to 1")
        try:
            with_vector, folded, is_known = loaded.folded(rows, pa.array(items, loaded.ids.type), weights)
        except np.linalg.LinAlgError:
            raise no_vector from None
        except MissingExtraError as error:
            raise self._cannot(str(error)) from error
        if not np.isfinite(folded.factors).all():
            raise no_vector
        visitors = [Visitor(None, []) for _ in histories]
        for row, vector in zip(with_vector.tolist(), folded.factors, strict=True):
            visitors[row] = Visitor(vector.copy(), [])  # a view would keep all of them
        for place in np.flatnonzero(~is_known).tolist():
            visitors[rows[place]].unknown.append(items[place])
        return visitors

    def newest(self, history: Mapping[Id, float]) -> Mapping[Id, float]:
        """Return what the version keeps of a user's history, whose newest item is the last.

        Raises:
            FoldInError: see `fold_in`.
        """
        kept = self._load().history
        left_out = 0 if kept is None else max(0, len(history) - kept)
        return dict(islice(history.items(), left_out, None))

    @property
    def has_parts(self) -> bool:
        """Whether the trainer of the version can say `parts`; `FoldInError` as in `fold_in`."""
        return self._load().has_parts

    def parts(self, history: Mapping[Id, float]) -> npt.NDArray[np.float32]:
        """Return what each interaction adds to the vector of `fold_in`, float32, shape (n, dim); they sum to it.

        Args:
            history: known items, at least one; of a version that `has_parts`.

        Raises:
            FoldInError: see `fold_in`.
        """
        loaded = self._load()
        return loaded.parts(pa.array(list(history), loaded.ids.type), np.array(list(history.values()), np.float32))

    def knows(self, items: Sequence[Id]) -> list[bool]:
        """Return which of the items the version was trained on, or made of content.

        Raises:
            FoldInError: see `fold_in`.
        """
        loaded = self._load()
        known: list[bool] = (loaded.numbers(pa.array(items, loaded.ids.type)) >= 0).tolist()
        return known

    def with_content(
        self, vector: npt.NDArray[np.float32], content: npt.NDArray[np.float32], n: int
    ) -> npt.NDArray[np.float32]:
        """Return what a vector from n interactions and one from content say together."""
        return self._load().with_content(vector, content, n)

    def _make(self, artifact: Artifact) -> Loaded:
        loaded: Loaded = from_trainers("loaded")(artifact, "user")
        return loaded

    def _cannot(self, reason: str) -> FoldInError:
        return FoldInError(f"visitors cannot be folded into the live version {self.version}: {reason}")

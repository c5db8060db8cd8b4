"""What the queries return: neighbours with scores, and vectors aligned with the requested ids."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from feast_embeddings.arguments import Id

__all__ = ["Embeddings", "Found", "Neighbours", "NeighboursBatch", "Page", "Reason"]


class Reason(NamedTuple):
    """An item that speaks for a result, and what it adds to the score, in units of the score."""

    id: Id
    adds: float


@dataclass(frozen=True)
class Neighbours:
    """The answer to a query, best first.

    Attributes:
        id_name: the join key of the feature view: ``item_id`` or ``user_id`` unless the repo gave an entity.
        ids: at most k.
        scores: float32, shape (len(ids),), higher is better: cosine in [-1, 1] for similar users and items,
            ``user · item + item bias`` for rank.
        attributes: per id, the attributes given at training; empty if they were not requested.
        version, space: the model version that answered, and its vector space.
        missing: ids of the query that this version does not know, if it could be answered without them.
        fallback: how it was answered for someone without a vector; None for an answer by vector. Scores of
            ``"popular"`` are numbers of interactions in training.
        because: with `explain`, per id at most 3 items of the user's or visitor's, those that add most to the score,
            the most first; see `RankOptions`.
    """

    id_name: str
    ids: list[Id]
    scores: npt.NDArray[np.float32]
    attributes: list[dict[str, Any]]
    version: str
    space: str
    missing: list[Id] = field(default_factory=list)
    fallback: Literal["popular", "recent"] | None = None
    because: list[list[Reason]] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dictionary per neighbour: id, score, attributes, and `because` if it was asked for.

        An attribute of one of these names is in `attributes` only.
        """
        own = [{self.id_name: id, "score": float(score)} for id, score in zip(self.ids, self.scores, strict=True)]
        # The first makes the order, the last wins.
        rows = [each | attributes | each for each, attributes in zip(own, self.attributes, strict=True)]
        if self.because is None:
            return rows
        told = [[reason._asdict() for reason in reasons] for reasons in self.because]
        return [{**row, "because": reasons} for row, reasons in zip(rows, told, strict=True)]

    def to_pandas(self) -> pd.DataFrame:
        """One row per neighbour: id, score, attributes."""
        return pd.DataFrame(self.to_dicts(), columns=None if self.ids else [self.id_name, "score"])


@dataclass(frozen=True)
class Found(Neighbours):
    """The answer to a search by text; a score is the sum of 1 / (60 + place) over the rankings that have the item.

    Attributes:
        places: per id, its place from 1 in each of these rankings: ``words``, ``content`` and ``user``, see
            `feast_embeddings.query.text.search`.
    """

    places: list[dict[str, int]] = field(default_factory=list)

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dictionary per item: id, score, attributes, places."""
        return [{**row, "places": own} for row, own in zip(super().to_dicts(), self.places, strict=True)]


@dataclass(frozen=True)
class NeighboursBatch:
    """The answers to many queries, all from one version.

    Attributes:
        ids: as requested, n of them; for visitors, who have no ids, their positions from 0.
        answers: per id; without a fallback None for an id without an embedding, and for a visitor whose items are all
            unknown.
        version, space: the model version that answered, and its vector space.
        unknown: for visitors, the items that the version does not know.
    """

    ids: list[Id]
    answers: list[Neighbours | None]
    version: str
    space: str
    unknown: list[Id] | None = None

    @property
    def missing(self) -> list[Id]:
        """The ids that have no embedding."""
        if self.unknown is not None:
            return self.unknown
        answers = zip(self.ids, self.answers, strict=True)
        return [id for id, answer in answers if answer is None or answer.fallback is not None]


@dataclass(frozen=True)
class Page:
    """Some of the users or items that pass a filter.

    Attributes:
        id_name: the join key of the feature view: ``item_id`` or ``user_id`` unless the repo gave an entity.
        ids: at most as many as requested.
        attributes: per id, the attributes given at training.
        vectors: float32, shape (len(ids), dim), without the bias; None if they were not requested.
        hidden: per id, whether other answers leave it out, see `EmbeddingStore.hide`.
        version: the model version; all pages reached by `cursor` are of it.
        cursor: for the next page; None after the last.
    """

    id_name: str
    ids: list[Id]
    attributes: list[dict[str, Any]]
    vectors: npt.NDArray[np.float32] | None
    hidden: list[bool]
    version: str
    cursor: str | None


@dataclass(frozen=True)
class Embeddings:
    """Vectors by id, aligned with the requested ids.

    Attributes:
        ids: as requested, n of them.
        vectors: float32, shape (n, dim); a row of NaN for an id that has no embedding.
        found: boolean, shape (n,).
        event_timestamps: per id, the cut-off of the data its vector was learned from; None where missing.
        version, space, as_of: of the model that answered; vectors of different spaces cannot be compared.
    """

    ids: list[Id]
    vectors: npt.NDArray[np.float32]
    found: npt.NDArray[np.bool_]
    event_timestamps: list[datetime | None]
    version: str
    space: str
    as_of: str

    @property
    def missing(self) -> list[Id]:
        """The ids that have no embedding."""
        return [id for id, found in zip(self.ids, self.found.tolist(), strict=True) if not found]

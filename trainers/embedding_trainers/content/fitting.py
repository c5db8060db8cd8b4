"""Content in a training: what it says of each side is fitted, and goes into the tables of the version."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedding_trainers.content.catalogue import Catalogue
from embedding_trainers.content.features import Features
from embedding_trainers.content.model import ContentModel
from embedding_trainers.content.prior import Prior, Trained, fit_prior
from embedding_trainers.content.trained_rows import choose_strength, with_prior
from embedding_trainers.extra import import_extra
from embedding_trainers.trainer import Factors, Folded, KnownSide, RunOptions, Trainer
from feast_embeddings.artifact import ContentFile, EmbeddingTable, Entity, Network
from feast_embeddings.artifact.attributes import BOTH, SOURCE
from feast_embeddings.artifact.brute_force import unit
from feast_embeddings.artifact.table import Lists

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from embedding_trainers.interactions import Split

__all__ = ["ContentFitting"]

_OTHER: dict[Entity, Entity] = {"user": "item", "item": "user"}
_MOST_TAIL_ROWS = 1 << 18  # on which the strength of trained rows is chosen


@dataclass(frozen=True)
class ContentFitting:
    """The catalogues of a training, and how it trains."""

    catalogues: Mapping[Entity, Catalogue]
    method: Trainer[Any]
    config: Any
    options: RunOptions
    network: Network | None = None
    _encoded: dict[Entity, tuple[Features, Any]] = field(default_factory=dict)
    # The choices of the part of the log that `tail_strength` was asked for: making them takes longer than all the rest.
    _chosen: dict[Entity, Prior] = field(default_factory=dict)

    def tail_strength(self, split: Split, factors: Factors) -> float | None:
        """How much content turns items that were trained on little, see `choose_strength`; None if that helps no one.

        Args:
            split: a part of the log, and the pairs to find.
            factors: trained on that part.
        """
        if "item" not in self.catalogues:
            return None
        catalogue = self.catalogues["item"]
        rows = catalogue.rows[pc.index_in(split.items, value_set=catalogue.ids).to_numpy()]
        if (rows < 0).all():  # a catalogue of new arrivals
            return None
        fitting = replace(self, network=factors.network)
        with _one_blas_thread():
            model, numbers, trained = fitting._fitted("item", rows, _of_factors(factors), split.train, _MOST_TAIL_ROWS)
            said = model.prior.of(self._rows("item", rows[numbers]))
            return choose_strength(trained, said, split.test[:, numbers], split.train[:, numbers])

    def applied(
        self, tables: Mapping[Entity, EmbeddingTable], user_items: csr_matrix, tail: float | None
    ) -> tuple[dict[Entity, EmbeddingTable], dict[Entity, ContentFile]]:
        """Append rows without interactions, and turn trained items.

        Args:
            tables: of the training, aligned.
            user_items: what it was trained on.
            tail: see `tail_strength`.
        """
        sides = {entity: Folded(table.embedding, _bias(table)) for entity, table in tables.items()}
        changed, files = dict(tables), {}
        for entity, catalogue in self.catalogues.items():
            with _one_blas_thread():
                model, numbers, trained = self._fitted(entity, catalogue.rows, sides, user_items)
            said = model.prior.of(self._rows(entity, catalogue.rows[numbers]))
            changed[entity] = _with_content(changed[entity], numbers, said)
            if tail is not None and entity == "item":
                changed[entity] = _turned(changed[entity], numbers, with_prior(trained, said, tail))
            if len(catalogue.cold):
                said = model.prior.of(self._rows(entity, catalogue.cold))
                changed[entity] = _extended(changed[entity], catalogue, said)
            described = {"asked": catalogue.asked, f"{entity}s": len(catalogue.cold), **model.to_json()}
            files[entity] = ContentFile(described | ({"tail": tail} if entity == "item" else {}), model.save)
        return changed, files

    def _fitted(
        self,
        entity: Entity,
        rows: npt.NDArray[np.int64],
        sides: Mapping[Entity, Folded],
        user_items: csr_matrix,
        most: int | None = None,
    ) -> tuple[ContentModel, npt.NDArray[np.int64], Trained]:
        """What content says of trained users or items; the numbers of those that the catalogue has; and these.

        Args:
            rows: of the catalogue, for each that was trained; -1 where it has none.
        """
        interactions = user_items if entity == "user" else user_items.T.tocsr()
        known = sides[_OTHER[entity]]
        degrees = np.asarray(user_items.getnnz(axis=1 if entity == "item" else 0), np.int64)
        numbers = np.flatnonzero(rows >= 0)
        if most is not None and len(numbers) > most:
            numbers = np.sort(np.random.default_rng(self.options.seed).choice(numbers, most, replace=False))
        if len(numbers) < interactions.shape[0]:
            interactions = interactions[numbers]
        interactions.sort_indices()
        trained = Trained(
            sides[entity].factors[numbers],
            sides[entity].bias[numbers],
            interactions,
            KnownSide(_OTHER[entity], known.factors, known.bias, degrees, self.network),
        )
        encoded = self._rows(entity, rows[numbers])
        features, fold_in = self._encoded[entity][0], self._fold_in if self.method.fold_in else None
        widths, seed = features.widths(self.catalogues[entity].table), self.options.seed
        prior = fit_prior(encoded, trained, fold_in, widths=widths, like=self._chosen.get(entity), seed=seed)
        self._chosen[entity] = prior
        return ContentModel(features, prior), numbers, trained

    def _rows(self, entity: Entity, rows: npt.NDArray[np.int64]) -> Any:
        """The features of these rows of a catalogue, which is encoded once: texts take longer than all the rest."""
        if entity not in self._encoded:
            catalogue = self.catalogues[entity]
            features = Features.fitted(catalogue.table, catalogue.columns, progress=self.options.progress)
            self._encoded[entity] = features, features.of(catalogue.table)
        return self._encoded[entity][1][rows]

    def _fold_in(self, rows: csr_matrix, known: KnownSide) -> Folded:
        return self.method.fold(rows, known, self.config, self.options)


def _one_blas_thread() -> AbstractContextManager[Any]:
    """Its other threads spin between products as small as those of the map, which takes twice the processor time."""
    return import_extra("threadpoolctl").threadpool_limits(1, "blas")  # type: ignore[no-any-return]


def _of_factors(factors: Factors) -> dict[Entity, Folded]:
    users = factors.user_factors
    return {
        "user": Folded(users, np.zeros(len(users), np.float32)),
        "item": Folded(factors.item_factors, factors.item_bias),
    }


def _with_content(table: EmbeddingTable, numbers: npt.NDArray[np.int64], said: Folded) -> EmbeddingTable:
    content = np.zeros_like(table.embedding)
    content[numbers] = unit(said.factors)
    return replace(table, content=content)


def _turned(table: EmbeddingTable, numbers: npt.NDArray[np.int64], turned: Folded) -> EmbeddingTable:
    embedding = table.embedding.copy()
    embedding[numbers] = turned.factors
    attributes = table.attributes
    if attributes is not None:
        is_turned = np.zeros(len(table.ids), bool)
        is_turned[numbers] = True
        place = attributes.column_names.index(SOURCE)
        sources = pc.if_else(pa.array(is_turned), BOTH, attributes[SOURCE])
        attributes = attributes.set_column(place, SOURCE, sources)
    return replace(table, embedding=embedding, attributes=attributes)


def _extended(table: EmbeddingTable, catalogue: Catalogue, said: Folded) -> EmbeddingTable:
    """Append the rows without interactions to the trained ones."""
    attributes = None
    if table.attributes is not None:
        attributes = pa.concat_tables([table.attributes, catalogue.cold_attributes])
    return replace(
        table,
        ids=pa.concat_arrays([table.ids, catalogue.cold_ids]),
        embedding=np.concatenate([table.embedding, said.factors]),
        content=None if table.content is None else np.concatenate([table.content, unit(said.factors)]),
        bias=None if table.bias is None else np.concatenate([table.bias, said.bias]),
        n_interactions=np.concatenate([table.n_interactions, np.zeros(len(catalogue.cold), np.int64)]),
        attributes=attributes,
        **{name: _then_empty(lists, len(table.ids)) for name, lists in table.lists().items()},
    )


def _bias(table: EmbeddingTable) -> npt.NDArray[np.float32]:
    return np.zeros(len(table.ids), np.float32) if table.bias is None else table.bias


def _then_empty(lists: Lists, n: int) -> Callable[[slice], pa.ChunkedArray]:
    """The lists of n rows, with empty ones for any row after."""

    def of_rows(rows: slice) -> pa.ChunkedArray:
        start, stop = min(rows.start, n), min(rows.stop, n)
        known = lists(slice(start, stop)) if callable(lists) else pa.chunked_array(lists.slice(start, stop - start))
        n_empty = (rows.stop - rows.start) - len(known)
        return pa.chunked_array([*known.chunks, pa.array([[]] * n_empty, known.type)], known.type)

    return of_rows

"""A catalogue as content: vectors for its users or items without interactions, in the space of the trained ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedding_trainers.content.encoder import known_encoders
from embedding_trainers.content.guess import guess_content
from embedding_trainers.content.images import located_images
from embedding_trainers.content.model import ContentModel
from embedding_trainers.content.prior import FoldIn, Trained
from embedding_trainers.content.spec import ContentColumn, parse_content
from embedding_trainers.interactions.attributes import AttributeFile
from embedding_trainers.interactions.vocabulary import exact_cast
from embedding_trainers.trainer import KnownSide
from feast_embeddings.artifact import ContentFile, EmbeddingTable, Entity
from feast_embeddings.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["AUTO", "NONE", "SOURCE", "Catalogue", "catalogue_of", "content_columns", "refuse_without_file"]

AUTO = "auto"
"""The columns are guessed, and it is an error if none looks like content."""
NONE = "none"
"""No column is content."""
SOURCE = "source"
"""The attribute that says what a vector was made of."""
_OPTIONS: dict[Entity, str] = {"user": "--user-content", "item": "--content"}
_BEHAVIOUR, _CONTENT = "behaviour", "content"


@dataclass(frozen=True)
class Catalogue:
    """The file of all users or items, next to a log that has some of them.

    Attributes:
        entity: whether they are users or items.
        asked: the columns as they were asked for, or ``auto``; None if nothing was.
        columns: those that are content.
        table: these columns, a row for each row of the file.
        rows: the row of each id of the log, -1 where the file has none; int64.
        cold: the rows without an id of the log; int64.
        cold_ids: of these, in the type of the log's ids.
        cold_attributes: of these.
        trained_attributes: of the ids of the log.
    """

    entity: Entity
    asked: str | None
    columns: tuple[ContentColumn, ...]
    table: pa.Table
    rows: npt.NDArray[np.int64]
    cold: npt.NDArray[np.int64]
    cold_ids: pa.Array
    cold_attributes: pa.Table
    trained_attributes: pa.Table

    @classmethod
    def of(
        cls, file: AttributeFile, entity: Entity, ids: pa.Array, asked: str | None, columns: tuple[ContentColumn, ...]
    ) -> Catalogue:
        """Take the content from a file.

        Args:
            file: with a row for each user or item.
            entity: whether they are users or items.
            ids: of those of the log.
            asked: for the manifest.
            columns: those that are content.

        Raises:
            InputError: a column or an id cannot be used.
        """
        if SOURCE in file.columns.column_names:
            raise InputError(
                f"{file.name} has a column {SOURCE!r}, and with {_OPTIONS[entity]} that is the attribute that says "
                "what a vector was made of; rename the column"
            )
        places = file.rows_of(ids)
        cold = np.flatnonzero(~np.isin(np.arange(len(file.ids)), places.drop_null().to_numpy()))
        cold_ids = exact_cast(file.ids.take(pa.array(cold)), ids.type)
        if cold_ids is None:
            example = next(each for each in file.ids.to_pylist() if exact_cast(pa.array([each]), ids.type) is None)
            raise InputError(
                f"{file.name} has the {entity} id {example!r}, but those of the interactions are 64-bit whole numbers; "
                "correct it, or read all ids as text with --id-type text"
            )
        # What is no type that can be served, a vector or an image is content only.
        served = file.served(leave_out={column.name for column in columns if column.how in ("vector", "image")})
        table = file.columns.select([column.name for column in columns])
        return cls(
            entity=entity,
            asked=asked,
            columns=columns,
            table=located_images(table, columns, file.folder, file.name),
            rows=pc.fill_null(places.cast(pa.int64()), -1).to_numpy(zero_copy_only=False),
            cold=cold,
            cold_ids=cold_ids,
            cold_attributes=_with_source(served, pa.array(cold), _CONTENT),
            trained_attributes=_with_source(served, places, _BEHAVIOUR),
        )

    def fitted(
        self,
        tables: dict[Entity, EmbeddingTable],
        user_items: csr_matrix,
        fold_in: FoldIn | None,
        seed: int,
        *,
        progress: bool = False,
    ) -> ContentModel:
        """Fit what content says of trained vectors, on the trained rows that the file has.

        Args:
            tables: of the training, aligned.
            user_items: what it was trained on.
            fold_in: of its trainer; None if it cannot.
            seed: of all randomness.
            progress: see `Encoder`.
        """
        listed = self.rows >= 0
        other: Entity = "item" if self.entity == "user" else "user"
        own, known = tables[self.entity], tables[other]
        interactions = user_items if self.entity == "user" else user_items.T.tocsr()
        degrees = user_items.getnnz(axis=0 if other == "item" else 1).astype(np.int64)
        if not listed.all():
            interactions = interactions[np.flatnonzero(listed)]
        interactions.sort_indices()
        return ContentModel.fitted(
            self.table.take(pa.array(self.rows[listed])),
            self.columns,
            Trained(
                own.embedding[listed],
                _bias(own)[listed],
                interactions,
                KnownSide(other, known.embedding, _bias(known), degrees),
            ),
            fold_in,
            catalogue=self.table,
            seed=seed,
            progress=progress,
        )

    def extended(self, trained: EmbeddingTable, model: ContentModel) -> EmbeddingTable:
        """Append the rows without interactions to the trained ones."""
        if not len(self.cold):
            return trained
        said = model.of(self.table.take(pa.array(self.cold)))
        attributes = None
        if trained.attributes is not None:
            attributes = pa.concat_tables([trained.attributes, self.cold_attributes])
        return replace(
            trained,
            ids=pa.concat_arrays([trained.ids, self.cold_ids]),
            embedding=np.concatenate([trained.embedding, said.factors]),
            bias=None if trained.bias is None else np.concatenate([trained.bias, said.bias]),
            n_interactions=np.concatenate([trained.n_interactions, np.zeros(len(self.cold), np.int64)]),
            seen_items=_then_empty(trained.seen_items, len(trained.ids)),
            attributes=attributes,
        )

    def file(self, model: ContentModel) -> ContentFile:
        """What a version keeps of it."""
        described = {"asked": self.asked, f"{self.entity}s": len(self.cold), **model.to_json()}
        return ContentFile(described, model.save)


def refuse_without_file(entity: Entity, asked: str | None, has_file: bool) -> None:
    """Refuse content that was asked for without a file to take it from.

    Raises:
        InputError: it was.
    """
    if asked not in (None, NONE) and not has_file:
        raise InputError(f"{_OPTIONS[entity]} {asked}: no file to take it from; name one with --{entity}s")


def catalogue_of(file: AttributeFile, entity: Entity, ids: pa.Array, asked: str | None) -> tuple[Catalogue | None, str]:
    """What of a file is content; or None, and why.

    Args:
        file: with a row for each user or item.
        entity: whether they are users or items.
        ids: of those of the log.
        asked: ``none``, ``auto``, or what `parse_content` reads; None takes what looks like content, if it can be used.

    Raises:
        InputError: what was asked for cannot be used.
    """
    if asked == NONE:
        return None, "content is turned off"
    if asked is not None:
        return Catalogue.of(file, entity, ids, asked, content_columns(file, entity, asked)), ""
    if not (columns := guess_content(file.columns).content):
        return None, "no column looks like content"
    try:
        return Catalogue.of(file, entity, ids, None, columns), ""
    except InputError as error:
        # Without content the file may do as it is; where it does not, that is said when it is read.
        return None, str(error)


def content_columns(file: AttributeFile, entity: Entity, asked: str) -> tuple[ContentColumn, ...]:
    """The columns of a file that are content.

    Args:
        file: the catalogue.
        entity: whether it has users or items.
        asked: ``auto``, or what `parse_content` reads.

    Raises:
        InputError: there are none, or not those asked for.
    """
    if asked != AUTO:
        return parse_content(asked, file.columns.column_names, known_encoders(), _OPTIONS[entity])
    guess = guess_content(file.columns)
    if not guess.content:
        reasons = "; ".join(f"{name!r}: {why}" for name, why in guess.left_out.items()) or "there are no columns"
        raise InputError(
            f"{_OPTIONS[entity]} {AUTO}: no column of {file.name} looks like content ({reasons}); name one"
        )
    return guess.content


def _bias(table: EmbeddingTable) -> npt.NDArray[np.float32]:
    return np.zeros(len(table.ids), np.float32) if table.bias is None else table.bias


def _then_empty(
    seen: pa.Array | pa.ChunkedArray | Callable[[slice], pa.ChunkedArray] | None, n: int
) -> Callable[[slice], pa.ChunkedArray] | None:
    """The lists of n rows, with empty ones for any row after."""
    if seen is None:
        return None

    def lists(rows: slice) -> pa.ChunkedArray:
        start, stop = min(rows.start, n), min(rows.stop, n)
        of_known = seen(slice(start, stop)) if callable(seen) else pa.chunked_array(seen.slice(start, stop - start))
        n_empty = (rows.stop - rows.start) - len(of_known)
        return pa.chunked_array([*of_known.chunks, pa.array([[]] * n_empty, of_known.type)], of_known.type)

    return lists


def _with_source(table: pa.Table, rows: pa.Array, source: str) -> pa.Table:
    sources = pa.repeat(source, len(rows))
    # A table without columns has no rows to take.
    return table.take(rows).append_column(SOURCE, sources) if table.num_columns else pa.table({SOURCE: sources})

"""A catalogue as content: vectors for its items without interactions, in the space of the trained ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedding_trainers.content.encoder import known_encoders
from embedding_trainers.content.guess import guess_content
from embedding_trainers.content.model import ContentModel
from embedding_trainers.content.models.images import located_images
from embedding_trainers.content.prior import FoldIn, Trained
from embedding_trainers.content.spec import ContentColumn, parse_content
from embedding_trainers.interactions.attributes import AttributeFile
from embedding_trainers.interactions.vocabulary import exact_cast
from embedding_trainers.trainer import KnownSide
from feast_embeddings.artifact import ContentFile, EmbeddingTable, Entity
from feast_embeddings.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["AUTO", "SOURCE", "Catalogue", "content_columns"]

AUTO = "auto"
"""The columns are guessed."""
SOURCE = "source"
"""The attribute that says what an item's vector was made of."""
_BEHAVIOUR, _CONTENT = "behaviour", "content"


@dataclass(frozen=True)
class Catalogue:
    """The file of all items, next to a log that has some of them.

    Attributes:
        asked: the columns as they were asked for, or ``auto``.
        columns: those that are content.
        table: these columns, a row for each item of the file.
        rows: the row of each item of the log, -1 where the file has none; int64.
        cold: the rows without an item of the log; int64.
        cold_ids: of these, in the type of the log's ids.
        cold_attributes: of these.
        trained_attributes: of the items of the log.
    """

    asked: str
    columns: tuple[ContentColumn, ...]
    table: pa.Table
    rows: npt.NDArray[np.int64]
    cold: npt.NDArray[np.int64]
    cold_ids: pa.Array
    cold_attributes: pa.Table
    trained_attributes: pa.Table

    @classmethod
    def of(cls, file: AttributeFile, ids: pa.Array, asked: str) -> Catalogue:
        """Take the content from a file.

        Args:
            file: with a row for each item.
            ids: of the items of the log.
            asked: see `content_columns`.

        Raises:
            InputError: a column or an id cannot be used.
        """
        if SOURCE in file.columns.column_names:
            raise InputError(
                f"{file.name} has a column {SOURCE!r}, and with --content that is the attribute that says what a "
                "vector was made of; rename the column"
            )
        columns = content_columns(file, asked)
        places = file.rows_of(ids)
        cold = np.flatnonzero(~np.isin(np.arange(len(file.ids)), places.drop_null().to_numpy()))
        cold_ids = exact_cast(file.ids.take(pa.array(cold)), ids.type)
        if cold_ids is None:
            example = next(each for each in file.ids.to_pylist() if exact_cast(pa.array([each]), ids.type) is None)
            raise InputError(
                f"{file.name} has the item id {example!r}, but those of the interactions are 64-bit whole numbers; "
                "correct it, or read all ids as text with --id-type text"
            )
        # What is no type that can be served, a vector or an image is content only.
        served = file.served(leave_out={column.name for column in columns if column.how in ("vector", "image")})
        table = file.columns.select([column.name for column in columns])
        return cls(
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
        """Fit what content says of trained vectors, on the trained items that the file has.

        Args:
            tables: of the training, aligned.
            user_items: what it was trained on.
            fold_in: of its trainer; None if it cannot.
            seed: of all randomness.
            progress: see `Encoder`.
        """
        listed = self.rows >= 0
        items, users = tables["item"], tables["user"].embedding
        interactions = user_items.T.tocsr()[np.flatnonzero(listed)]
        interactions.sort_indices()
        known = KnownSide("user", users, np.zeros(len(users), np.float32), user_items.getnnz(axis=1).astype(np.int64))
        return ContentModel.fitted(
            self.table.take(pa.array(self.rows[listed])),
            self.columns,
            Trained(items.embedding[listed], _bias(items)[listed], interactions, known),
            fold_in,
            catalogue=self.table,
            seed=seed,
            progress=progress,
        )

    def extended(self, items: EmbeddingTable, model: ContentModel) -> EmbeddingTable:
        """Append the items without interactions to the trained ones."""
        said = model.of(self.table.take(pa.array(self.cold)))
        attributes = None
        if items.attributes is not None:
            attributes = pa.concat_tables([items.attributes, self.cold_attributes])
        return replace(
            items,
            ids=pa.concat_arrays([items.ids, self.cold_ids]),
            embedding=np.concatenate([items.embedding, said.factors]),
            bias=np.concatenate([_bias(items), said.bias]),
            n_interactions=np.concatenate([items.n_interactions, np.zeros(len(self.cold), np.int64)]),
            attributes=attributes,
        )

    def file(self, model: ContentModel) -> ContentFile:
        """What a version keeps of it."""
        described = {"asked": self.asked, "items": len(self.cold), **model.to_json()}
        return ContentFile(described, model.save)


def content_columns(file: AttributeFile, asked: str) -> tuple[ContentColumn, ...]:
    """The columns of a file that are content.

    Args:
        file: the catalogue.
        asked: ``auto``, or what `parse_content` reads.

    Raises:
        InputError: there are none, or not those asked for.
    """
    if asked != AUTO:
        return parse_content(asked, file.columns.column_names, known_encoders())
    guess = guess_content(file.columns)
    if not guess.content:
        reasons = "; ".join(f"{name!r}: {why}" for name, why in guess.left_out.items()) or "there are no columns"
        raise InputError(f"--content {AUTO}: no column of {file.name} looks like content ({reasons}); name one")
    return guess.content


def _bias(items: EmbeddingTable) -> npt.NDArray[np.float32]:
    return np.zeros(len(items.ids), np.float32) if items.bias is None else items.bias


def _with_source(table: pa.Table, rows: pa.Array, source: str) -> pa.Table:
    sources = pa.repeat(source, len(rows))
    # A table without columns has no rows to take.
    return table.take(rows).append_column(SOURCE, sources) if table.num_columns else pa.table({SOURCE: sources})

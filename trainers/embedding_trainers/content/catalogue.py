"""A catalogue as content: vectors for its users or items without interactions, in the space of the trained ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedding_trainers.content.encoder import known_encoders
from embedding_trainers.content.guess import guess_content
from embedding_trainers.content.models.images import located_images
from embedding_trainers.content.spec import ContentColumn, parse_content
from embedding_trainers.interactions.attributes import AttributeFile
from embedding_trainers.interactions.vocabulary import exact_cast
from feast_embeddings.artifact import Entity
from feast_embeddings.artifact.attributes import BEHAVIOUR, CONTENT, SOURCE
from feast_embeddings.errors import InputError

__all__ = [
    "AUTO",
    "NONE",
    "Catalogue",
    "catalogue_of",
    "content_columns",
    "refuse_without_file",
]

AUTO = "auto"
"""The columns are guessed, and it is an error if none looks like content."""
NONE = "none"
"""No column is content."""
_OPTIONS: dict[Entity, str] = {"user": "--user-content", "item": "--content"}


@dataclass(frozen=True)
class Catalogue:
    """The file of all users or items, next to a log that has some of them.

    Attributes:
        entity: whether they are users or items.
        asked: the columns as they were asked for, or ``auto``; None if nothing was.
        columns: the content columns.
        table: these columns, a row for each row of the file.
        ids: of the log.
        rows: the row of each of them, -1 where the file has none; int64.
        cold: the rows without an id of the log; int64.
        cold_ids: of these, in the type of the log's ids.
        cold_attributes: of these.
        trained_attributes: of the ids of the log.
    """

    entity: Entity
    asked: str | None
    columns: tuple[ContentColumn, ...]
    table: pa.Table
    ids: pa.Array
    rows: npt.NDArray[np.int64]
    cold: npt.NDArray[np.int64]
    cold_ids: pa.Array
    cold_attributes: pa.Table
    trained_attributes: pa.Table

    @classmethod
    def of(
        cls,
        file: AttributeFile,
        entity: Entity,
        ids: pa.Array,
        places: pa.Array,
        asked: str | None,
        columns: tuple[ContentColumn, ...],
    ) -> Catalogue:
        """Take the content from a file.

        Args:
            file: with a row for each user or item.
            entity: whether they are users or items.
            ids: the ids of the log.
            places: the row of each of these, null where there is none.
            asked: for the manifest.
            columns: the content columns.

        Raises:
            InputError: a column or an id cannot be used.
        """
        if SOURCE in file.columns.column_names:
            raise InputError(
                f"{file.name} has a column {SOURCE!r}, and with {_OPTIONS[entity]} that is the attribute that says "
                "what a vector was made of; rename the column"
            )
        cold = np.flatnonzero(~np.isin(np.arange(len(file.ids)), places.drop_null().to_numpy()))
        cold_ids = exact_cast(file.ids.take(pa.array(cold)), ids.type)
        if cold_ids is None:
            example = next(each for each in file.ids.to_pylist() if exact_cast(pa.array([each]), ids.type) is None)
            raise InputError(
                f"{file.name} has the {entity} id {example!r}, but the interactions' ids are 64-bit whole numbers; "
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
            ids=ids,
            rows=pc.fill_null(places.cast(pa.int64()), -1).to_numpy(zero_copy_only=False),
            cold=cold,
            cold_ids=cold_ids,
            cold_attributes=_with_source(served, pa.array(cold), CONTENT),
            trained_attributes=_with_source(served, places, BEHAVIOUR),
        )


def refuse_without_file(entity: Entity, asked: str | None, has_file: bool) -> None:
    """Refuse content that was asked for without a file to take it from.

    Raises:
        InputError: it was.
    """
    if asked not in (None, NONE) and not has_file:
        raise InputError(f"{_OPTIONS[entity]} {asked}: no file to take it from; name one with --{entity}s")


def catalogue_of(
    file: AttributeFile, entity: Entity, ids: pa.Array, places: pa.Array, asked: str | None
) -> tuple[Catalogue | None, str]:
    """What of a file is content; or None, and why.

    Args:
        file: with a row for each user or item.
        entity: whether they are users or items.
        ids: of those of the log.
        places: the row of each of these, null where there is none.
        asked: ``none``, ``auto``, or what `parse_content` reads; None takes what looks like content, if it can be used.

    Raises:
        InputError: what was asked for cannot be used.
    """
    if asked == NONE:
        return None, "content is turned off"
    if asked is not None:
        return Catalogue.of(file, entity, ids, places, asked, content_columns(file, entity, asked)), ""
    if not (columns := guess_content(file.columns).content):
        return None, "no column looks like content"
    try:
        return Catalogue.of(file, entity, ids, places, None, columns), ""
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


def _with_source(table: pa.Table, rows: pa.Array, source: str) -> pa.Table:
    sources = pa.repeat(source, len(rows))
    # A table without columns has no rows to take.
    return table.take(rows).append_column(SOURCE, sources) if table.num_columns else pa.table({SOURCE: sources})

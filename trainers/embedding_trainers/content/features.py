"""The columns of a table side by side as one matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from embedding_trainers.content.encoder import Encoder, make_encoder
from embedding_trainers.content.spec import ContentColumn
from embedding_trainers.extra import import_extra
from feast_embeddings.errors import InputError

__all__ = ["Features", "what_is_read"]


@dataclass(frozen=True)
class Features:
    """Fitted encoders, one for each column."""

    columns: tuple[ContentColumn, ...]
    encoders: tuple[Encoder, ...]

    @classmethod
    def fitted(cls, table: pa.Table, columns: Sequence[ContentColumn], *, progress: bool = False) -> Features:
        """Fit the encoders on a table; `progress` see `Encoder`.

        Raises:
            InputError: a column cannot be encoded as it is to be.
            MissingExtraError: an encoder needs a package that is not installed.
        """
        encoders = tuple(make_encoder(column) for column in columns)
        for column, encoder in zip(columns, encoders, strict=True):
            encoder.progress = progress
            with _named(column):
                encoder.fit(table[column.name])
        return cls(tuple(columns), encoders)

    def of(self, table: pa.Table) -> Any:
        """Encode the rows of a table with these columns: csr float32, shape (n, p)."""
        sparse = import_extra("scipy.sparse")
        parts = []
        for column, encoder in zip(self.columns, self.encoders, strict=True):
            with _named(column):
                parts.append(sparse.csr_matrix(encoder.encode(table[column.name])))
        return sparse.hstack(parts, format="csr", dtype="float32")

    def widths(self, table: pa.Table) -> tuple[int, ...]:
        """The number of features of each column."""
        nothing = table.slice(0, 0)
        return tuple(
            encoder.encode(nothing[column.name]).shape[1]
            for column, encoder in zip(self.columns, self.encoders, strict=True)
        )


def what_is_read(table: pa.Table, columns: Sequence[ContentColumn]) -> str:
    """What encoding a table depends on besides its values; see `Encoder.reads`, also for errors."""
    found = []
    for column in columns:
        encoder = make_encoder(column)
        with _named(column):
            found.append(encoder.reads(table[column.name]))
    return repr(found)


class _named:  # noqa: N801 (a context manager that is used like a function)
    """Puts the column in front of an error about it."""

    def __init__(self, column: ContentColumn) -> None:
        self._column = column

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, InputError):
            raise InputError(f"content {self._column}: {error}") from None

"""Read a table of users or items with vectors that were made elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feast_embeddings.artifact import EmbeddingTable, Entity, normalise_attributes
from feast_embeddings.artifact.ids import id_column_in, id_names
from feast_embeddings.artifact.seen import NEXT_TO_SEEN, SEEN, SEEN_WEIGHTS, misfit
from feast_embeddings.artifact.table import WHOLE_NUMBER
from feast_embeddings.errors import InputError
from feast_embeddings.reading import ColumnType, IdType, Location, missing_column, read_table

__all__ = ["VectorFile", "read_vectors"]


@dataclass(frozen=True)
class VectorFile:
    """A table of vectors, and the names of its columns.

    Attributes:
        path: a file, a folder or a glob, or another place of docs/input.md.
        id: the column of ids; it may also be ``user_id`` or ``item_id``.
        embedding: the column of vectors.
        id_type: what ids are read as; None keeps their type in the file.
        only_id: whether `id` is the only name that the column of ids may have.
    """

    path: Path | Location
    id: str | None = None
    embedding: str = "embedding"
    id_type: IdType | None = None
    only_id: bool = False


@dataclass(frozen=True)
class _Rows:
    """The rows of a table, as errors name them."""

    path: Path | Location
    ids: pa.ChunkedArray

    def refuse(self, column: str, bad: pa.Array | pa.ChunkedArray | npt.NDArray[np.bool_], what: str) -> None:
        """Raise `InputError` if a row is bad, with their number and the first."""
        flags = np.asarray(bad)
        if n := int(flags.sum()):
            row = int(flags.argmax())
            raise InputError(
                f"{self.path}: column {column!r}: {n:,} of {len(flags):,} rows {what}; the first is row {row + 1} "
                f"(id {self.ids[row].as_py()!r})"
            )


def read_vectors(
    entity: Entity, file: VectorFile, types: Mapping[str, ColumnType], item_ids: pa.DataType | None
) -> EmbeddingTable:
    """Read the vectors, counts, seen items and attributes of users or items.

    Args:
        types: types of attributes, by name.
        item_ids: the type of the items' ids, which seen items have; None keeps the file's type.

    Raises:
        InputError: a row cannot be used.
    """
    names: tuple[str, ...] = (file.id,) if file.id and file.only_id else id_names(entity, file.id)
    reserved = {"bias", "n_interactions", SEEN, *NEXT_TO_SEEN}
    types = {name: type for name, type in types.items() if name not in {*names, file.embedding, *reserved}}
    table = read_table(file.path, as_text=names, vectors=(file.embedding,), types=types)
    id_name = id_column_in(table.column_names, names, str(file.path))
    if id_name is None or file.embedding not in table.column_names:
        raise missing_column(str(file.path), file.embedding if id_name else names[0], table.column_names)
    if not table.num_rows:
        raise InputError(f"{file.path} has no rows")
    rows = _Rows(file.path, table[id_name])
    ids = _ids(rows, id_name, file.id_type)
    matrix = _matrix(rows, table[file.embedding], file.embedding)
    bias = table["bias"] if "bias" in table.column_names else None
    if bias is not None and entity == "user":
        raise InputError(f"{file.path}: column 'bias': only items have one; a user's would change no order: drop it")
    lists = {name: table[name] for name in (SEEN, *NEXT_TO_SEEN) if name in table.column_names}
    if lists and entity == "item":
        raise InputError(f"{file.path}: column {next(iter(lists))!r}: only users have them; drop or rename it")
    others = [name for name in table.column_names if name not in {id_name, file.embedding, *reserved}]
    return EmbeddingTable(
        ids=ids,
        embedding=matrix,
        n_interactions=_counts(rows, table),
        bias=None if bias is None else _bias(rows, bias),
        attributes=normalise_attributes(table.select(others), source=str(file.path)) if others else None,
        **_histories(rows, lists, item_ids),
    )


def _ids(rows: _Rows, name: str, wanted: IdType | None) -> pa.Array:
    ids, what = rows.ids, f"{rows.path}: column {name!r}"
    if pa.types.is_decimal(ids.type) and ids.type.scale == 0:  # DuckDB's integers of more than 64 bits
        ids = ids.cast(pa.string())
    is_text = pa.types.is_string(ids.type) or pa.types.is_large_string(ids.type)
    if not (is_text or pa.types.is_integer(ids.type)):
        raise InputError(f"{what}: ids must be text or whole numbers, but the type is {ids.type}")
    texts = ids.cast(pa.string())
    rows.refuse(name, pc.or_kleene(pc.is_null(texts), pc.equal(texts, "")).fill_null(True), "have no id")
    if wanted == "int" and is_text:
        rows.refuse(name, pc.invert(pc.match_substring_regex(texts, f"^{WHOLE_NUMBER}$")), "have no whole number")
    if wanted != "text" and (wanted == "int" or not is_text):
        try:
            ids = texts.cast(pa.int64())
        except pa.ArrowInvalid:
            raise InputError(
                f"{what}: a whole number has more than 64 bits; read all ids as text (--id-type)"
            ) from None
    else:
        ids = texts
    plain = ids.combine_chunks()
    first = np.zeros(len(plain), dtype=np.bool_)
    first[np.unique(pc.index_in(plain, value_set=pc.unique(plain)).to_numpy(), return_index=True)[1]] = True
    rows.refuse(name, ~first, "repeat an id")
    return plain


def _matrix(rows: _Rows, column: pa.ChunkedArray, name: str) -> npt.NDArray[np.float32]:
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)) and not pa.types.is_fixed_size_list(
        column.type
    ):
        raise InputError(f"{rows.path}: column {name!r} has type {column.type}; expected lists of real numbers")
    rows.refuse(name, pc.is_null(column), "have no vector, or one that is not a list of numbers")
    lengths = np.concatenate([pc.list_value_length(chunk).to_numpy() for chunk in column.chunks])
    dim = int(lengths[0])
    if dim == 0:
        rows.refuse(name, lengths == 0, "have a vector of length 0")
    rows.refuse(name, lengths != dim, f"have a vector that does not have the length of row 1, {dim}")
    matrix = np.empty((len(column), dim), dtype=np.float32)
    start = 0
    for chunk in column.chunks:  # one may have as many values as 32-bit offsets count
        values = chunk.flatten()
        with np.errstate(over="ignore"):  # too large numbers become infinite, and are refused
            matrix[start : start + len(chunk)] = values.to_numpy(zero_copy_only=False).reshape(-1, dim)
        start += len(chunk)
    rows.refuse(name, ~np.isfinite(matrix).all(axis=1), "have a null, NaN or infinity in 32 bits in their vector")
    rows.refuse(name, ~matrix.any(axis=1), "have a vector of zeros, which has no direction; leave them out")
    return matrix


def _counts(rows: _Rows, table: pa.Table) -> npt.NDArray[np.int64]:
    name = "n_interactions"
    if name not in table.column_names:
        return np.zeros(table.num_rows, dtype=np.int64)
    column = table[name]
    if not pa.types.is_integer(column.type):
        raise InputError(f"{rows.path}: column {name!r} has type {column.type}; expected whole numbers")
    rows.refuse(name, pc.less(column, 0).fill_null(True), "have no number, or one below 0")
    counts: npt.NDArray[np.int64] = column.cast(pa.int64()).to_numpy()
    return counts


def _bias(rows: _Rows, column: pa.ChunkedArray) -> npt.NDArray[np.float32]:
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        raise InputError(f"{rows.path}: column 'bias' has type {column.type}; expected real numbers")
    with np.errstate(over="ignore"):
        bias: npt.NDArray[np.float32] = column.cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float32)
    rows.refuse("bias", ~np.isfinite(bias), "have a null, NaN or infinity in 32 bits")
    return bias


def _histories(
    rows: _Rows, lists: Mapping[str, pa.ChunkedArray], item_ids: pa.DataType | None
) -> dict[str, pa.ChunkedArray]:
    if not lists:
        return {}
    if SEEN not in lists:
        raise InputError(f"{rows.path}: column {next(iter(lists))!r} needs a column {SEEN!r}, which there is not")
    made = {SEEN: _seen(rows, lists[SEEN], item_ids)}
    for name in [name for name in NEXT_TO_SEEN if name in lists]:
        column, expected = lists[name], NEXT_TO_SEEN[name]
        is_list = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
        value = column.type.value_type if is_list else pa.null()
        kinds = [pa.types.is_null, pa.types.is_timestamp]
        if name == SEEN_WEIGHTS:
            kinds = [pa.types.is_null, pa.types.is_floating, pa.types.is_integer]
        if not (is_list and any(kind(value) for kind in kinds)):
            raise InputError(f"{rows.path}: column {name!r} has type {column.type}; expected {expected}")
        # A time without a zone is UTC; finer ones are cut to microseconds; a weight of too many digits is rounded.
        made[name] = column.cast(expected, safe=False)
        if found := misfit(name, made[name], made[SEEN]):
            id = rows.ids[found[0]].as_py()
            raise InputError(f"{rows.path}: column {name!r}: row {found[0] + 1} (id {id!r}): {found[1]}")
    return made


def _seen(rows: _Rows, column: pa.ChunkedArray, item_ids: pa.DataType | None) -> pa.ChunkedArray:
    what = f"{rows.path}: column 'seen_items'"
    is_list = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
    value = column.type.value_type if is_list else pa.null()
    if not (is_list and (pa.types.is_integer(value) or pa.types.is_string(value) or pa.types.is_null(value))):
        raise InputError(f"{what} has type {column.type}; expected lists of item ids")
    if pc.list_flatten(column).null_count:
        raise InputError(f"{what} has a null in a list; expected item ids")
    known = item_ids or (pa.int64() if pa.types.is_integer(value) else pa.string())
    try:
        return column.cast(pa.list_(known))
    except pa.ArrowInvalid as error:
        raise InputError(f"{what}: not all are ids like the items', {known}: {error}") from None

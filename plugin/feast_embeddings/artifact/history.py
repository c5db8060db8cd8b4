"""The offline history: the tables of all versions under one schema, for Feast to join point in time.

::

    <data>/<model>/history/users/<version>.parquet
    <data>/<model>/history/items/<version>.parquet

Feast's DuckDB store reads one folder, and DuckDB refuses files whose columns differ. Artifacts never change, but
attributes come and go between trainings. So the history holds a copy of each artifact's table, where its columns
differ from the union over all versions with the missing columns as nulls. It is no hard link: Feast may write into the
folder, and an artifact must have no other name to be written through. A file system that can share blocks between
copies does. The history is derived: it can be deleted and is made again by the next `refresh_history`.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from feast_embeddings.errors import InputError

__all__ = ["check_columns", "folder_of_source", "history_folder", "history_source", "refresh_history"]

_EVERY_FILE = "/*.parquet"


def history_folder(model_folder: Path, entity: str) -> Path:
    """The folder that Feast's source reads: every version's users or items. Absolute, as Feast's source needs it."""
    return model_folder.resolve() / "history" / f"{entity}s"


def history_source(model_folder: Path, entity: str) -> str:
    """The path for Feast's source: DuckDB takes it for a pattern, so what is special in one is quoted."""
    folder = str(history_folder(model_folder, entity))
    quoted = re.sub(r"([*?\[])", r"[\1]", folder)
    return folder if quoted == folder else quoted + _EVERY_FILE


def folder_of_source(path: str) -> Path:
    """The folder that a path of `history_source` is of; another path is left as it is."""
    return Path(re.sub(r"\[([*?\[])\]", r"\1", path.removesuffix(_EVERY_FILE)) if path.endswith(_EVERY_FILE) else path)


def refresh_history(model_folder: Path, versions: list[Path]) -> None:
    """Bring the history in line with the versions on disk. Safe to repeat, and to interrupt.

    Called with the model's writer lock held: what another call left half written is cleared.
    """
    for left in (model_folder / "history").glob(".*"):
        left.unlink()
    for entity in ("user", "item"):
        folder = history_folder(model_folder, entity)
        folder.mkdir(parents=True, exist_ok=True)
        sources = {path.name: path / f"{entity}s.parquet" for path in versions}
        schema = _union([pq.read_schema(source) for source in sources.values()])
        # Newest first: DuckDB takes the columns of the first (oldest) file and tolerates more in later ones,
        # so a reader that comes in the middle of this loop still finds a readable set.
        for name in sorted(sources, reverse=True):
            target = folder / f"{name}.parquet"
            if not _is_current(target, sources[name], schema):
                _place(sources[name], target, schema)
        for stale in folder.iterdir():
            if stale.name.removesuffix(".parquet") not in sources:
                stale.unlink()


def check_columns(versions: list[Path], new: dict[str, pa.Schema]) -> None:
    """Check, before anything is written, that new tables can join the history.

    Args:
        versions: folders of the versions that are on disk.
        new: schema of the new table per file name, e.g. ``items.parquet``.

    Raises:
        InputError: a column has another type than in an earlier version, and the two do not mix; or two names
            differ only in case.
    """
    for name, schema in new.items():
        _union([*_schemas(path / name for path in versions), schema])


def _schemas(tables: Iterable[Path]) -> Iterator[pa.Schema]:
    """Of those tables whose versions are not deleted meanwhile, as this looks without the lock."""
    for table in tables:
        try:
            yield pq.read_schema(table)
        except FileNotFoundError:
            if table.parent.is_dir():
                raise


def _union(schemas: list[pa.Schema]) -> pa.Schema:
    """One schema for all versions; vectors lose their fixed length, as a retrain may change it."""
    spellings: dict[str, str] = {}
    for name in (name for schema in schemas for name in schema.names):
        if spellings.setdefault(name.casefold(), name) != name:
            raise InputError(
                f"the columns {spellings[name.casefold()]!r} and {name!r} differ only in case, which DuckDB does "
                "not tell apart; rename one (they may be of different versions of the model)"
            )
    if all(schema.equals(schemas[0]) for schema in schemas):
        return schemas[0] if schemas else pa.schema([])
    variable = [
        pa.schema(
            pa.field(f.name, pa.list_(pa.float32())) if f.name == "embedding" else f.remove_metadata() for f in schema
        )
        for schema in schemas
    ]
    try:
        return pa.unify_schemas(variable, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InputError(
            f"a column changed its type between versions of the model ({error}); "
            "give it the type that it had, or another name"
        ) from None


def _is_current(target: Path, source: Path, schema: pa.Schema) -> bool:
    try:
        # Older releases made hard links.
        return not target.samefile(source) and pq.read_schema(target).equals(schema)
    except (OSError, pa.ArrowInvalid):  # it is not there, or is not whole
        return False


def _place(source: Path, target: Path, schema: pa.Schema) -> None:
    # Beside the folder, not in it: readers take every file that they find there.
    temporary = target.parent.with_name(f".{target.parent.name}-{target.name}.{uuid.uuid4().hex}")
    table_schema = pq.read_schema(source)
    with temporary.open("xb") as writing:
        if table_schema.equals(schema):
            with source.open("rb") as reading:
                _copy(reading.fileno(), writing.fileno())
        else:
            table = pq.read_table(source, partitioning=None)
            columns = [
                table[field.name].cast(field.type)
                if field.name in table_schema.names
                else pa.nulls(table.num_rows, field.type)
                for field in schema
            ]
            pq.write_table(pa.Table.from_arrays(columns, schema=schema), writing)
        writing.flush()
        os.fsync(writing.fileno())
    temporary.replace(target)


def _copy(reading: int, writing: int) -> None:
    """Copy a file into an empty one; where the file system can, the two share their blocks until one is written."""
    if hasattr(os, "copy_file_range"):
        size, done = os.fstat(reading).st_size, 0
        try:
            while done < size and (count := os.copy_file_range(reading, writing, size - done)):
                done += count
        except OSError:  # not on this file system
            os.lseek(reading, 0, os.SEEK_SET)
            os.lseek(writing, 0, os.SEEK_SET)
        if done == size:
            return
    with open(reading, "rb", closefd=False) as source, open(writing, "wb", closefd=False) as target:
        shutil.copyfileobj(source, target)

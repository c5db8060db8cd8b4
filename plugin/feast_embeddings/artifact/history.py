"""The offline history: the tables of all versions with one schema, for Feast's point-in-time join.

::

    <data>/<model>/history/users/<version>.parquet
    <data>/<model>/history/items/<version>.parquet        or <version>-00000.parquet and so on, if it has parts

Feast's DuckDB store reads one folder, and DuckDB refuses files whose columns differ. Artifacts do not change, but
attributes come and go between trainings. So the history holds a copy of each artifact's table, with nulls for columns
that only other versions have. It is not a hard link: Feast may write into the folder, and must not change an artifact
that way. Copies share blocks if the file system can. The history is derived: it can be deleted, and the next
`refresh_history` makes it again.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from feast_embeddings.artifact.manifest import read_manifest
from feast_embeddings.errors import ArtifactError, InputError

__all__ = [
    "check_columns",
    "check_sides",
    "files_of",
    "folder_of_source",
    "history_folder",
    "history_source",
    "refresh_history",
]

_EVERY_FILE = "/*.parquet"


def history_folder(model_folder: Path, entity: str) -> Path:
    """Return the folder that Feast's source reads: every version's users or items. Absolute, as Feast needs it."""
    return model_folder.resolve() / "history" / f"{entity}s"


def history_source(model_folder: Path, entity: str) -> str:
    """Return the path for Feast's source, with glob characters quoted, because DuckDB reads it as a glob."""
    folder = str(history_folder(model_folder, entity))
    quoted = re.sub(r"([*?\[])", r"[\1]", folder)
    return folder if quoted == folder else quoted + _EVERY_FILE


def folder_of_source(path: str) -> Path:
    """Return the folder of a path from `history_source`; another path is returned unchanged."""
    return Path(re.sub(r"\[([*?\[])\]", r"\1", path.removesuffix(_EVERY_FILE)) if path.endswith(_EVERY_FILE) else path)


def refresh_history(model_folder: Path, versions: list[Path]) -> None:
    """Make the history agree with the versions on disk. Safe to repeat, and to interrupt.

    Called with the model's writer lock held, so that half-written files of another call can be deleted.
    """
    for left in (model_folder / "history").glob(".*"):
        left.unlink()
    for entity in ("user", "item"):
        folder = history_folder(model_folder, entity)
        folder.mkdir(parents=True, exist_ok=True)
        sources = {name: table for path in versions for name, table in files_of(path, entity).items()}
        schema = _union([pq.read_schema(source) for source in sources.values()])
        # Newest first: DuckDB takes the columns of the first (oldest) file and tolerates more in later ones, so a
        # concurrent reader still finds a readable set.
        for name in sorted(sources, reverse=True):
            target = folder / name
            if not _is_current(target, sources[name], schema):
                _place(sources[name], target, schema)
        for stale in folder.iterdir():
            if stale.name not in sources:
                stale.unlink()


def files_of(version: Path, entity: str) -> dict[str, Path]:
    """Return the files of the users or items of a version by their names in the history."""
    try:
        manifest = read_manifest(version)
    except ArtifactError:
        # The history may hold the last copy of a lost table.
        one = version / f"{entity}s.parquet"
        tables = sorted(version.glob(f"{entity}s-[0-9][0-9][0-9][0-9][0-9].parquet")) or [one]
    else:
        # Not what the folder has: what a killed `forget` left is not part of the version.
        tables = [version / name for name in manifest.parts(entity)]
        if not tables and entity in manifest.sides:
            tables = [version / f"{entity}s.parquet"]
    return {version.name + table.name.removeprefix(f"{entity}s"): table for table in tables}


def check_sides(folders: list[Path], model: str, new: Collection[str]) -> None:
    """Check that the newest readable version has the same sides, as a model's feature views do not come and go."""
    for folder in reversed(folders):
        with contextlib.suppress(ArtifactError):
            if set(before := read_manifest(folder).sides) != set(new):
                had, has = (" and ".join(f"{entity}s" for entity in sides) for sides in (before, new))
                raise InputError(
                    f"a version of model {model!r} with {has} cannot follow version {folder.name}, which has {had}; "
                    "give both the same sides, or name a new model"
                )
            return


def check_columns(versions: list[Path], new: Mapping[Any, pa.Schema]) -> None:
    """Check before anything is written that new tables can be added to the history.

    Args:
        versions: folders of the versions that are on disk.
        new: schema of the new table of each side.

    Raises:
        InputError: a column's type is incompatible with that in an earlier version, or two names differ only in case.
    """
    for entity, schema in new.items():
        _union([*_schemas(table for path in versions for table in [*files_of(path, entity).values()][:1]), schema])


def _schemas(tables: Iterable[Path]) -> Iterator[pa.Schema]:
    """Yield the schemas of the tables; without the lock, so it skips versions that are deleted meanwhile."""
    for table in tables:
        try:
            yield pq.read_schema(table)
        except FileNotFoundError:
            if table.parent.is_dir():
                raise


def _union(schemas: list[pa.Schema]) -> pa.Schema:
    """Merge the schemas of all versions; vectors lose their fixed length, because a retrain may change it."""
    spellings: dict[str, str] = {}
    for name in (name for schema in schemas for name in schema.names):
        if spellings.setdefault(name.casefold(), name) != name:
            raise InputError(
                f"the columns {spellings[name.casefold()]!r} and {name!r} differ only in case, which DuckDB does "
                "not distinguish; rename one (they may be of different versions of the model)"
            )
    if all(schema.equals(schemas[0]) for schema in schemas):
        return schemas[0] if schemas else pa.schema([])
    variable = [
        pa.schema(
            pa.field(f.name, pa.list_(pa.float32())) if pa.types.is_fixed_size_list(f.type) else f.remove_metadata()
            for f in schema
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
        # Older releases used hard links.
        return not target.samefile(source) and pq.read_schema(target).equals(schema)
    except (OSError, pa.ArrowInvalid):  # missing or incomplete
        return False


def _place(source: Path, target: Path, schema: pa.Schema) -> None:
    # Next to the folder, not in it: readers read every file in it.
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
    """Copy a file into an empty one; if the file system can, they share blocks until one is written."""
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

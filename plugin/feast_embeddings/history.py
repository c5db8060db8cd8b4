"""The offline history: the tables of all versions under one schema, for Feast to join point in time.

::

    <data>/<model>/history/users/<version>.parquet
    <data>/<model>/history/items/<version>.parquet

Feast's DuckDB store reads one folder, and DuckDB refuses files whose columns differ. Artifacts never change, but
attributes come and go between trainings. So the history holds a hard link to each artifact's table, or, where
its columns differ from the union over all versions, a copy with the missing columns as nulls. It is derived:
it can be deleted and is made again by the next `refresh_history`.
"""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from feast_embeddings.errors import InputError

__all__ = ["check_columns", "history_folder", "refresh_history"]


def history_folder(model_folder: Path, entity: str) -> Path:
    """The folder that Feast's source reads: every version's users or items. Absolute, as Feast's source needs it."""
    return model_folder.resolve() / "history" / f"{entity}s"


def refresh_history(model_folder: Path, versions: list[Path]) -> None:
    """Bring the history in line with the versions on disk. Safe to repeat, and to interrupt."""
    for entity in ("user", "item"):
        folder = history_folder(model_folder, entity)
        folder.mkdir(parents=True, exist_ok=True)
        sources = {path.name: path / f"{entity}s.parquet" for path in versions}
        schema = _union([pq.read_schema(source) for source in sources.values()])
        # Newest first: DuckDB takes the columns of the first (oldest) file and tolerates more in later ones,
        # so a reader that comes in the middle of this loop still finds a readable set.
        for name in sorted(sources, reverse=True):
            target = folder / f"{name}.parquet"
            if not target.exists() or not pq.read_schema(target).equals(schema):
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
        _union([pq.read_schema(path / name) for path in versions] + [schema])


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
        return schemas[0]
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


def _place(source: Path, target: Path, schema: pa.Schema) -> None:
    # Beside the folder, not in it: readers take every file that they find there.
    temporary = target.parent.with_name(f".{target.parent.name}-{target.name}")
    temporary.unlink(missing_ok=True)
    table_schema = pq.read_schema(source)
    if table_schema.equals(schema):
        try:
            os.link(source, temporary)
        except OSError:  # a file system without hard links
            temporary.write_bytes(source.read_bytes())
    else:
        table = pq.read_table(source, partitioning=None)
        columns = [
            table[field.name].cast(field.type)
            if field.name in table_schema.names
            else pa.nulls(table.num_rows, field.type)
            for field in schema
        ]
        pq.write_table(pa.Table.from_arrays(columns, schema=schema), temporary)
    temporary.replace(target)

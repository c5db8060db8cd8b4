"""`export`: write all live vectors of users or of items to a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from feast_embeddings.cli.options import (
    filter_option,
    json_option,
    model_option,
    one_model,
    open_store,
    print_json,
    repo_option,
)
from feast_embeddings.cli.output_file import new_file, output_path
from feast_embeddings.cli.version_words import LIVE, VERSION, version_named
from feast_embeddings.errors import InputError
from feast_embeddings.repo import Repo

if TYPE_CHECKING:
    import pyarrow as pa

    from feast_embeddings.artifact import Artifact, Entity

# Parquet readers read one row group at a time; pages of the vector store are a tenth of it or less.
_ROW_GROUP = 20_000


def _reader_of(artifact: Artifact, entity: Entity, id_name: str) -> pa.RecordBatchReader:
    """The rows of a version on disk, with the columns of the live ones."""
    import pyarrow as pa

    files = artifact.verified(entity)
    columns = [name for name in files.schema.names if name != "created_timestamp"]
    manifest = artifact.manifest
    facts = {"version": manifest.version, "space": manifest.space_id, "as_of": manifest.as_of.isoformat()}
    fields = [files.schema.field(name) for name in columns]
    schema = pa.schema([f.with_name(id_name) if f.name == f"{entity}_id" else f for f in fields], metadata=facts)
    batches = (pa.record_batch(batch.select(columns).columns, schema=schema) for batch in files.batches(columns))
    return pa.RecordBatchReader.from_batches(schema, batches)


def _id_name(repo: Repo, artifact: Artifact, entity: Entity) -> str:
    """Return the name of the id column, as in an export of the live version; the artifact's before feast apply."""
    from feast_embeddings.model.sides import join_keys, model_views

    try:
        return join_keys(model_views(repo.feature_store(), artifact.manifest.model))[entity]
    except InputError:
        return join_keys({})[entity]


@click.command()
@repo_option
@model_option
@click.option("--entity", required=True, type=click.Choice(["user", "item"]), help="Whose vectors.")
@click.option("--output", required=True, metavar="FILE", help="Parquet file to write.")
@filter_option
@click.option("--version", default=LIVE, show_default=True, type=VERSION, help="Another version, as it is on disk.")
@json_option
@click.option("--quiet", is_flag=True, help="No progress bar.")
def export(
    repo: str,
    model: str | None,
    entity: Entity,
    output: str,
    filter: str | None,
    version: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write all live vectors of users or items, with their attributes, to a Parquet file.

    Of another version, those that training wrote: what was pushed or folded in since is in the live one only.
    """
    target = output_path("--output", output, ".parquet")
    if version != LIVE and filter is not None:
        raise InputError("--filter works on the live version only")

    import pyarrow as pa
    import pyarrow.parquet as pq
    from tqdm import tqdm

    from feast_embeddings.artifact import load_artifact

    if version == LIVE:
        store = open_store(repo, model)
        reader = store.export(entity, filter=filter)
        total = store.live().side(entity).count() if filter is None else None
    else:
        opened = Repo.open(repo)
        name = one_model(opened, model)
        artifact = load_artifact(opened.data, name, version_named(opened.path, name, version))
        reader = _reader_of(artifact, entity, _id_name(opened, artifact, entity))
        total = artifact.manifest.rows(entity)
    rows = 0
    with (
        new_file(target) as file,
        pq.ParquetWriter(file, reader.schema) as writer,
        tqdm(total=total, unit=f" {entity}s", desc="export", disable=quiet or as_json or None) as bar,
    ):
        waiting: list[Any] = []
        for batch in reader:
            waiting.append(batch)
            rows += batch.num_rows
            bar.update(batch.num_rows)
            if sum(len(each) for each in waiting) >= _ROW_GROUP:
                writer.write_table(pa.Table.from_batches(waiting))
                waiting = []
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting))
    live = {name: reader.schema.metadata[name.encode()].decode() for name in ("version", "space")}
    if as_json:
        print_json({"entity": entity, **live, "rows": rows, "output": output})
    else:
        click.echo(f"wrote {rows:,} {entity}{'' if rows == 1 else 's'} of version {live['version']} to {output}")

"""`training-frame`: join point-in-time embeddings to labelled rows, from file to file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from feast_embeddings.cli.options import json_option, model_option, open_store, print_json, repo_option
from feast_embeddings.cli.output_file import new_file, output_path
from feast_embeddings.cli.version_words import VERSION, version_named
from feast_embeddings.repo import Repo

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_TIME = "event_timestamp"


@click.command()
@click.option(
    "--entities",
    required=True,
    metavar="FILE",
    help="Parquet, CSV or JSON file with event_timestamp and ids (user_id, item_id, or as in the log).",
)
@click.option("--output", required=True, metavar="FILE", help="Parquet file to write.")
@click.option("--time-format", metavar="FORMAT", help="Format of times (strptime), if not one of docs/input.md.")
@click.option(
    "--vectors",
    type=click.Choice(["lists", "columns"]),
    default="lists",
    show_default=True,
    help="One column of lists, or a column per dimension.",
)
@click.option("--version", type=VERSION, help="Use this version only.")
@click.option("--space", metavar="S", help="Use the versions of this space only.")
@click.option("--allow-mixed-spaces", is_flag=True, help="Allow vectors of several spaces in one frame.")
@repo_option
@model_option
@json_option
def training_frame(
    entities: str,
    output: str,
    time_format: str | None,
    vectors: Literal["lists", "columns"],
    version: str | None,
    space: str | None,
    allow_mixed_spaces: bool,
    repo: str,
    model: str | None,
    as_json: bool,
) -> None:
    """Join the embeddings that existed at its time to each row of a file.

    Reads the versions on this disk, published or not, also where feature views read a table of the offline store.
    """
    import pyarrow.parquet as pq

    from feast_embeddings.offline.training_frame import label_columns

    target = output_path("--output", output, ".parquet")
    store = open_store(repo, model)
    if version is not None:
        version = version_named(Repo.open(repo).path, store.model, version)
    names = label_columns(store.feature_store, store.model, version)
    labels = _read(entities, time_format, [name for side in names.values() for name in side])
    frame = store.training_frame(
        _to_pandas(labels), vectors=vectors, version=version, space=space, allow_mixed_spaces=allow_mixed_spaces
    )
    with new_file(target) as file:
        pq.write_table(_to_arrow(frame, labels.schema), file)
    matched = {
        name: int(frame[name].notna().sum()) for name in ("user_version", "item_version") if name in frame.columns
    }
    if as_json:
        print_json({"rows": len(frame), "output": output, "with_embedding": matched})
        return
    for name, count in matched.items():
        click.echo(f"{count} of {len(frame)} rows have an embedding of their {name.removesuffix('_version')}")
    shown = frame[[*labels.column_names, *matched]]
    click.echo(shown.head(6).to_string(index=False))
    click.echo(f"wrote {output}")


def _read(path: str, time_format: str | None, id_columns: list[str]) -> pa.Table:
    import pyarrow as pa

    from feast_embeddings.reading import Rules, Scan, Wanted, read_table

    # Read ids as text: 007 is not 7.
    table = read_table(path, as_text=(*id_columns, _TIME))
    # Parse times as in a log; errors name the row.
    with Scan(path, [Wanted(_TIME, "time")], Rules(time_format)) as scan:
        times = pa.chunked_array([batch.column(_TIME) for batch in scan], pa.int64())
    scan.faults.settle(path, "error", advice="correct them")
    return table.set_column(table.column_names.index(_TIME), _TIME, times.cast(pa.timestamp("us", "UTC")))


def _to_pandas(table: pa.Table) -> pd.DataFrame:
    import pandas as pd
    import pyarrow as pa

    # By default pandas turns whole numbers into floats if one is missing.
    names = ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64")
    whole = {pa.type_for_alias(name.lower()): pd.api.types.pandas_dtype(name) for name in names}
    has_missing = any(column.null_count and column.type in whole for column in table.columns)
    frame: pd.DataFrame = table.to_pandas(types_mapper=whole.get if has_missing else None)
    return frame


def _to_arrow(frame: pd.DataFrame, labels: pa.Schema) -> pa.Table:
    """Convert the frame to Arrow; columns without a value get the type that they have with one."""
    import pyarrow as pa

    table = pa.Table.from_pandas(frame, preserve_index=False)
    for place, field in enumerate(table.schema):
        if pa.types.is_null(field.type):
            if field.name in labels.names:
                dtype = labels.field(field.name).type
            else:
                dtype = pa.list_(pa.float32()) if field.name.endswith("_embedding") else pa.string()
            table = table.set_column(place, field.with_type(dtype), table.column(place).cast(dtype))
    return table

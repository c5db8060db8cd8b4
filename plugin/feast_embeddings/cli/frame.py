"""`training-frame`: point-in-time embeddings for labelled rows, from file to file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from feast_embeddings.cli.options import json_option, model_option, open_store, print_json, repo_option
from feast_embeddings.cli.output_file import parquet_path, written_whole

if TYPE_CHECKING:
    import pandas as pd


@click.command()
@click.option("--entities", required=True, metavar="FILE", help="Parquet, CSV or JSON with event_timestamp and ids.")
@click.option("--output", required=True, metavar="FILE", help="Parquet to write.")
@click.option(
    "--vectors",
    type=click.Choice(["lists", "columns"]),
    default="lists",
    show_default=True,
    help="One column of lists, or a column per dimension.",
)
@click.option("--version", metavar="V", help="Use this version only.")
@click.option("--space", metavar="S", help="Use the versions of this space only.")
@click.option("--allow-mixed-spaces", is_flag=True, help="Do not refuse rows whose vectors are of several spaces.")
@repo_option
@model_option
@json_option
def training_frame(
    entities: str,
    output: str,
    vectors: Literal["lists", "columns"],
    version: str | None,
    space: str | None,
    allow_mixed_spaces: bool,
    repo: str,
    model: str | None,
    as_json: bool,
) -> None:
    """Join to each row of a file the embeddings that existed at its time."""
    target = parquet_path("--output", output)
    store = open_store(repo, model)
    labels = _read(entities)
    frame = store.training_frame(
        labels, vectors=vectors, version=version, space=space, allow_mixed_spaces=allow_mixed_spaces
    )
    with written_whole(target) as file:
        frame.to_parquet(file, index=False)
    matched = {
        name: int(frame[name].notna().sum()) for name in ("user_version", "item_version") if name in frame.columns
    }
    if as_json:
        print_json({"rows": len(frame), "output": output, "with_embedding": matched})
        return
    for name, count in matched.items():
        click.echo(f"{count} of {len(frame)} rows have an embedding of their {name.removesuffix('_version')}")
    shown = frame[[*labels.columns, *matched]]
    click.echo(shown.head(6).to_string(index=False))
    click.echo(f"wrote {output}")


def _read(path: str) -> pd.DataFrame:
    import pandas as pd
    import pyarrow as pa

    from feast_embeddings.reading import read_table

    # Ids and times as written: 007 is not 7.
    table = read_table(path, as_text=("user_id", "item_id", "event_timestamp"))
    # pandas makes real numbers of whole ones where one is missing, unless told otherwise.
    whole = {pa.int64(): pd.Int64Dtype()}
    has_missing = any(column.null_count and column.type == pa.int64() for column in table.columns)
    frame: pd.DataFrame = table.to_pandas(types_mapper=whole.get if has_missing else None)
    return frame

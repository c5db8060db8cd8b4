"""`segments`: divide the live users or items into groups of like direction, named by what sets them apart."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from feast_embeddings.cli.options import (
    filter_option,
    json_option,
    model_option,
    open_store,
    print_json,
    repo_option,
)
from feast_embeddings.cli.output_file import new_file, output_path
from feast_embeddings.cli.table import columns_option, fitting, table_of
from feast_embeddings.errors import InputError, MissingSideError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from feast_embeddings.analysis.clustering import Method
    from feast_embeddings.analysis.members import Members
    from feast_embeddings.analysis.segments import Segments
    from feast_embeddings.artifact import Entity

AUTO = "auto"
_METHODS: dict[str, tuple[Method, ...]] = {
    "k-means": ("k-means",),
    "hdbscan": ("hdbscan",),
    AUTO: ("k-means", "hdbscan"),
}


class _Count(click.ParamType[Any, Any]):
    name = f"INT|{AUTO}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value is None or value == AUTO:
            return None
        if not str(value).isdecimal() or int(value) < 2:
            self.fail(f"expected a whole number from 2, or {AUTO}, got {value!r:.80}", param, ctx)
        return int(value)


@click.command()
@click.option("--entity", required=True, type=click.Choice(["user", "item"]), help="Whom to divide.")
@click.option("-k", default=AUTO, show_default=True, type=_Count(), help="How many segments.")
@click.option(
    "--method",
    default=AUTO,
    show_default=True,
    type=click.Choice(list(_METHODS)),
    help="k-means; hdbscan, which leaves those out that are in no dense region (up to 20,000); or the better of both, "
    "with -k k-means.",
)
@click.option(
    "--output", metavar="FILE", help="Write each id with its segment to this .parquet or .csv file, or a .png picture."
)
@click.option(
    "--previous", metavar="FILE", help="A .parquet file that this command wrote: segments keep their numbers."
)
@click.option(
    "--save-as",
    metavar="NAME",
    help="Set the number of each as an attribute of this name, for filters to use at once; saved again, segments keep "
    "their numbers.",
)
@columns_option
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, metavar="INT")
@filter_option
@json_option
@model_option
@repo_option
def segments(
    entity: Entity,
    k: int | None,
    method: str,
    output: str | None,
    previous: str | None,
    save_as: str | None,
    columns: list[str] | None,
    seed: int,
    filter: str | None,
    as_json: bool,
    model: str | None,
    repo: str,
) -> None:
    """Divide the live users or items into segments by the direction of their vectors.

    With -k auto, as many as different runs agree on and as are well apart.
    """
    target = None if output is None else output_path("--output", output, ".parquet", ".csv", ".png")
    store = open_store(repo, model)

    from feast_embeddings.analysis.members import read_members
    from feast_embeddings.analysis.segment_saving import check_name, save_segments, saved_segments
    from feast_embeddings.analysis.segments import segment
    from feast_embeddings.analysis.traits import seen_values

    if save_as is not None:
        check_name(store, entity, save_as)
    members = read_members(store, entity, filter)
    earlier = None if previous is None else _read(previous, members)
    if earlier is None and save_as is not None:
        earlier = saved_segments(store, entity, save_as)
    seen = None
    if entity == "user":
        with suppress(MissingSideError):  # users alone
            seen = seen_values(members, read_members(store, "item"))
    found = segment(members, k, methods=_METHODS[method], seed=seed, previous=earlier, seen=seen)
    table = table_of(_rows(found), columns, as_json)
    if target is not None:
        _write(target, members, found)
    if save_as is not None:
        save_segments(store, members, found, save_as)
    if as_json:
        print_json(
            {"version": members.version, "entity": entity, **_report(found), "output": output, "rows": len(members)}
            | {"saved_as": save_as}
        )
        return
    _print(members, found, table)
    if target is not None:
        click.echo(f"wrote {target}")
    if save_as is not None:
        count = len(members) - found.without
        click.echo(f"saved as the attribute {save_as!r} of {count:,} {entity}s: --filter '{save_as} = 1'")


def _rows(found: Segments) -> list[dict[str, Any]]:
    return [
        {
            "segment": each.number,
            "size": each.size,
            "share": f"{each.share:.1%}",
            "cohesion": f"{each.cohesion:.2f}",
            "interactions": f"{each.median_interactions:g}",
            "name": each.name,
            "set apart by": ", ".join(f"{trait} ×{trait.lift:.1f}" for trait in each.traits[:4]),
        }
        for each in found.segments
    ]


def _report(found: Segments) -> dict[str, Any]:
    report = dataclasses.asdict(found)
    del report["numbers"]
    return report


def _print(members: Members, found: Segments, table: pd.DataFrame) -> None:
    for choice in found.tried:
        mark = " <- chosen" if choice is found.chosen else ""
        way = "" if choice.least is None else f" by hdbscan, of at least {choice.least:.1%} each"
        click.echo(
            f"{choice.k:>3} segments{way}: stability {choice.stability:.2f}, silhouette {choice.silhouette:.2f}{mark}"
        )
    if found.left_out is not None:
        click.echo(f"hdbscan was left out: {found.left_out}")
    click.echo(fitting(table))
    if found.without:
        click.echo(f"{found.without:,} {members.entity}s are in no segment")
    if found.moved is not None and found.kept is not None:
        total = found.moved + found.kept
        click.echo(f"{found.moved:,} of {total:,} {members.entity}s in both results moved to another segment")


def _read(path: str, members: Members) -> dict[Any, int]:
    import pyarrow as pa
    import pyarrow.compute as pc

    from feast_embeddings.reading import read_table

    if not path.endswith(".parquet"):
        raise InputError(f"--previous {path}: expected a .parquet file that segments wrote")
    table = read_table(path)
    if {members.id_name, "segment"} - set(table.column_names) or not pa.types.is_integer(table["segment"].type):
        raise InputError(
            f"--previous {path}: expected the columns {members.id_name} and segment (whole numbers), as segments "
            f"writes them; there are {', '.join(table.column_names)}"
        )
    table = table.filter(pc.is_valid(table["segment"]))  # a null is of no segment
    if (pc.min(table["segment"]).as_py() or 1) < 1:
        raise InputError(f"--previous {path}: a segment is a whole number from 1, or null for none")
    return dict(zip(table[members.id_name].to_pylist(), table["segment"].to_pylist(), strict=True))


def _write(path: Path, members: Members, found: Segments) -> None:
    import pyarrow as pa
    import pyarrow.csv as csv
    import pyarrow.parquet as pq

    if path.suffix == ".png":
        from feast_embeddings.analysis.segment_picture import draw_segments

        with new_file(path) as file:
            draw_segments(members, found, file)
        return
    names = {each.number: each.name for each in found.segments}
    table: pa.Table = pa.table(
        {
            members.id_name: members.ids,
            "segment": pa.array(found.numbers, pa.int64(), mask=found.numbers == 0),
            "name": pa.array([names.get(number) for number in found.numbers.tolist()], pa.string()),
        }
    )
    with new_file(path) as file:
        if path.suffix == ".parquet":
            pq.write_table(table, file)
        else:
            csv.write_csv(table, file)

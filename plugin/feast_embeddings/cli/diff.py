"""`diff`: show what changed between two versions."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from feast_embeddings.cli.options import json_option, model_option, one_model, print_json, repo_option
from feast_embeddings.cli.output_file import new_file, output_path
from feast_embeddings.cli.table import columns_option, fitting, table_of
from feast_embeddings.cli.version_words import VERSION, version_named
from feast_embeddings.errors import InputError
from feast_embeddings.repo import Repo

if TYPE_CHECKING:
    import pyarrow as pa

    from feast_embeddings.artifact import Artifact, Entity
    from feast_embeddings.offline.diff import SideDiff, VersionDiff
    from feast_embeddings.offline.segment_diff import SegmentMoves
    from feast_embeddings.offline.version_pair import Kept


@click.command()
@click.argument("old", metavar="V1", type=VERSION)
@click.argument("new", metavar="V2", type=VERSION)
@repo_option
@model_option
@click.option("-k", default=10, show_default=True, type=click.IntRange(min=1), help="Neighbours to compare.")
@click.option(
    "--sample",
    default=2000,
    show_default=True,
    type=click.IntRange(min=1),
    help="Users and items whose neighbours and lists are compared.",
)
@click.option(
    "--worst", default=10, show_default=True, type=click.IntRange(min=0), help="Items that moved most to list."
)
@click.option(
    "--segment",
    metavar="NAME|FILE",
    help="Also say how far each group moved: an attribute, of times by month; or a table with the ids and a column "
    "cohort, or segment, such as segments writes.",
)
@click.option(
    "--entity",
    type=click.Choice(["user", "item"]),
    help="Whose groups; by default the users', if they have the attribute.",
)
@click.option("--output", metavar="FILE", help="With --segment, write a .png picture of how far each group moved.")
@columns_option
@click.option("--seed", default=0, show_default=True, help="Seed of the sample.")
@json_option
def diff(
    old: str,
    new: str,
    repo: str,
    model: str | None,
    k: int,
    sample: int,
    worst: int,
    segment: str | None,
    entity: Entity | None,
    output: str | None,
    columns: list[str] | None,
    seed: int,
    as_json: bool,
) -> None:
    """Compare version V2 of a model with V1: what was added and removed, and how far vectors and lists moved.

    A version is its name, or live, latest or previous. Groups come from V2, and their members are in both versions.
    """
    if entity is not None and segment is None:
        raise InputError("--entity says whose groups --segment names; give both")
    if output is not None and segment is None:
        raise InputError("--output draws the groups that --segment names; give both")
    if columns is not None and segment is None:
        raise InputError("--columns is for the table of the groups that --segment names; give both")
    target = None if output is None else output_path("--output", output, ".png")
    from feast_embeddings.artifact import load_artifact

    opened = Repo.open(repo)
    name = one_model(opened, model)
    before, after = (load_artifact(opened.data, name, version_named(opened.path, name, word)) for word in (old, new))

    from feast_embeddings.offline.diff import diff_artifacts

    moves = None if segment is None else _segment_moves(before, after, segment, entity, k, sample, seed)
    table = None if moves is None else table_of(_rows(moves), columns, as_json)
    found = diff_artifacts(before, after, k=k, sample=sample, worst=worst, seed=seed)
    if target is not None and moves is not None:
        from feast_embeddings.analysis.move_picture import draw_moves

        with new_file(target) as file:
            draw_moves(moves, f"{moves.entity}s by {moves.by}, {found.old} to {found.new}", file)
    if as_json:
        print_json(dataclasses.asdict(found) | ({} if moves is None else {"segments": dataclasses.asdict(moves)}))
        return
    _print(found)
    if moves is not None and table is not None:
        click.echo(f"how far {moves.entity}s moved, by {moves.by}:")
        click.echo(fitting(table))
        if moves.without:
            click.echo(f"{moves.without:,} {moves.entity}s are in no group")
    if target is not None:
        click.echo(f"wrote {target}")


def _segment_moves(
    old: Artifact, new: Artifact, by: str, entity: Entity | None, k: int, sample: int, seed: int
) -> SegmentMoves:
    from feast_embeddings.analysis.groups import file_entity, is_file, labels_from_file, labels_of
    from feast_embeddings.artifact import RESERVED_COLUMNS
    from feast_embeddings.model.sides import missing_side
    from feast_embeddings.offline.segment_diff import diff_segments

    if entity is not None and entity not in new.manifest.sides:
        raise missing_side(new.manifest.model, entity)
    from_file = is_file(by)
    if from_file:
        owner = entity or file_entity(by)
    else:
        sides = new.manifest.sides if entity is None else (entity,)
        names = {side: [name for name in new.schema(side).names if name not in RESERVED_COLUMNS] for side in sides}
        if not (owners := [side for side in names if by in names[side]]):
            have = "; ".join(
                f"{side}s have the attributes {', '.join(known) or 'none'}" for side, known in names.items()
            )
            raise InputError(f"--segment {by!r}: {have}")
        owner = owners[0]

    def labels(kept: Kept) -> pa.Array:
        column = kept.files.take(kept.rows, [f"{owner}_id" if from_file else by])[0].combine_chunks()
        return labels_from_file(by, "--segment", owner, column) if from_file else labels_of(column, "--segment", by)

    return diff_segments(old, new, owner, by, labels, k=k, sample=sample, seed=seed)


def _rows(moves: SegmentMoves) -> list[dict[str, str]]:
    return [
        {
            moves.by: each.name,
            "size": f"{each.size:,}",
            "mean cosine distance": f"{each.move:.3f}",
            "95 % below": f"{each.move_p95:.3f}",
            "mean vector moved": f"{each.mean_move:.3f}",
            "neighbours stayed": "" if each.neighbour_overlap is None else f"{each.neighbour_overlap:.0%}",
            "looked at": f"{each.n_sampled:,}",
        }
        for each in moves.segments
    ]


def _print(found: VersionDiff) -> None:
    click.echo(f"{found.model} {found.old} -> {found.new}")
    if found.same_space:
        click.echo(f"one space, {found.new_space}: models trained on the old vectors keep working with the new")
    else:
        click.echo(
            f"the spaces differ, {found.old_space} and {found.new_space}: a vector cannot be compared with its "
            "successor, and models trained on the old vectors must be trained again"
        )
    for entity, side in found.sides.items():
        click.echo(f"{entity}s: {_side(side, found.k)}")
    if found.rank_correlation is not None:
        click.echo(
            f"lists of {found.n_ranked_users:,} users: {found.top_overlap:.0%} of the top {found.k} stayed, "
            f"rank correlation {found.rank_correlation:.2f}"
        )
    if found.worst_moved:
        import pandas as pd

        click.echo("moved most:")
        rows = [{**dataclasses.asdict(moved), **moved.attributes} for moved in found.worst_moved]
        shown = pd.DataFrame(rows).drop(columns="attributes").dropna(axis=1, how="all")
        click.echo(fitting(shown, decimals=2))


def _side(side: SideDiff, k: int) -> str:
    parts = [
        f"{side.n_old:,} -> {side.n_new:,} ({side.n_kept:,} kept, {side.n_added:,} added, {side.n_gone:,} gone)",
    ]
    if side.norm_ratio is not None:
        parts.append(f"median length {side.norm_old:.2f} -> {side.norm_new:.2f} (each x {side.norm_ratio:.2f})")
    if side.neighbour_overlap is not None:
        parts.append(f"{side.neighbour_overlap:.0%} of the {k} nearest stayed ({side.n_sampled:,} looked at)")
    if side.cosine is not None:
        parts.append(f"cosine old to new {side.cosine:.2f} (a tenth below {side.cosine_p10:.2f})")
    return "; ".join(parts)

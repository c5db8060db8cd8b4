"""`map`: the live users or items as points in the plane, as a page, a picture or a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

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
from feast_embeddings.errors import InputError, import_extra
from feast_embeddings.repo import Repo

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from feast_embeddings.analysis.members import Members
    from feast_embeddings.analysis.segments import Segments
    from feast_embeddings.artifact import Entity
    from feast_embeddings.artifact.saved_map import Colouring, SavedMap


@click.command()
@click.option("--entity", required=True, type=click.Choice(["user", "item"]), help="Whom to draw.")
@click.option("--output", metavar="FILE", help="The .html, .png or .parquet file to write.")
@click.option("--save", is_flag=True, help="Save the map with the live version, for the page of the service.")
@click.option(
    "--color",
    metavar="NAME,…",
    help="Ways to colour the points: attributes, segment, age of their data, or change since the version before; the "
    "first is shown first. By default all that tell them apart.",
)
@click.option("--title", metavar="ATTRIBUTE", help="What to show of a point; by default title or name.")
@click.option("--previous", metavar="FILE", help="A .parquet file that this command wrote: start from that map.")
@click.option(
    "--fresh",
    is_flag=True,
    help="With --save, do not start from the map saved with the version before of the same space.",
)
@click.option("--names/--no-names", default=True, help="Whether a page names the segments that it shows.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, metavar="INT")
@filter_option
@json_option
@model_option
@repo_option
def map(
    entity: Entity,
    output: str | None,
    save: bool,
    color: str | None,
    title: str | None,
    previous: str | None,
    fresh: bool,
    names: bool,
    seed: int,
    filter: str | None,
    as_json: bool,
    model: str | None,
    repo: str,
) -> None:
    """Draw the live users or items as a map, on which like vectors are near."""
    if output is None and not save:
        raise InputError("map: say where to: a file with --output, or the page of the service with --save")
    if save and filter is not None:
        raise InputError(
            "map: --save keeps a map of all, which one of those that pass --filter would replace; use --output"
        )
    if fresh and (previous is not None or not save):
        raise InputError(
            "map: --fresh is for --save without --previous; without --save a map starts from --previous alone"
        )
    target = None if output is None else output_path("--output", output, ".html", ".png", ".parquet")
    store, data = open_store(repo, model), Repo.open(repo).data

    from feast_embeddings.analysis.maps.colourings import SEGMENT, chosen_colourings, given_colourings, wanted_names
    from feast_embeddings.analysis.maps.page import drawn_map
    from feast_embeddings.analysis.maps.places import places_of
    from feast_embeddings.analysis.maps.saving import earlier_versions, save_map, saved_before, version_folder
    from feast_embeddings.analysis.members import read_members

    members = read_members(store, entity, filter)
    if save:
        version_folder(data, store.model, members.version)
    wanted = None if color is None else wanted_names(color, members)
    known = members.table.column_names
    titles = _column(members, "--title", title or next((name for name in ("title", "name") if name in known), None))
    before = earlier_versions(data, store.model, members.version)
    start = saved_before(before, entity) if save and previous is None and not fresh else None
    earlier = _read(previous, members) if previous is not None else None if start is None else start[1]
    places = places_of(members, previous=earlier, seed=seed)
    ids = members.ids.to_pylist()
    texts = [str(id if text is None else text) for id, text in zip(ids, titles or ids, strict=True)]
    on_page = save or (target is not None and target.suffix == ".html")
    has_segments = on_page if wanted is None else SEGMENT in wanted or (names and on_page)
    segments = _segments(members, seed) if has_segments else None
    last = before[0] if before else None
    if wanted is None:
        colourings = chosen_colourings(members, segments, last)
    else:
        colourings = given_colourings(members, wanted, segments, last)
    drawn = drawn_map(members, places, texts, colourings, _named(segments) if names and on_page else None)
    saved = save_map(store, data, members, drawn) if save else None
    if target is not None:
        heading = f"{len(members):,} {entity}s of {store.model}, version {members.version}" + (
            f", by {color}" if wanted is not None and len(wanted) == 1 else ""
        )
        with new_file(target) as file:
            _write(members, drawn, heading, drawn.rows_of(store.hidden(entity)), target.suffix, file)
    if as_json:
        print_json(
            {
                "version": members.version,
                "entity": entity,
                "rows": len(members),
                "output": output,
                "saved": None if saved is None else str(saved),
                "started_from": None if start is None else start[0],
            }
        )
        return
    if saved is not None:
        like = "" if start is None else f", starting from the map of version {start[0]}"
        click.echo(f"saved {len(members):,} {entity}s of version {members.version}, for the page of the service{like}")
    if target is not None:
        click.echo(f"wrote {len(members):,} {entity}s to {target}")


def _write(members: Members, drawn: SavedMap, heading: str, hidden: list[int], ending: str, file: BinaryIO) -> None:
    if ending == ".html":
        from feast_embeddings.analysis.maps.page import map_page

        file.write(map_page(members, drawn, heading, hidden).encode("utf-8", "replace"))
    elif ending == ".png":
        _draw(drawn.places, drawn.colourings[0], heading, file)
    else:
        import numpy as np
        import pyarrow as pa
        import pyarrow.parquet as pq

        x, y = drawn.places.T
        is_hidden = np.isin(np.arange(len(members)), hidden)
        pq.write_table(pa.table({members.id_name: members.ids, "x": x, "y": y, "hidden": is_hidden}), file)


def _segments(members: Members, seed: int) -> Segments | None:
    """Return the segments of `segments --method k-means`, which have all; None if vectors are too few or alike."""
    from feast_embeddings.analysis.segments import segment

    try:
        return segment(members, methods=("k-means",), seed=seed)
    except InputError:
        return None


def _named(segments: Segments | None) -> tuple[npt.NDArray[np.int64], dict[int, str]] | None:
    """Return the segment of each member, and the names by the first traits of those that have any."""
    if segments is None:
        return None
    words = {each.number: ", ".join(str(trait.value) for trait in each.traits[:2]) for each in segments.segments}
    return segments.numbers, {number: name for number, name in words.items() if name}


def _column(members: Members, option: str, name: str | None) -> list[Any] | None:
    from feast_embeddings.analysis.members import attribute_names

    if name is None:
        return None
    if name not in (known := [*attribute_names(members), members.id_name]):
        raise InputError(f"{option}: {members.entity}s have no {name!r}; they have {', '.join(known)}")
    return list(members.table[name].to_pylist())


def _read(path: str, members: Members) -> dict[Any, tuple[float, float]]:
    from feast_embeddings.reading import read_table

    if not path.endswith(".parquet"):
        raise InputError(f"--previous {path}: expected a .parquet file that map wrote")
    table = read_table(path)
    import pyarrow as pa

    floats = {name for name in table.column_names if pa.types.is_floating(table[name].type)}
    if members.id_name not in table.column_names or {"x", "y"} - floats:
        raise InputError(
            f"--previous {path}: expected the columns {members.id_name}, x and y (decimal numbers), as map writes "
            f"them; there are {', '.join(table.column_names)}"
        )
    x, y = (table[name].fill_null(float("nan")).to_pylist() for name in ("x", "y"))
    return dict(zip(table[members.id_name].to_pylist(), zip(x, y, strict=True), strict=True))


def _draw(places: npt.NDArray[np.float64], colouring: Colouring, heading: str, file: Any) -> None:
    figure = import_extra("matplotlib.figure", "drawing a map", "charts").Figure(figsize=(12, 9), layout="constrained")
    colours = import_extra("matplotlib", "drawing a map", "charts").colormaps["tab20"]
    axes = figure.subplots()
    for number, name in enumerate(colouring.groups):
        own = places[colouring.numbers == number]
        label = name[:40].replace("$", r"\$").lstrip("_") or "none"  # a dollar sign is no formula, and _ hides a label
        axes.scatter(*own.T, s=max(1, 40 / len(places) ** 0.25), linewidths=0, color=colours(number % 20), label=label)
    axes.set(xticks=[], yticks=[], title=heading.replace("$", r"\$"), aspect="equal")
    if len(colouring.groups) > 1:
        figure.legend(loc="outside right upper", markerscale=2)
    figure.savefig(file, format="png", dpi=150)

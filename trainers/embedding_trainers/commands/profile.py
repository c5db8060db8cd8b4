"""The command ``feast-embeddings profile``. Heavy imports wait until it runs, so that its help is instant."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from embedding_trainers.commands.interaction_options import QUERY, InteractionSource, reading_options
from embedding_trainers.commands.repo_option import repo_option
from embedding_trainers.commands.settings import ConfiguredCommand, log_option

if TYPE_CHECKING:
    from embedding_trainers.content.guess import Guess
    from embedding_trainers.interactions.profile import Profile
    from feast_embeddings.reading import Source

__all__ = ["profile"]

_BAR = 40
_MOST_MONTHS = 36


@click.command(cls=ConfiguredCommand)
@click.argument("interactions", metavar="LOG", type=click.Path())
@log_option("--items", type=click.Path(), metavar="FILE", help="The whole catalogue, one row per item.")
@QUERY
@repo_option("Feast repo, for its embeddings.toml, for --like and for feast:NAME.")
@click.option("--model", metavar="NAME", help="The model whose settings count; optional if there is only one.")
@reading_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def profile(
    interactions: str,
    items: str | None,
    query: str | None,
    repo: Path,
    model: str | None,
    source_of: Callable[[str], InteractionSource],
    as_json: bool,
) -> None:
    """Describe LOG before training on it, and suggest options.

    Bad rows are counted by kind and left out. Options that select rows have no effect here.
    """
    from embedding_trainers.interactions.profile import profile_log

    source = dataclasses.replace(source_of(interactions), query=query, repo=repo)
    found = profile_log(source.source, source.columns, source.reading, source.table(items))
    catalogue = source.table(items)
    guess = None if catalogue is None else _guess(catalogue, source.columns.item)
    if as_json:
        content = None if guess is None else {column.name: column.how for column in guess.content}
        left_out = None if guess is None else guess.left_out
        click.echo(json.dumps(dataclasses.asdict(found) | {"content": content, "not_content": left_out}))
        return
    click.echo(_text(found, str(source.source), guess))


def _guess(items: Source, own_name: str) -> Guess:
    from embedding_trainers.content.guess import guess_content
    from feast_embeddings.artifact.ids import id_names
    from feast_embeddings.reading import read_table

    table = read_table(items, ids=(names := id_names("item", own_name)))
    return guess_content(table.drop_columns([name for name in names if name in table.column_names]))


def _text(found: Profile, name: str, guess: Guess | None) -> str:
    from embedding_trainers.interactions.profile import several

    lines = [
        f"{name}: {several(found.rows, 'row')} of {several(found.users, 'user')} and {several(found.items, 'item')}"
    ]
    if found.log.n_bad:
        lines.append(f"  {several(found.log.n_bad, 'more row')} cannot be used:")
        lines += [f"    {count:,} {kind}" for kind, count in found.log.bad.items()]
    if found.first is not None:
        lines.append(f"  from {found.first} to {found.last}")
        months = list(found.months.items())[-_MOST_MONTHS:]
        if (earlier := sum(found.months.values()) - sum(count for _, count in months)) > 0:
            lines.append(f"    before {months[0][0]}: {earlier:,}")
        most = max(count for _, count in months)
        lines += [f"    {month}  {'▇' * round(_BAR * count / most):{_BAR}}  {count:,}" for month, count in months]
    else:
        lines.append("  no times")
    lines += [
        _spread("rows of a user", found.rows_per_user),
        _spread("rows of an item", found.rows_per_item),
        f"  {found.users_with_one_row:,} users have one row, {found.items_with_few_rows:,} items fewer than 5; "
        f"1 % of the items have {found.top_items_share:.0%} of the rows",
        f"  {found.duplicates:,} rows repeat another",
        "  heaviest users: " + ", ".join(f"{user} ({rows:,})" for user, rows in found.heaviest_users),
    ]
    if found.event_types:
        lines.append("  events: " + ", ".join(f"{name} ({rows:,})" for name, rows in found.event_types.items()))
    if found.weights is not None:
        w = found.weights
        lines.append(f"  weights: {w['min']:g} to {w['max']:g}, median {w['median']:g}; {w['zeros']:,.0f} are 0")
    if found.without_interactions is not None:
        vectors = "a vector from content" if guess is not None and guess.content else "no vector"
        lines.append(
            f"  catalogue: {found.without_interactions:,} items without a row, which get {vectors}; "
            f"{found.not_in_catalogue:,} items of the log are not in it"
        )
    if guess is not None:
        lines.append("  content: " + (",".join(map(str, guess.content)) or "no column"))
        lines += [f"    not {column}: {why}" for column, why in guess.left_out.items()]
    if found.suggestions:
        lines.append("suggested for train:")
        lines += [f"  {option}\n    {why}" for option, why in found.suggestions]
    return "\n".join(lines)


def _spread(what: str, quantiles: list[int]) -> str:
    least, median, ninth, last_percent, most = quantiles
    return f"  {what}: {least:,} at least, median {median:,}, 90 % {ninth:,}, 99 % {last_percent:,}, at most {most:,}"

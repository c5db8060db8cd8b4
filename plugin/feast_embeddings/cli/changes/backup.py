"""`backup` and `restore`: everything that commands wrote for a repo, in one file or folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from feast_embeddings.cli.options import json_option, print_json, repo_option
from feast_embeddings.repo import Repo

_quiet = click.option("--quiet", is_flag=True, help="No progress bar.")


@click.command()
@click.argument("path")
@repo_option
@_quiet
@json_option
def backup(path: str, repo: str, quiet: bool, as_json: bool) -> None:
    """Write all models of a repo, with what came after their training, to a new folder, or a file PATH.tar.

    Others may read and write meanwhile. What people write is not in it: feature_store.yaml, embeddings.toml and
    definitions belong into version control.
    """
    opened = Repo.open(repo)

    from feast_embeddings.backup import back_up

    with _bar("backup", quiet or as_json) as progress:
        made = back_up(opened.feature_store(), opened.data, Path(path).absolute(), progress=progress)
    if as_json:
        print_json(dataclasses.asdict(made))
        return
    click.echo(
        f"{made.path}: {', '.join(made.models) or 'no model'}; {made.versions} versions, {made.collections} "
        f"collections with {made.points} points, {made.bytes / 2**20:.1f} MiB"
    )


@click.command()
@click.argument("path")
@repo_option
@click.option("--replace", is_flag=True, help="Replace what the repo has of the backup's models, and its registry.")
@_quiet
@json_option
def restore(path: str, repo: str, replace: bool, quiet: bool, as_json: bool) -> None:
    """Restore a backup, on the engine of this repo; the live version answers until the end."""
    opened = Repo.open(repo)

    from feast_embeddings.backup import restore as bring_back

    with _bar("restore", quiet or as_json) as progress:
        made = bring_back(
            opened.feature_store(), opened.path, Path(path).absolute(), replace=replace, progress=progress
        )
    if as_json:
        print_json(dataclasses.asdict(made))
        return
    click.echo(
        f"restored {', '.join(made.models) or 'no model'}; {made.versions} versions, {made.collections} collections "
        f"with {made.points} points"
    )
    for view, version in made.live.items():
        click.echo(f"{view}: {version} is live")
    if not made.registry:
        click.echo("the registry is not a file, and stays as it is", err=True)
    click.echo("next: feast apply in the repo, as the registry holds the paths of the old place")


@contextmanager
def _bar(name: str, hidden: bool) -> Iterator[Callable[[int, int], object]]:
    from tqdm import tqdm

    with tqdm(unit=" points", desc=name, disable=hidden or None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show

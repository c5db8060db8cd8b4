"""`init`: make a new Feast repo."""

from __future__ import annotations

import shlex

import click

from feast_embeddings.cli.options import json_option, print_json
from feast_embeddings.repo import init_repo


@click.command()
@click.argument("directory")
@json_option
def init(directory: str, as_json: bool) -> None:
    """Make a new Feast repo in DIRECTORY, ready for train."""
    repo = init_repo(directory)
    if as_json:
        print_json({"repo": str(repo.path)})
        return
    click.echo(f"made a Feast repo in {repo.path}")
    click.echo(f"next: feast-embeddings train --repo {shlex.quote(directory)} --model NAME --interactions FILE")

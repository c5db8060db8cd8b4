"""`doctor`: find the problems of a repo, and how to fix them."""

from __future__ import annotations

import dataclasses
import sys
from datetime import timedelta
from pathlib import Path

import click

from feast_embeddings.cli.options import json_option, max_age_option, print_json, repo_option
from feast_embeddings.repo import Repo

_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


@click.command()
@repo_option
@click.option("--key-file", type=click.Path(path_type=Path), help="File of API keys of the service.")
@max_age_option
@json_option
def doctor(repo: str, key_file: Path | None, max_age: float, as_json: bool) -> None:
    """Find problems of the repo and say how to fix them. Changes nothing; the exit code is 1 if there is a problem."""
    opened = Repo.open(repo)

    from feast_embeddings.doctor import examine

    report = examine(opened, key_file=key_file, max_age=timedelta(days=max_age))
    if as_json:
        print_json(
            {
                "repo": str(opened.path),
                "worst": report.worst,
                "findings": [dataclasses.asdict(finding) for finding in report.findings],
                "skipped": report.skipped,
            }
        )
    else:
        for found in report.findings:
            about = f"{found.check} of {found.model}" if found.model else found.check
            click.echo(f"{click.style(found.level.ljust(7), fg=_COLOURS[found.level])}  {about}: {found.message}")
            if found.fix:
                click.echo(f"         fix: {found.fix}")
        for check, missing in report.skipped.items():
            click.echo(f"skipped  {check}: see {missing}")
    sys.exit(1 if report.worst == "problem" else 0)

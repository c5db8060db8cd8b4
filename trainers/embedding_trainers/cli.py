"""The command ``feast-embeddings train``. Heavy imports wait until it runs, so that its help is instant."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from embedding_trainers.train import Training

__all__ = ["train"]


@click.command()
@click.option(
    "--repo",
    type=click.Path(path_type=Path),
    default=Path(),
    show_default="this folder",
    metavar="DIR",
    help="Feast repository; the version is written to DIR/data.",
)
@click.option("--model", required=True, metavar="NAME", help="Lower-case letters, digits and '_'.")
@click.option(
    "--interactions",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Parquet, CSV, JSON lines, or a folder of Parquet.",
)
@click.option("--user-column", default="user_id", show_default=True, metavar="NAME")
@click.option("--item-column", default="item_id", show_default=True, metavar="NAME")
@click.option(
    "--timestamp-column",
    metavar="NAME",
    help="Times: timestamps, dates, ISO 8601 or whole numbers since "
    "1970 in s, ms, µs or ns.  [default: timestamp, if there is one]",
)
@click.option(
    "--weight-column",
    metavar="NAME",
    help="Strength of an interaction; 0 is none, and bpr asks no more than that.  [default: 1 each]",
)
@click.option(
    "--until",
    metavar="TIME",
    help="Leave out what happened after TIME (ISO 8601, UTC unless it says otherwise).",
)
@click.option("--users", type=click.Path(path_type=Path), metavar="FILE", help="Attributes of users, one row each.")
@click.option(
    "--items",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Attributes of items, one row each; queries can filter on them.",
)
@click.option("--trainer", default="bpr", show_default=True, metavar="NAME")
@click.option("--factors", type=int, metavar="INT", help="Length of the vectors.  [default: the trainer's]")
@click.option(
    "--param",
    "params",
    multiple=True,
    metavar="NAME=VALUE",
    help="A hyper-parameter of the trainer; repeatable.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    metavar="INT",
    help="The same seed with one thread gives the same bytes.",
)
@click.option(
    "--threads",
    type=click.IntRange(0),
    default=0,
    show_default="all cores",
    metavar="INT",
    help="More than one: runs differ slightly, as threads race.",
)
@click.option(
    "--evaluate/--no-evaluate",
    default=True,
    show_default=True,
    help="Also fit without a part of the interactions, and measure how well it is foretold.",
)
@click.option("--quiet", is_flag=True, help="No progress bar.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def train(
    repo: Path,
    model: str,
    interactions: Path,
    user_column: str,
    item_column: str,
    timestamp_column: str | None,
    weight_column: str | None,
    until: str | None,
    users: Path | None,
    items: Path | None,
    trainer: str,
    factors: int | None,
    params: tuple[str, ...],
    seed: int,
    threads: int,
    evaluate: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train embeddings of users and items from an interaction log."""
    from embedding_trainers.interactions import Columns
    from embedding_trainers.timestamps import parse_time
    from embedding_trainers.train import train_model
    from embedding_trainers.trainer import RunOptions

    training = train_model(
        repo,
        model,
        interactions,
        columns=Columns(user_column, item_column, timestamp_column, weight_column),
        until=None if until is None else parse_time(until),
        trainer=trainer,
        parameters=_parameters(factors, params),
        options=RunOptions(seed=seed, threads=threads, progress=not (quiet or as_json)),
        user_attributes=users,
        item_attributes=items,
        evaluation=evaluate,
    )
    click.echo(json.dumps(_as_json(training)) if as_json else _summary(training, repo))


def _parameters(factors: int | None, params: tuple[str, ...]) -> dict[str, int | str]:
    from feast_embeddings.errors import InputError

    parameters: dict[str, int | str] = {} if factors is None else {"factors": factors}
    for param in params:
        name, equals, value = param.partition("=")
        if not equals or not name:
            raise InputError(f"--param {param!r}: expected NAME=VALUE, e.g. learning_rate=0.05")
        if name in parameters:
            raise InputError(f"the parameter {name!r} is given twice")
        parameters[name] = value
    return parameters


def _as_json(training: Training) -> dict[str, object]:
    manifest = training.artifact.manifest.model_dump(mode="json", exclude={"files"})
    evaluation = training.evaluation
    return manifest | {
        "path": str(training.artifact.path),
        "evaluation": evaluation and {"method": evaluation.method, "n_users": evaluation.n_users},
        "seconds": {step: round(seconds, 3) for step, seconds in training.seconds.items()},
    }


def _summary(training: Training, repo: Path) -> str:
    manifest, evaluation = training.artifact.manifest, training.evaluation
    lines = [
        f"trained {manifest.model} version {manifest.version} with {manifest.trainer.name}",
        f"  {manifest.n_users:,} users, {manifest.n_items:,} items, {manifest.n_interactions:,} interactions "
        f"as of {manifest.as_of:%Y-%m-%d %H:%M:%S} UTC; {manifest.dim} dimensions",
    ]
    if evaluation and evaluation.metrics:
        scores = ", ".join(
            f"{name} {value:.3f} (most popular: {evaluation.metrics[f'popular_{name}']:.3f})"
            for name, value in evaluation.metrics.items()
            if not name.startswith("popular_")
        )
        lines.append(f"  {scores}")
        lines.append(f"  measured on {evaluation.method}, {evaluation.n_users:,} users")
    elif evaluation:
        lines.append(f"  not measured: {evaluation.method}")
    steps = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in training.seconds.items())
    lines.append(f"  {steps}")
    lines.append(f"  {training.artifact.path}")
    folder = shlex.quote(str(repo))
    lines.append(f"next: feast -c {folder} apply && feast-embeddings publish --repo {folder} --model {manifest.model}")
    return "\n".join(lines)

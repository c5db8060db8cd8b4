"""The command ``feast-embeddings train``. Heavy imports wait until it runs, so that its help is instant."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embedding_trainers import AUTO
from embedding_trainers.commands.interaction_options import InteractionSource, interaction_options
from embedding_trainers.commands.repo_option import repo_option
from embedding_trainers.commands.settings import ConfiguredCommand, is_given, log_option, train_option
from embedding_trainers.commands.trainer_options import TrainerChoice, trainer_options
from embedding_trainers.commands.value_types import ATTRIBUTE_TYPES, DURATION, PROBE, Pair
from feast_embeddings.cli.version_words import VERSION, version_named
from feast_embeddings.errors import InputError

if TYPE_CHECKING:
    from embedding_trainers.training import Training
    from feast_embeddings.artifact import Manifest
    from feast_embeddings.reading import ColumnType

__all__ = ["train"]


@click.command(cls=ConfiguredCommand)
@repo_option("Feast repository; the version is written to DIR/data.")
@click.option("--model", required=True, metavar="NAME", help="Lower-case letters, digits and '_'.")
@interaction_options
@log_option("--users", type=click.Path(), metavar="FILE", help="Attributes of users, one row each.")
@log_option(
    "--items",
    type=click.Path(),
    metavar="FILE",
    help="Attributes of items, one row each; queries can filter on them.",
)
@train_option(
    "--attribute-types",
    type=ATTRIBUTE_TYPES,
    metavar="NAME=TYPE,…",
    help="Types of attributes: text, int, float, bool or time, e.g. price=float,zip=text.  [default: as in the "
    "previous version; else what all values of a CSV column look like]",
)
@train_option(
    "--content",
    metavar="NAME:KIND,…",
    help="Columns of --items that say what an item is: those without interactions get a vector from them. Kinds are "
    "text, category, list, number and vector, e.g. title:text,price:number; none turns it off.  [default: those that "
    "look like content]",
)
@train_option(
    "--user-content", metavar="NAME:KIND,…", help="The same for --users, e.g. country:category,birth_year:number."
)
@trainer_options
@train_option(
    "--evaluate/--no-evaluate",
    default=True,
    show_default=True,
    help="Also train on a part of the interactions, and measure how well it predicts the rest.",
)
@train_option(
    "--tune",
    type=click.IntRange(1),
    metavar="N",
    help="Search for the hyper-parameters that are not given: try N settings, the defaults first, on interactions held "
    "out from the training part. Ctrl-C stops the search and keeps the best so far.",
)
@train_option(
    "--tune-time", type=DURATION, metavar="DURATION", help="Start no new setting of --tune after this time, e.g. 30m."
)
@train_option(
    "--patience",
    type=click.IntRange(1),
    metavar="INT",
    help="Find the best number of iterations first; stop after this many checks without a gain.",
)
@train_option(
    "--history",
    type=click.IntRange(1),
    metavar="N",
    help="Keep only the newest N items of each user as seen; the vectors are of all.  [default: all]",
)
@train_option(
    "--align-to",
    type=VERSION,
    help="Rotate the vectors into the space of this version, so that models trained on its vectors keep working; "
    "scores do not change. Fails before training if a named version cannot be aligned to.  [default: latest]",
)
@train_option("--no-align", is_flag=True, help="Start a new vector space.")
@train_option(
    "--probe",
    "probes",
    type=PROBE,
    multiple=True,
    metavar="NAME=FILE:COLUMN",
    help="Labels of users or items that a model of the earlier version's vectors is scored on, here and by publish, "
    "e.g. churn=labels.parquet:churned; repeatable.",
)
@click.option(
    "--if-changed",
    is_flag=True,
    help="Train only if the log, the attributes or an option differ from the newest version's.",
)
@train_option(
    "--engine",
    type=click.Choice(["local", "spark"]),
    default="local",
    show_default=True,
    help="spark trains als on a Spark cluster, from a log of Parquet; see docs/spark.md.",
)
@train_option("--master", metavar="URL", help="Spark's master, e.g. spark://host:7077.  [default: this machine]")
@train_option(
    "--spark-conf",
    type=Pair("spark.executor.memory=8g"),
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting of Spark, e.g. spark.executor.memory=8g; repeatable.",
)
def train(
    repo: Path,
    model: str,
    source: InteractionSource,
    users: str | None,
    items: str | None,
    attribute_types: dict[str, ColumnType] | None,
    content: str | None,
    user_content: str | None,
    choice: TrainerChoice,
    evaluate: bool,
    align_to: str | None,
    no_align: bool,
    probes: tuple[tuple[str, str], ...],
    if_changed: bool,
    tune: int | None,
    tune_time: timedelta | None,
    patience: int | None,
    history: int | None,
    engine: str,
    master: str | None,
    spark_conf: tuple[tuple[str, Any], ...],
    as_json: bool,
) -> None:
    """Train embeddings of users and items from an interaction log."""
    from embedding_trainers.search import Search
    from embedding_trainers.train import LATEST, train_model

    if no_align and align_to is not None:
        raise InputError("--align-to and --no-align exclude each other; give one of them")
    if twice := next((name for name, n in Counter(name for name, _ in probes).items() if n > 1), None):
        raise InputError(f"--probe names {twice!r} twice; give each a different name")
    if tune_time is not None and tune is None:
        raise InputError("--tune-time has no effect without --tune")

    on_spark = engine == "spark"
    without_effect: dict[str, object] = {"master": master, "spark_conf": spark_conf}
    if on_spark:
        without_effect = {
            "tune": tune,
            "patience": patience,
            "threads": choice.options.threads,
            "device": choice.options.device != "auto",
            "if_changed": if_changed,
            "content": content not in (None, "none"),
            "user_content": user_content not in (None, "none"),
            "probe": probes,
        }
    _refuse_other_engine(engine, without_effect)
    same: dict[str, Any] = {
        "columns": source.columns,
        "preparation": source.preparation,
        "reading": source.reading,
        "trainer": choice.name,
        "parameters": choice.parameters,
        "user_attributes": source.table(users),
        "item_attributes": source.table(items),
        "attribute_types": attribute_types,
        "evaluation": evaluate,
        "history": history,
        "align_to": None if no_align else version_named(repo, model, align_to) if align_to else LATEST,
    }
    if on_spark:
        from embedding_trainers.spark import train_on_spark

        conf = {key: value if isinstance(value, str) else json.dumps(value) for key, value in spark_conf}
        training = train_on_spark(
            repo, model, source.location, master=master, conf=conf, seed=choice.options.seed, **same
        )
    else:
        search = None if tune is None else Search(tune, tune_time)
        training = train_model(
            repo,
            model,
            source.source,
            options=choice.options,
            search=search,
            patience=patience,
            if_changed=if_changed,
            content=content,
            user_content=user_content,
            probes=dict(probes),
            **same,
        )
    if training.race and choice.options.progress:
        click.echo("\n".join(training.race.lines()), err=True)
    for warning in training.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(json.dumps(_as_json(training)) if as_json else _summary(training, repo))


def _refuse_other_engine(engine: str, options: dict[str, object]) -> None:
    context = click.get_current_context()
    # An engine that is typed makes what the settings say of the other one of no interest.
    typed = is_given(context, "engine")
    if named := next(
        (name for name, value in options.items() if value and (not typed or is_given(context, name))), None
    ):
        raise InputError(f"--{named.replace('_', '-')} has no effect with --engine {engine}; leave out one of them")


def _as_json(training: Training) -> dict[str, object]:
    manifest = training.artifact.manifest.model_dump(mode="json", exclude={"files"})
    evaluation, stop = training.evaluation, training.early_stop
    return manifest | {
        "path": str(training.artifact.path),
        "evaluation": evaluation
        and {"method": evaluation.method, "n_users": evaluation.n_ranked, "margins": evaluation.margins},
        "rows": dataclasses.asdict(training.log),
        "warnings": training.warnings,
        "unchanged": training.unchanged,
        "probe_scores": [score.to_json() for score in training.probes],
        "early_stop": stop and {"ran": stop.ran, "validation_ndcg@20": round(stop.score, 6)},
        "seconds": {step: round(seconds, 3) for step, seconds in training.seconds.items()},
    }


def _summary(training: Training, repo: Path) -> str:
    manifest, evaluation = training.artifact.manifest, training.evaluation
    if training.unchanged:
        return f"nothing new: version {manifest.version} of {manifest.model} was trained on the same, in the same way"
    lines = [
        f"trained {manifest.model} version {manifest.version} with {manifest.trainer.name}"
        + (f", chosen by {AUTO}: {training.race.reason}" if training.race else ""),
        f"  {manifest.n_users:,} users, {manifest.n_items:,} items, {manifest.n_interactions:,} interactions "
        f"as of {manifest.as_of:%Y-%m-%d %H:%M:%S} UTC; {manifest.dim} dimensions",
    ]
    for entity in manifest.sides:
        if content := manifest.content_of(entity):
            columns = ", ".join(f"{column['name']}:{column['encoder']}" for column in content["columns"])
            alone = f"{content[f'{entity}s']:,} of {manifest.rows(entity):,} have nothing else"
            lines.append(f"  content of {entity}s: {columns}; {alone}")
            if tail := content.get("tail"):
                lines.append(f"  content turns trained {entity}s too, as much as {tail:g} interactions would")
    lines += [f"  {line}" for line in training.log.lines()]
    if evaluation and evaluation.metrics:
        scores = ", ".join(
            f"{name} {value:.3f} (most popular: {evaluation.metrics[f'popular_{name}']:.3f})"
            for name, value in evaluation.metrics.items()
            if not name.startswith("popular_")
        )
        lines.append(f"  {scores}")
        lines.append(f"  measured on {evaluation.method}, {evaluation.users}")
    elif evaluation:
        lines.append(f"  not measured: {evaluation.method}")
    lines.append(f"  {_space(manifest)}")
    lines += [f"  probe {score}" for score in training.probes]
    if training.tuning:
        lines.append(f"  {training.tuning}")
    if training.early_stop:
        lines.append(f"  {training.early_stop}")
    steps = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in training.seconds.items())
    lines.append(f"  {steps}")
    lines.append(f"  {training.artifact.path}")
    folder = shlex.quote(str(repo))
    lines.append(f"next: feast -c {folder} apply && feast-embeddings publish --repo {folder} --model {manifest.model}")
    return "\n".join(lines)


def _space(manifest: Manifest) -> str:
    if manifest.aligned_to is None:
        return f"new vector space {manifest.space_id} ({manifest.new_space_reason})"
    return (
        f"aligned to version {manifest.aligned_to}, vector space {manifest.space_id}: residual "
        f"{manifest.alignment_residual:.2f}, cosine of shared ids {manifest.alignment_cosine:.2f} (unaligned "
        f"{manifest.alignment_cosine_before:.2f}); shared {manifest.alignment_shared_users:,} users, "
        f"{manifest.alignment_shared_items:,} items"
    )

"""The command ``feast-embeddings evaluate``. Heavy imports wait until it runs, so that its help is instant."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embedding_trainers import AUTO
from embedding_trainers.commands.interaction_options import QUERY, InteractionSource, reading_options
from embedding_trainers.commands.repo_option import repo_option
from embedding_trainers.commands.settings import ConfiguredCommand, is_given, log_option, refuse_typed, train_option
from embedding_trainers.commands.split_options import LOG_TO_SPLIT, SplitChoice, split_options
from embedding_trainers.commands.trainer_options import TrainerChoice, trainer_options
from feast_embeddings.cli.version_words import VERSION, version_named
from feast_embeddings.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from embedding_trainers.interactions import LogReport, Split
    from embedding_trainers.search import Racer
    from embedding_trainers.trainer import Factors
    from feast_embeddings.artifact import Entity
    from feast_embeddings.reading import Source

__all__ = ["evaluate"]

# What has no effect in one of the two uses is refused there.
_ONLY_WITH_A_TRAINER = ("query", "split", "split_at", "trainer", "config", "device", "factors", "params", "users")

SourceOf = Callable[[str], InteractionSource]


@click.command(cls=ConfiguredCommand)
@LOG_TO_SPLIT
@click.option("--model", metavar="NAME", help="Evaluate a model of --repo on --test instead of training one.")
@click.option("--version", type=VERSION, default="latest", show_default=True, help="The version of --model.")
@repo_option("Feast repo.")
@click.option("--k", default="10,20,50", show_default=True, metavar="K,…", help="Cut-offs of the ranked lists.")
@log_option("--users", type=click.Path(), metavar="FILE", help="Attributes of users, for --segment and cold-users.")
@log_option("--items", type=click.Path(), metavar="FILE", help="Attributes of items, for cold-items.")
@train_option(
    "--content",
    metavar="SPEC",
    help="Which of their columns are content, as in train; none leaves them out.  [default: auto]",
)
@train_option("--user-content", metavar="SPEC", help="The same for --users, with cold-users.")
@click.option(
    "--segment", "segments", multiple=True, metavar="NAME", help="Break down by this attribute of users; repeatable."
)
@split_options
@QUERY
@reading_options
@trainer_options
def evaluate(
    interactions: str | None,
    model: str | None,
    version: str,
    repo: Path,
    test: SplitChoice,
    k: str,
    users: str | None,
    items: str | None,
    content: str | None,
    user_content: str | None,
    segments: tuple[str, ...],
    query: str | None,
    source_of: SourceOf,
    choice: TrainerChoice,
    as_json: bool,
) -> None:
    """Measure how well a trainer, or an existing version, predicts interactions.

    All items are ranked for each test user, seen ones left out. For comparison, the most
    popular items and random ones are ranked for the same users. docs/evaluation.md defines the metrics.
    """
    from embedding_trainers.evaluation import evaluate_in_detail
    from embedding_trainers.evaluation.report_text import report_text

    cuts = _cuts(k)
    what: dict[str, Any]
    rows: dict[str, LogReport]
    context = click.get_current_context()
    if model is not None and not is_given(context, "interactions"):
        interactions = None  # of the settings: the version is asked for
    if interactions is None and model is None:
        raise InputError("name either --interactions, to train and evaluate, or --model, to evaluate a version")
    if model is not None and interactions is not None and not is_given(context, "like"):
        raise InputError(
            "name either --interactions, to train and evaluate, or --model, to evaluate a version; both together only "
            "with --like, which is then a version of that model"
        )
    if test.cold is not None:
        if interactions is None:
            raise InputError(f"--split {test.split} trains, so it needs --interactions")
        refuse_typed(
            ("test", "split_at", "k", "segments", "test_events", "include_seen"),
            f"has no effect with --split {test.split}",
        )
        source = dataclasses.replace(source_of(interactions), query=query, repo=repo)
        of_other_side = ("user_content",) if test.cold == "item" else ("items", "content")
        refuse_typed(of_other_side, f"has no effect with --split {test.split}")
        table, asked = (items, content) if test.cold == "item" else (users, user_content)
        _evaluate_cold(source, test.cold, source.table(table), asked or "auto", choice, as_json)
        return
    refuse_typed(("items", "content", "user_content"), "has no effect without --split cold-items or cold-users")
    if not segments and not is_given(context, "users"):
        users = None  # of the settings: no attribute is asked for
    if interactions is not None:
        refuse_typed(("version",), "works only with --model")
        source = dataclasses.replace(source_of(interactions), query=query, repo=repo)
        what, factors, parts, rows = _train(source, test, choice)
        attributes = _from_file(source.table(users), segments, source.columns.user, parts)
    else:
        refuse_typed(_ONLY_WITH_A_TRAINER, "has no effect with --model, as nothing is trained")
        if test.file is None:
            raise InputError("name the interactions that the version is to predict with --test")
        source = dataclasses.replace(source_of(test.file), repo=repo)
        what, factors, parts, attributes, rows = _load(repo, str(model), version, source, test, segments)
    report = evaluate_in_detail(factors, parts, k=cuts, attributes=attributes, options=choice.options)
    name = what.get("trainer") or f"{model} version {what['version']}"
    if as_json:
        counted = {log: dataclasses.asdict(became) for log, became in rows.items()}
        click.echo(json.dumps(what | dataclasses.asdict(report) | {"rows": counted}))
        return
    for log_name, became in rows.items():
        for line in became.lines():
            click.echo(f"{log_name}: {line}")
    click.echo(report_text(name, report))


def _train(
    source: InteractionSource, test: SplitChoice, choice: TrainerChoice
) -> tuple[dict[str, Any], Factors, Split, dict[str, LogReport]]:
    from embedding_trainers.trainer import LogShape, find_trainer

    if choice.name == AUTO:
        return _race(source, test, choice)
    trainer = find_trainer(choice.name)
    config = trainer.configure(choice.parameters)
    parts, rows = test.of_log(
        source, choice.options.seed, uses_weights=trainer.uses_weights, reads_log=trainer.needs_log(config)
    )
    config = trainer.complete(config, LogShape.of(parts.train))
    factors = trainer.fit(parts.train, config, choice.options, parts.log)
    return {"trainer": choice.name, "config": config.model_dump(mode="json")}, factors, parts, rows


def _evaluate_cold(
    source: InteractionSource, entity: Entity, table: Source | None, content: str, choice: TrainerChoice, as_json: bool
) -> None:
    """Evaluate on hidden items or users, and print what came out."""
    from embedding_trainers.content.catalogue import content_columns
    from embedding_trainers.evaluation.cold import Catalogue, evaluate_cold
    from embedding_trainers.evaluation.cold_text import cold_text
    from embedding_trainers.interactions import split_interactions
    from embedding_trainers.interactions.attributes import read_attribute_file
    from embedding_trainers.interactions.checks import check_weights
    from embedding_trainers.search import race
    from embedding_trainers.trainer import find_trainer
    from feast_embeddings.artifact.ids import id_names

    log, rows = source.read()
    name, matrix = choice.name, log.to_csr()
    if name == AUTO:
        racers, split = _racers(source, choice), split_interactions(log, seed=choice.options.seed)
        if any(racer.trainer.needs_log(racer.config) for racer in racers):
            split = split.with_log(log)
        winner = race(racers, split, choice.options).winner
        name, trainer, config = winner.name, winner.trainer, winner.config
    else:
        trainer = find_trainer(name)
        config = trainer.configure(choice.parameters)
    if trainer.uses_weights:
        for warning in check_weights(matrix, log.users, log.items):
            click.echo(f"warning: {warning}", err=True)
    catalogue = None
    if table is not None and content != "none":
        ids, own = (log.items, source.columns.item) if entity == "item" else (log.users, source.columns.user)
        file = read_attribute_file(table, id_names(entity, own))
        found = file.rows_of(ids).fill_null(-1).to_numpy(zero_copy_only=False)
        catalogue = Catalogue(file.columns, found, content_columns(file, entity, content))
    whole = log.training_log() if trainer.needs_log(config) else None
    report = evaluate_cold(entity, matrix, trainer, config, catalogue, choice.options, whole)
    if as_json:
        what = {"trainer": name, "config": config.model_dump(mode="json"), "interactions": dataclasses.asdict(rows)}
        click.echo(json.dumps(what | dataclasses.asdict(report)))
        return
    for line in rows.lines():
        click.echo(f"interactions: {line}")
    click.echo(cold_text(name, report))


def _race(
    source: InteractionSource, test: SplitChoice, choice: TrainerChoice
) -> tuple[dict[str, Any], Factors, Split, dict[str, LogReport]]:
    """Let half of the test users choose the trainer, to evaluate it on the others."""
    from embedding_trainers.search import divide_users, race
    from embedding_trainers.trainer import LogShape

    options, racers = choice.options, _racers(source, choice)
    reads_log = any(racer.trainer.needs_log(racer.config) for racer in racers)
    whole, rows = test.of_log(source, options.seed, uses_weights=racers[0].trainer.uses_weights, reads_log=reads_log)
    chosen_on, parts = divide_users(whole, options.seed)
    raced = race(racers, chosen_on, options)
    if options.progress:
        click.echo("\n".join(raced.lines()), err=True)
    name, trainer = raced.winner.name, raced.winner.trainer
    config = trainer.complete(raced.winner.config, LogShape.of(parts.train))
    factors = trainer.fit(parts.train, config, options, parts.log)
    what = {"trainer": name, "config": config.model_dump(mode="json"), "race": raced.to_json()}
    return what, factors, parts if raced.laps else whole, rows


def _racers(source: InteractionSource, choice: TrainerChoice) -> list[Racer]:
    from embedding_trainers.interactions.checks import weighs
    from embedding_trainers.search import find_racers

    racers, warnings = find_racers(
        choice.parameters, weighs=source.columns.weight is not None or weighs(source.preparation)
    )
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    return racers


def _from_file(table: Source | None, segments: tuple[str, ...], own_name: str, parts: Split) -> dict[str, pa.Array]:
    from embedding_trainers.interactions.attributes import read_attributes
    from feast_embeddings.artifact.ids import id_names
    from feast_embeddings.reading import source_name

    if (table is None) != (not segments):
        raise InputError("--segment and --users go together: a column, and the file that has it")
    if table is None:
        return {}
    return _columns(read_attributes(table, id_names("user", own_name), parts.users)[0], segments, source_name(table))


def _load(
    repo: Path,
    model: str,
    version: str,
    source: InteractionSource,
    test: SplitChoice,
    segments: tuple[str, ...],
) -> tuple[dict[str, Any], Factors, Split, dict[str, pa.Array], dict[str, LogReport]]:
    from feast_embeddings.artifact import load_artifact

    artifact = load_artifact(repo / "data", model, version_named(repo, model, version))
    log, became = test.read(source, artifact)
    factors, parts = test.of_version(artifact, log)
    attributes = _columns(artifact.table("user"), segments, f"the users of version {artifact.manifest.version}")
    return {"model": model, "version": artifact.manifest.version}, factors, parts, attributes, {"test": became}


def _columns(table: pa.Table, names: Iterable[str], where: str) -> dict[str, pa.Array]:
    for name in names:
        if name not in table.column_names:
            raise InputError(f"--segment {name!r}: {where} has {', '.join(map(repr, table.column_names))}")
    return {name: table[name].combine_chunks() for name in names}


def _cuts(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--k {text!r}: expected whole numbers with commas, e.g. 10,20,50") from None

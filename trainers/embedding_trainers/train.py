"""The whole of training: read a log, judge the trainer on a part of it, fit all of it, write the artifact."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import TypeAdapter

from embedding_trainers.alignment import Aligned, Tables, align, count_shared, too_few
from embedding_trainers.evaluation import measure
from embedding_trainers.interactions import (
    Columns,
    LogReport,
    Preparation,
    Reading,
    Split,
    read_log,
    split_interactions,
)
from embedding_trainers.interactions.attributes import read_attributes
from embedding_trainers.interactions.checks import check_weights, log_warnings, refuse_weights_without_effect
from embedding_trainers.interactions.column_types import types_of, types_of_newest
from embedding_trainers.interactions.tables import factor_tables, refuse_zeros
from embedding_trainers.search import EarlyStop, Search, Tuning, find_iterations, tune
from embedding_trainers.trainer import RunOptions, Trainer, find_trainer
from feast_embeddings.artifact import (
    Artifact,
    Entity,
    TrainerInfo,
    check_schemas,
    load_artifact,
    trained_models,
    validate_model_name,
    write_artifact,
)
from feast_embeddings.errors import ArtifactError, InputError
from feast_embeddings.reading import ColumnType, Source

__all__ = ["LATEST", "Evaluation", "Training", "train_model"]

LATEST = "latest"


@dataclass(frozen=True)
class Evaluation:
    """How the trainer did on a part of the interactions that it had not seen.

    Attributes:
        method: what was held back, or why nothing could be.
        n_users: how many users have something held back.
        n_ranked, metrics, margins: see `evaluation.Measured`; empty if nothing could be held back.
    """

    method: str
    n_users: int
    n_ranked: int
    metrics: dict[str, float]
    margins: dict[str, float]

    @property
    def users(self) -> str:
        """How many users the metrics are the mean of, in words."""
        if not self.margins:
            return f"{self.n_users:,} users"
        margin = max(self.margins.values())
        return f"a random {self.n_ranked:,} of {self.n_users:,} users, 95 % intervals of at most ± {margin:.4f}"


@dataclass(frozen=True)
class Training:
    """One run.

    Attributes:
        artifact: what it wrote.
        evaluation: None if it was not asked for.
        tuning: None if it was not asked for.
        early_stop: None if it was not asked for.
        log: what became of the rows of the log.
        warnings: what the user should know, a sentence each.
        seconds: wall time of the steps read, tune, early stop, evaluate, fit, align and write.
    """

    artifact: Artifact
    evaluation: Evaluation | None
    tuning: Tuning | None
    early_stop: EarlyStop | None
    log: LogReport
    warnings: list[str]
    seconds: dict[str, float]


def train_model(
    repo: Path,
    model: str,
    interactions: Source,
    *,
    columns: Columns | None = None,
    preparation: Preparation | None = None,
    reading: Reading | None = None,
    trainer: str = "bpr",
    parameters: Mapping[str, Any] | None = None,
    options: RunOptions | None = None,
    user_attributes: Path | None = None,
    item_attributes: Path | None = None,
    attribute_types: Mapping[str, ColumnType] | None = None,
    evaluation: bool = True,
    align_to: str | None = LATEST,
    search: Search | None = None,
    patience: int | None = None,
) -> Training:
    """Train a new version of a model from an interaction log.

    Args:
        repo: a Feast repository; the version goes to its folder ``data``.
        model: name of the model.
        interactions: see `read_log`.
        columns: names of the columns of `interactions`. The attributes use the same id columns.
        preparation: which of the interactions count, and how much.
        reading: how the values of the log are understood. Types that it does not name are those of the newest version.
        trainer: name of an installed trainer.
        parameters: hyper-parameters that differ from the trainer's defaults.
        options: seed, threads, progress.
        user_attributes: a file with a row per user, whose columns go with the embeddings.
        item_attributes: the same for items.
        attribute_types: types of attributes by name; others are those of the newest version, or as they look.
        evaluation: first fit without a part of the interactions and see whether it ranks them high. The
            version itself is then fitted on all of them.
        align_to: the version into whose vector space the new one is rotated, so that models trained on its vectors
            can go on. ``"latest"`` is the newest, and starts a new space where that is not possible; so does None,
            always. See `feast_embeddings.artifact.manifest.Manifest.new_space_reason`.
        search: first look for the hyper-parameters that are not given, see `tune`; what the evaluation tests on is
            not looked at.
        patience: first look for the best number of iterations up to the one configured, see `find_iterations`; what
            the evaluation tests on is not looked at.

    Raises:
        InputError: an argument or a file cannot be used. Nothing has been written then.
        MissingExtraError: the extra ``trainers`` is not installed.
    """
    if not (repo / "feature_store.yaml").is_file():
        raise InputError(f"{repo} has no feature_store.yaml; run feast-embeddings init, or name the folder with --repo")
    validate_model_name(model)
    columns, preparation, options = columns or Columns(), preparation or Preparation(), options or RunOptions()
    newest = types_of_newest(repo / "data", model)
    reading = reading or Reading()
    reading = dataclasses.replace(
        reading,
        user_ids=reading.user_ids or newest.ids.get("user"),
        item_ids=reading.item_ids or newest.ids.get("item"),
    )
    method = find_trainer(trainer)
    config = method.configure(parameters or {})
    previous, new_space = _previous(repo / "data", model, align_to, config.factors)
    refuse_weights_without_effect(trainer, method, preparation)
    seconds: dict[str, float] = {}

    with _timed(seconds, "read"):
        log, report = read_log(interactions, columns, preparation, reading)
        warnings = log_warnings(log, columns, trainer, method)
        files: dict[Entity, tuple[Path | None, str, pa.Array]] = {
            "user": (user_attributes, columns.user, log.users),
            "item": (item_attributes, columns.item, log.items),
        }
        summary = log.summary()
        attributes: dict[Entity, pa.Table | None] = {"user": None, "item": None}
        unused = set(attribute_types or ())
        for entity, (path, id_column, ids) in files.items():
            if path is not None:
                types = {**newest.attributes.get(entity, {}), **(attribute_types or {})}
                table, without = read_attributes(path, id_column, ids, types)
                attributes[entity] = table
                unused.difference_update(table.column_names)
                if without:
                    warnings.append(f"{without:,} {entity}s of {path} have no interaction, and get no vector")
        if unused:
            raise InputError(f"--attribute-types names {sorted(unused)[0]!r}, which is not among the attributes")
        schemas = {entity: _schema(entity, ids, attributes[entity]) for entity, (_, _, ids) in files.items()}
        check_schemas(repo / "data", model, schemas)
        if previous and align_to != LATEST:
            shared = count_shared(previous, {"user": log.users, "item": log.items})
            if reason := too_few(previous, shared, config.factors):
                raise InputError(f"cannot align: {reason}; leave out --align-to, or start a new space with --no-align")
        split = split_interactions(log, seed=options.seed) if evaluation else None
        seen = None
        if search is not None or patience is not None:
            # All that may be looked at before the evaluation; with its times, so that it is split by time again.
            seen = log if split is None or split.held_back is None else log.where(~split.held_back)
        # From here on only the matrix is needed: a large log takes more memory than all that follows.
        log = dataclasses.replace(log, timestamps=None)
        user_items = log.to_csr()
        del log
        if method.uses_weights:
            warnings += check_weights(user_items, summary.users, summary.items)
    tuning = stop = judged = None
    if search is not None and seen is not None:
        with _timed(seconds, "tune"):
            tuning = tune(method, parameters or {}, seen, options, search)
            config = tuning.config
    if patience is not None and seen is not None:
        with _timed(seconds, "early stop"):
            stop = find_iterations(method, config, seen, options, patience=patience)
            config = stop.config
    del seen
    if split:
        with _timed(seconds, "evaluate"):
            judged = _evaluate(method, config, split, options)
        del split
    with _timed(seconds, "fit"):
        factors = method.train(user_items, config, options)
    tables = factor_tables(summary, user_items, factors, attributes["user"], attributes["item"])
    refuse_zeros(tables)
    aligned = Aligned(tables, None, new_space)
    if previous:
        with _timed(seconds, "align"):
            aligned = _align(previous, aligned.tables, align_to)
    with _timed(seconds, "write"):
        artifact = write_artifact(
            repo / "data",
            model,
            users=aligned.tables["user"],
            items=aligned.tables["item"],
            as_of=summary.as_of or datetime.now(UTC),
            trainer=TrainerInfo(name=trainer, config=config.model_dump(mode="json")),
            seed=options.seed,
            metrics=judged.metrics if judged else {},
            evaluated_on=f"{judged.method}, {judged.users}" if judged and judged.metrics else "",
            fingerprint=summary.fingerprint,
            n_interactions=summary.n,
            alignment=aligned.alignment,
            new_space_reason=aligned.refused,
            interactions={
                "columns": dataclasses.asdict(columns),
                "preparation": TypeAdapter(Preparation).dump_python(preparation, mode="json"),
                "reading": dataclasses.asdict(reading),
                "rows": dataclasses.asdict(report),
                "types": types_of(schemas).to_json(),
            },
            tuning=None if tuning is None else tuning.to_json(),
        )
    return Training(artifact, judged, tuning, stop, report, warnings, seconds)


def _schema(entity: Entity, ids: pa.Array, attributes: pa.Table | None) -> pa.Schema:
    """The columns of a new version that may differ from those of earlier ones."""
    return pa.schema([(f"{entity}_id", ids.type), *(attributes.schema if attributes is not None else ())])


def _previous(data: Path, model: str, align_to: str | None, factors: int) -> tuple[Artifact | None, str]:
    """The version to align to; or None, and why there is none."""
    if align_to is None:
        return None, "asked for"
    if align_to == LATEST and model not in trained_models(data):
        return None, "the first version of the model"
    try:
        previous = load_artifact(data, model, None if align_to == LATEST else align_to)
    except ArtifactError as error:
        if align_to != LATEST:
            raise
        return None, str(error)
    if (dim := previous.manifest.dim) == factors:
        return previous, ""
    reason = f"version {previous.manifest.version} has {dim} dimensions, the new one {factors}"
    if align_to != LATEST:
        raise InputError(f"cannot align: {reason}; train with --factors {dim}, or start a new space with --no-align")
    return None, reason


def _align(previous: Artifact, tables: Tables, align_to: str | None) -> Aligned:
    try:
        return align(previous, tables)
    except ArtifactError as error:
        # A damaged old version is no reason to have no new one, unless that old one was asked for.
        if align_to != LATEST:
            raise
        return Aligned(tables, None, str(error))


def _evaluate(method: Trainer[Any], config: Any, split: Split, options: RunOptions) -> Evaluation:
    if split.n_test_users == 0:
        return Evaluation("too few interactions to hold any back", 0, 0, {}, {})
    found = measure(method.train(split.train, config, options), split.train, split.test)
    return Evaluation(split.method, split.n_test_users, found.n_ranked, found.metrics, found.margins)


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[step] = time.perf_counter() - start

"""One run of training: what every engine checks before it, and writes after it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import TypeAdapter

from embedding_trainers import AUTO
from embedding_trainers.alignment import Aligned, Tables, too_few
from embedding_trainers.content.catalogue import Catalogue, catalogue_of, refuse_without_file
from embedding_trainers.evaluation.report import ranked_users
from embedding_trainers.interactions import Columns, LogReport, Preparation, Reading
from embedding_trainers.interactions.attributes import read_attribute_file
from embedding_trainers.interactions.checks import refuse_weights_without_effect, weighs
from embedding_trainers.interactions.column_types import VersionTypes, types_of, types_of_newest
from embedding_trainers.probes import ProbeScore
from embedding_trainers.search import EarlyStop, Race, Racer, Tuning, find_racers
from embedding_trainers.trainer import Trainer, TrainerConfig, find_trainer
from feast_embeddings.artifact import (
    ENTITIES,
    LATEST,
    Artifact,
    ContentFile,
    Entity,
    Network,
    TrainerInfo,
    check_schemas,
    load_artifact,
    trained_models,
    validate_model_name,
    write_artifact,
)
from feast_embeddings.artifact.ids import id_names
from feast_embeddings.errors import ArtifactError, InputError
from feast_embeddings.reading import ColumnType, Source

__all__ = ["LATEST", "Evaluation", "Run", "Training", "open_run", "timed"]


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

    @classmethod
    def impossible(cls, why: str) -> Evaluation:
        """There is nothing to measure on."""
        return cls(why, 0, 0, {}, {})

    @property
    def users(self) -> str:
        """How many users the metrics are the mean of, in words."""
        if not self.margins:
            return f"{self.n_users:,} users"
        margin = max(self.margins.values())
        return f"{ranked_users(self.n_ranked, self.n_users)}, 95 % intervals of at most ± {margin:.4f}"


@dataclass(frozen=True)
class Training:
    """One run.

    Attributes:
        artifact: what it wrote.
        evaluation: None if it was not asked for.
        race: how the trainer was chosen; None if it was named.
        tuning: None if it was not asked for.
        early_stop: None if it was not asked for.
        log: what became of the rows of the log.
        warnings: what the user should know, a sentence each.
        probes: what models of the earlier version's vectors score on the new ones; empty if it has another space.
        seconds: wall time of the steps read, race, tune, early stop, evaluate, fit, align and write.
        unchanged: whether nothing was trained, because the newest version came from the same.
    """

    artifact: Artifact
    evaluation: Evaluation | None
    race: Race | None
    tuning: Tuning | None
    early_stop: EarlyStop | None
    log: LogReport
    warnings: list[str]
    seconds: dict[str, float]
    unchanged: bool = False
    probes: list[ProbeScore] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    """What is trained, in valid arguments; see `open_run`.

    Attributes:
        trainer, method, config: as given, before any search; of the cheapest candidate, before a race.
        racers: the candidates, if the trainer is to be chosen; see `find_racers`.
        previous: the version to align to, or None.
        new_space: why there is none; empty if there is one.
        newest: types of the newest version.
        warnings: what the user should know, a sentence each.
    """

    repo: Path
    model: str
    columns: Columns
    preparation: Preparation
    reading: Reading
    trainer: str
    method: Trainer[Any]
    config: TrainerConfig
    racers: list[Racer]
    align_to: str | None
    previous: Artifact | None
    new_space: str
    newest: VersionTypes
    warnings: list[str]

    @property
    def incumbent(self) -> str | None:
        """The trainer of the version whose space goes on."""
        return None if self.previous is None else self.previous.manifest.trainer.name

    def with_trainer(self, chosen: Racer) -> Run:
        """Return the run with the winner of a race."""
        return dataclasses.replace(self, trainer=chosen.name, method=chosen.trainer, config=chosen.config)

    def read_attributes(
        self,
        files: Mapping[Entity, Source | None],
        ids: Mapping[Entity, pa.Array],
        types: Mapping[str, ColumnType] | None,
        content: Mapping[Entity, str | None],
    ) -> tuple[dict[Entity, pa.Table | None], dict[Entity, Catalogue], list[str]]:
        """Read the attributes of users and items, in the order of their ids; and say which rows are of no use.

        Args:
            content: the columns of each side that are content, see `Catalogue.of`.

        Raises:
            InputError: a file cannot be used, or `types` names a column that no file has.
        """
        attributes: dict[Entity, pa.Table | None] = dict.fromkeys(ENTITIES)
        catalogues: dict[Entity, Catalogue] = {}
        warnings = []
        unused = set(types or ())
        for entity, path in files.items():
            refuse_without_file(entity, content[entity], path is not None)
            if path is None:
                continue
            own_name = self.columns.user if entity == "user" else self.columns.item
            all_types = {**self.newest.attributes.get(entity, {}), **(types or {})}
            file = read_attribute_file(path, id_names(entity, own_name), all_types)
            unused.difference_update(file.columns.column_names)
            if cut := file.cut_times():
                warnings.append(f"{file.name}: the times of {', '.join(cut)} are cut to whole seconds, as in Feast")
            warnings += file.doubts
            rows = file.rows_of(ids[entity])
            catalogue, why_not = catalogue_of(file, entity, ids[entity], rows, content[entity])
            if catalogue is not None:
                catalogues[entity] = catalogue
                attributes[entity] = catalogue.trained_attributes
                continue
            attributes[entity] = file.served().take(rows)
            if without := len(file.ids) - (len(rows) - rows.null_count):
                warnings.append(
                    f"{without:,} {entity}s of {file.name} have no interaction, and get no vector: {why_not}"
                )
        if unused:
            raise InputError(f"--attribute-types names {sorted(unused)[0]!r}, which is not among the attributes")
        return attributes, catalogues, warnings

    def check_schemas(
        self, id_types: Mapping[Entity, pa.DataType], attributes: Mapping[Entity, pa.Table | None]
    ) -> dict[Entity, pa.Schema]:
        """Return the columns that may differ from earlier versions'.

        Raises:
            InputError: they cannot follow on those.
        """
        schemas = {entity: _schema(entity, id_types[entity], attributes[entity]) for entity in ENTITIES}
        check_schemas(self.repo / "data", self.model, schemas)
        return schemas

    def check_history(self, history: int | None, *, timed: bool) -> None:
        """Refuse a number of seen items that cannot be kept.

        Raises:
            InputError: it is less than 1, or the log has no times.
        """
        if history is None:
            return
        if history < 1:
            raise InputError(f"history={history}: expected 1 or more, or None for all")
        if not timed:
            raise InputError(
                f"--history {history} keeps the newest items of each user, but the log has no column "
                f"{self.columns.times!r}; name its times (--timestamp-column), or leave --history out"
            )

    def refuse_too_few(self, shared: Mapping[Entity, int]) -> None:
        """Refuse a named version to align to that shares too few ids.

        Raises:
            InputError: it does.
        """
        if self.previous and (reason := too_few(self.previous, shared, self.config.factors)):
            raise InputError(f"cannot align: {reason}; leave out --align-to, or start a new space with --no-align")

    def aligned(self, tables: Tables, align: Callable[[Artifact, Tables, Sequence[int]], Aligned]) -> Aligned:
        """Align to the earlier version, if there is one."""
        if self.previous is None:
            return Aligned(tables, None, self.new_space)
        try:
            return align(self.previous, tables, list(self.config.blocks.values()))
        except ArtifactError as error:
            # A damaged old version is no reason to have no new one, unless that old one was asked for.
            if self.align_to != LATEST:
                raise
            return Aligned(tables, None, str(error))

    def write(
        self,
        aligned: Aligned,
        *,
        config: TrainerConfig,
        seed: int,
        as_of: datetime | None,
        fingerprint: str,
        n_interactions: int,
        evaluation: Evaluation | None,
        report: LogReport,
        request: str = "",
        schemas: dict[Entity, pa.Schema],
        race: Race | None = None,
        tuning: Tuning | None = None,
        content: Mapping[Entity, ContentFile] | None = None,
        network: Network | None = None,
        history: int | None = None,
        probes: Mapping[str, str] | None = None,
    ) -> Artifact:
        """Write the version."""
        searched = ({} if tuning is None else tuning.to_json()) | ({} if race is None else {"race": race.to_json()})
        return write_artifact(
            self.repo / "data",
            self.model,
            users=aligned.tables["user"],
            items=aligned.tables["item"],
            as_of=as_of or datetime.now(UTC),
            trainer=TrainerInfo(name=self.trainer, config=config.model_dump(mode="json")),
            seed=seed,
            metrics=evaluation.metrics if evaluation else {},
            evaluated_on=f"{evaluation.method}, {evaluation.users}" if evaluation and evaluation.metrics else "",
            fingerprint=fingerprint,
            n_interactions=n_interactions,
            alignment=aligned.alignment,
            new_space_reason=aligned.refused,
            interactions={
                "columns": dataclasses.asdict(self.columns),
                "preparation": TypeAdapter(Preparation).dump_python(self.preparation, mode="json"),
                "reading": dataclasses.asdict(self.reading),
                "rows": dataclasses.asdict(report),
                "request": request,
                "types": types_of(schemas).to_json(),
            },
            tuning=searched or None,
            content=content,
            network=network,
            history=history,
            probes=probes,
        )


def open_run(
    repo: Path,
    model: str,
    columns: Columns | None,
    preparation: Preparation | None,
    reading: Reading | None,
    trainer: str,
    parameters: Mapping[str, Any] | None,
    align_to: str | None,
) -> Run:
    """Check the arguments of a training; see `embedding_trainers.train.train_model` for them.

    Raises:
        InputError: one cannot be used.
    """
    if not (repo / "feature_store.yaml").is_file():
        raise InputError(f"{repo} has no feature_store.yaml; run feast-embeddings init, or name the folder with --repo")
    validate_model_name(model)
    columns, preparation = columns or Columns(), preparation or Preparation()
    newest = types_of_newest(repo / "data", model)
    reading = reading or Reading()
    reading = dataclasses.replace(
        reading,
        user_ids=reading.user_ids or newest.ids.get("user"),
        item_ids=reading.item_ids or newest.ids.get("item"),
    )
    racers: list[Racer] = []
    warnings: list[str] = []
    if trainer == AUTO:
        racers, warnings = find_racers(parameters or {}, weighs=columns.weight is not None or weighs(preparation))
        trainer, method, config = racers[0].name, racers[0].trainer, racers[0].config
    else:
        method = find_trainer(trainer)
        config = method.configure(parameters or {})
        refuse_weights_without_effect(trainer, method, preparation)
    previous, new_space = _previous(repo / "data", model, align_to, trainer, method, config)
    return Run(
        *(repo, model, columns, preparation, reading, trainer, method, config, racers),
        *(align_to, previous, new_space, newest, warnings),
    )


def _schema(entity: Entity, id_type: pa.DataType, attributes: pa.Table | None) -> pa.Schema:
    return pa.schema([(f"{entity}_id", id_type), *(attributes.schema if attributes is not None else ())])


def _previous(
    data: Path, model: str, align_to: str | None, trainer: str, method: Trainer[Any], config: TrainerConfig
) -> tuple[Artifact | None, str]:
    """The version to align to; or None, and why there is none."""
    if align_to is None:
        return None, "asked for"
    if align_to == LATEST and model not in trained_models(data):
        return None, "the first version of the model"
    try:
        previous = load_artifact(data, model, align_to)
    except ArtifactError as error:
        if align_to != LATEST:
            raise
        return None, str(error)
    dim, version = previous.manifest.dim, previous.manifest.version
    if dim != config.factors:
        reason = f"version {version} has {dim} dimensions, the new one {config.factors}"
        instead = f"train with --factors {dim}"
    elif len(config.blocks) > 1 and (before := _blocks(previous, trainer, method)) != (now := _described(config)):
        reason = f"version {version} has {before}, the new one {now}"
        instead = "train with the same parts"
    else:
        return previous, ""
    if align_to != LATEST:
        raise InputError(f"cannot align: {reason}; {instead}, or start a new space with --no-align")
    return None, reason


def _blocks(version: Artifact, trainer: str, method: Trainer[Any]) -> str:
    """What the dimensions of a version are, in words."""
    before = version.manifest.trainer
    return _described(method.configure(before.config)) if before.name == trainer else f"vectors of {before.name}"


def _described(config: TrainerConfig) -> str:
    return " + ".join(f"{dim} dimensions of {name}" for name, dim in config.blocks.items())


@contextmanager
def timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    """Take the wall time of a step."""
    start = time.perf_counter()
    yield
    seconds[step] = time.perf_counter() - start

"""The whole of training: read a log, judge the trainer on a part of it, fit all of it, write the artifact."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa

from embedding_trainers import AUTO
from embedding_trainers.alignment import align, count_shared
from embedding_trainers.content.catalogue import Catalogue
from embedding_trainers.content.features import what_is_read
from embedding_trainers.content.fitting import ContentFitting
from embedding_trainers.evaluation import measured, score_users
from embedding_trainers.interactions import Columns, Preparation, Reading, Split, read_log, split_interactions
from embedding_trainers.interactions.checks import check_weights, log_warnings
from embedding_trainers.interactions.memory import release_freed_memory
from embedding_trainers.interactions.seen import latest_times
from embedding_trainers.interactions.tables import factor_tables, refuse_zeros
from embedding_trainers.probes import ProbeScore, located, read_labels, score_probes
from embedding_trainers.search import Race, Search, find_iterations, race, tune
from embedding_trainers.trainer import LogShape, RunOptions, Trainer
from embedding_trainers.training import LATEST, Evaluation, Training, open_run, timed
from feast_embeddings.artifact import Artifact, ContentFile, Entity, load_artifact, trained_models
from feast_embeddings.errors import ArtifactError, InputError
from feast_embeddings.reading import ColumnType, Source

__all__ = ["LATEST", "Evaluation", "Training", "train_model"]


def train_model(
    repo: Path,
    model: str,
    interactions: Source,
    *,
    columns: Columns | None = None,
    preparation: Preparation | None = None,
    reading: Reading | None = None,
    trainer: str = AUTO,
    parameters: Mapping[str, Any] | None = None,
    options: RunOptions | None = None,
    user_attributes: Source | None = None,
    item_attributes: Source | None = None,
    attribute_types: Mapping[str, ColumnType] | None = None,
    content: str | None = None,
    user_content: str | None = None,
    evaluation: bool = True,
    align_to: str | None = LATEST,
    search: Search | None = None,
    patience: int | None = None,
    history: int | None = None,
    probes: Mapping[str, str] | None = None,
    if_changed: bool = False,
) -> Training:
    """Train a new version of a model from an interaction log.

    Args:
        repo: a Feast repository; the version goes to its folder ``data``.
        model: name of the model.
        interactions: see `read_log`.
        columns: names of the columns of `interactions`. The attributes use the same id columns.
        preparation: which of the interactions count, and how much.
        reading: how the values of the log are understood. Types that it does not name come from the newest version.
        trainer: name of an installed trainer; ``auto`` races the cheap ones and takes the winner, see `race`.
        parameters: hyper-parameters that differ from the trainer's defaults; with ``auto`` only `factors`.
        options: seed, threads, progress.
        user_attributes: a file with a row per user, whose columns go with the embeddings.
        item_attributes: the same for items.
        attribute_types: types of attributes by name; others come from the newest version, or from the values.
        content: columns of the items' file, such as ``title:text,price:number``: items of the file that have no
            interaction get the vector that these say, see `embedding_trainers.content`. By default those that look like
            content; ``auto`` refuses a file that has none, ``none`` takes none.
        user_content: the same of the users' file.
        evaluation: first fit without a part of the interactions and see whether it ranks them high. The
            version itself is then fitted on all of them.
        align_to: the version into whose vector space the new one is rotated, so that models trained on its vectors
            can go on. ``"latest"`` is the newest, and starts a new space where that is not possible; so does None,
            always. See `feast_embeddings.artifact.manifest.Manifest.new_space_reason`.
        search: first look for the hyper-parameters that are not given, see `tune`; what the evaluation tests on is
            not looked at.
        patience: first look for the best number of iterations up to the one configured, see `find_iterations`; what
            the evaluation tests on is not looked at.
        history: how many seen items of each user to keep, the newest, which needs times; None keeps all. The
            vectors are of all interactions.
        probes: tables of labels, ``FILE:COLUMN`` by name. A model of the earlier version's vectors is scored on the new
            ones, here and by `publish`, see `embedding_trainers.probes`.
        if_changed: train only if the rows, the attributes or an argument differ from the newest version's, which
            is returned otherwise.

    Raises:
        InputError: an argument or a file cannot be used. Nothing has been written then.
        MissingExtraError: the extra ``trainers`` is not installed.
    """
    options = options or RunOptions()
    run = open_run(repo, model, columns, preparation, reading, trainer, parameters, align_to)
    seconds: dict[str, float] = {}

    with timed(seconds, "read"):
        log, report = read_log(interactions, run.columns, run.preparation, run.reading)
        run.check_history(history, timed=log.timestamps is not None)
        ids: dict[Entity, pa.Array] = {"user": log.users, "item": log.items}
        warnings = run.warnings + log_warnings(log, run.columns, run.trainer, run.method)
        attributes, catalogues, unused = run.read_attributes(
            {"user": user_attributes, "item": item_attributes},
            ids,
            attribute_types,
            {"user": user_content, "item": content},
        )
        warnings += unused
        if run.method.fold_in_reads_log and "user" in catalogues:
            raise InputError(
                f"the trainer {run.trainer!r} makes users of the order of their items, and cannot add content to them; "
                "leave out --user-content, or take another trainer"
            )
        named: dict[Entity, str | None] = {"user": run.columns.user, "item": run.columns.item}
        probes = {name: located(where, Path.cwd()) for name, where in (probes or {}).items()}
        for name, where in probes.items():
            read_labels(name, where, named)  # errors in them are found before the training
        schemas = run.check_schemas({entity: values.type for entity, values in ids.items()}, attributes)
        summary = log.summary()
        # Types of ids are part of the fingerprint, and a version is read with the types of the one before.
        as_read = dataclasses.replace(run.reading, user_ids=None, item_ids=None)
        candidates = [racer.config for racer in run.racers] or [run.config]
        settings = (run.columns, run.preparation, as_read, trainer, candidates, options.seed, evaluation, align_to)
        # Not a None, which would make the requests of earlier releases other ones.
        kept = [] if history is None else [f"history {history}"]
        kept += [f"probe {name} {where}" for name, where in sorted(probes.items())]
        request = _request(summary.fingerprint, attributes, catalogues, *settings, search, patience, *kept)
        if if_changed and (newest := _newest_of(repo / "data", model, request)) is not None:
            return Training(newest, None, None, None, None, report, warnings, seconds, unchanged=True)
        if run.previous and align_to != LATEST:
            run.refuse_too_few(count_shared(run.previous, ids))
        split = split_interactions(log, seed=options.seed) if evaluation or run.racers else None
        seen = None
        if search is not None or patience is not None:
            # All that may be looked at before the evaluation; with its times, so that it is split by time again.
            seen = log if not evaluation or split is None or split.held_back is None else log.where(~split.held_back)
        to_race = None
        if run.racers:
            # What a search finds for the winner is tested on interactions that neither has seen.
            to_race = split if seen is None else split_interactions(seen, seed=options.seed)
        methods = [(racer.trainer, racer.config) for racer in run.racers] or [(run.method, run.config)]
        whole, of_seen = None, None
        if any(method.needs_log(config) for method, config in methods):
            whole = log.training_log(attributes)
            split = split and split.with_log(log, attributes)
            of_seen = None if seen is None else log.attributes_of(seen, attributes)
            if to_race is not None:
                to_race = split if seen is None else to_race.with_log(seen, of_seen)
        if split:
            split = dataclasses.replace(split, held_back=None)
        # From here on only the pairs are needed: a large log takes more memory than all that follows.
        user_items = log.to_csr()
        latest = latest_times(user_items, log.user_numbers, log.item_numbers, log.timestamps)
        del log
        release_freed_memory()
        if run.method.uses_weights:
            warnings += check_weights(user_items, ids["user"], ids["item"])
    tuning = stop = judged = raced = None
    shape = LogShape.of(user_items)
    if to_race is not None:
        with timed(seconds, "race"):
            raced = race(run.racers, to_race, options, shape=shape if seen is None else None, incumbent=run.incumbent)
        run = run.with_trainer(raced.winner)
        del to_race
    method, config = run.method, run.config
    if search is not None and seen is not None:
        with timed(seconds, "tune"):
            tuning = tune(method, parameters or {}, seen, options, search, of_seen)
            config = tuning.config
    if patience is not None and seen is not None:
        with timed(seconds, "early stop"):
            stop = find_iterations(method, config, seen, options, patience=patience, attributes=of_seen)
            config = stop.config
    config = method.complete(config, shape)
    content_fitting = ContentFitting(catalogues, method, config, options) if catalogues else None
    tail = None
    if split and evaluation:
        with timed(seconds, "evaluate"):
            judged, tail = _evaluate(method, config, split, options, raced if seen is None else None, content_fitting)
    del seen, split
    with timed(seconds, "fit"):
        factors = method.fit(user_items, config, options, whole)
    config = factors.config or config
    tables = factor_tables(
        summary, user_items, factors, attributes["user"], attributes["item"], latest=latest, newest=history
    )
    refuse_zeros(tables)
    with timed(seconds, "align") if run.previous else nullcontext():
        aligned = run.aligned(tables, align)
    network = factors.network and dataclasses.replace(factors.network, rotation=aligned.rotation)
    content_files: dict[Entity, ContentFile] = {}
    if content_fitting is not None:
        content_fitting = dataclasses.replace(content_fitting, config=config, network=network)
        with timed(seconds, "content"):
            with_content, content_files = content_fitting.applied(aligned.tables, user_items, tail)
        aligned = dataclasses.replace(aligned, tables=with_content)
    with timed(seconds, "write"):
        artifact = run.write(
            aligned,
            config=config,
            seed=options.seed,
            as_of=summary.as_of,
            fingerprint=summary.fingerprint,
            n_interactions=summary.n,
            evaluation=judged,
            report=report,
            request=request,
            schemas=schemas,
            race=raced,
            tuning=tuning,
            content=content_files,
            network=network,
            history=history,
            probes=probes,
        )
    scores: list[ProbeScore] = []
    if probes and run.previous is not None and aligned.alignment is not None:
        with timed(seconds, "probe"):
            scores, lacking = score_probes(artifact, run.previous)
        warnings += [f"probe {name} has no score: {why}" for name, why in lacking.items()]
    return Training(artifact, judged, raced, tuning, stop, report, warnings, seconds, probes=scores)


def _request(
    fingerprint: str,
    attributes: Mapping[Entity, pa.Table | None],
    catalogues: Mapping[Entity, Catalogue],
    *settings: object,
) -> str:
    """Return the SHA-256, in hex, of all that a version depends on, except the version that it is aligned to."""
    digest = hashlib.sha256(f"{fingerprint} {settings!r}".encode())
    tables: dict[str, pa.Table | None] = dict(attributes.items())
    for entity, catalogue in catalogues.items():
        digest.update(f"{catalogue.asked} {catalogue.columns}".encode())
        # Before the training: a model that is not there is found now, not after hours.
        digest.update(what_is_read(catalogue.table, catalogue.columns).encode())
        tables[f"{entity} content"] = catalogue.table
        tables[f"{entity} cold"] = catalogue.cold_attributes.append_column("", catalogue.cold_ids)
    for name_of_table, table in tables.items():
        digest.update(f"{name_of_table} {table is None}".encode())
        if table is not None:
            digest.update(table.schema.to_string().encode())
            for name in table.column_names:
                # Chunks depend on how the table was read.
                column = table[name].combine_chunks()
                digest.update(pa.RecordBatch.from_arrays([column], [name]).serialize())
    return digest.hexdigest()


def _newest_of(data: Path, model: str, request: str) -> Artifact | None:
    """Return the newest version if it came from the same request and is whole."""
    if model not in trained_models(data):
        return None
    try:
        newest = load_artifact(data, model, LATEST)
    except ArtifactError:
        return None
    return newest if (newest.manifest.interactions or {}).get("request") == request else None


def _evaluate(
    method: Trainer[Any],
    config: Any,
    split: Split,
    options: RunOptions,
    raced: Race | None,
    content: ContentFitting | None,
) -> tuple[Evaluation, float | None]:
    """Measure the trainer, and choose how much content turns trained items.

    Args:
        raced: the race on the same split, which may have trained the same already.
        content: what was asked for; None if nothing was.
    """
    if split.n_test_users == 0:
        return Evaluation.impossible("too few interactions to hold any back"), None
    scores = None
    if raced and raced.values and raced.configs[raced.winner.name] == config:
        scores = raced.values[raced.winner.name]
    tail = None
    if scores is None or (content is not None and "item" in content.catalogues):
        factors = method.fit(split.train, config, options, split.log)
        scores = score_users(factors, split.train, split.test) if scores is None else scores
        if content is not None:
            # What is encoded and chosen stays: the copy shares it.
            content = dataclasses.replace(content, config=factors.config or config)
        tail = None if content is None else content.tail_strength(split, factors)
    if raced:
        scores = raced.honest_values(scores)
    found = measured(scores, split.train, split.test)
    return Evaluation(split.method, split.n_test_users, found.n_ranked, found.metrics, found.margins), tail

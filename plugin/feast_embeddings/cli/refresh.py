"""`refresh`: the whole night run, from the log to the live version, for cron and schedulers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from feast_embeddings.cli.options import (
    gate_options,
    json_option,
    keep_option,
    max_age_option,
    model_option,
    one_model,
    print_json,
    repo_option,
    textfile_option,
)
from feast_embeddings.cli.output_file import Gauge, output_path, write_textfile
from feast_embeddings.errors import EmbeddingsError, GateError, InputError, WriterLockedError
from feast_embeddings.repo import Repo

if TYPE_CHECKING:
    from feast_embeddings.artifact import Manifest

REFUSED, LOCKED = 3, 4


@dataclass
class _Step:
    name: str
    seconds: float = 0.0
    said: str = ""


@dataclass
class _Run:
    """What has happened so far; after each step a line of it is printed."""

    model: str
    prints: bool
    exit_code: int = 1
    result: str = "failed"
    live: Manifest | None = None
    steps: list[_Step] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[_Step]:
        step, start = _Step(name), time.monotonic()
        self.steps.append(step)
        try:
            yield step
        finally:
            step.seconds = round(time.monotonic() - start, 3)
        if self.prints:
            click.echo(f"{name}: {step.said}, {step.seconds:.1f} s")


class _TrainFailedError(Exception):
    """Training ended with this exit code, and has said why."""


@click.command()
@repo_option
@model_option
@gate_options
@keep_option
@max_age_option
@textfile_option
@json_option
@click.argument("train_options", nargs=-1, type=click.UNPROCESSED, metavar="[-- TRAIN_OPTIONS…]")
def refresh(
    repo: str,
    model: str | None,
    keep: int,
    max_age: float,
    textfile: str | None,
    as_json: bool,
    train_options: tuple[str, ...],
    **gates: Any,
) -> None:
    """Train if there is something new, publish if the gates pass, prune, and check.

    The log and how to train are in the repo's embeddings.toml, or after --. Run it again after a failure: it goes on
    where it stopped. Exit codes: 0 live, or nothing new; 1 failed; 2 bad input; 3 refused by a gate, and the live
    version stays; 4 another refresh of the model is running.
    """
    from feast_embeddings.files import writer_lock

    target = None if textfile is None else output_path("--textfile", textfile, ".prom")
    opened = Repo.open(repo)
    name = one_model(opened, model)
    opened.data.mkdir(exist_ok=True)
    run = _Run(name, prints=not as_json)
    try:
        with writer_lock(opened.data / f".{name}.refresh.lock", timeout=0):
            _refresh(opened, run, gates, keep, timedelta(days=max_age), train_options)
    except WriterLockedError as error:
        run.exit_code, run.result = (LOCKED, "locked") if not run.steps else (error.exit_code, "failed")
        _say(error)
    except GateError as error:
        run.exit_code, run.result = REFUSED, "refused"
        _say(error)
    except _TrainFailedError as error:
        run.exit_code = int(str(error))
    except EmbeddingsError as error:
        run.exit_code = error.exit_code
        _say(error)
    finally:
        # A run that waits for no lock leaves the metrics to the run that has it.
        if target is not None and run.result != "locked":
            _write_metrics(target, run)
    if as_json:
        version = None if run.live is None else run.live.version
        steps = [asdict(step) for step in run.steps]
        print_json({"model": name, "result": run.result, "live": version, "steps": steps})
    sys.exit(run.exit_code)


def _refresh(
    repo: Repo, run: _Run, gates: dict[str, Any], keep: int, max_age: timedelta, train_options: tuple[str, ...]
) -> None:
    _pull_live(repo, run.model)
    with run.step("train") as step:
        trained = _train(repo, run.model, train_options)
        step.said = f"nothing new since {trained['version']}" if trained["unchanged"] else f"trained {_told(trained)}"

    from feast_embeddings.artifact import load_artifact
    from feast_embeddings.doctor import examine
    from feast_embeddings.publish.gates import Gates
    from feast_embeddings.publish.run import publish_artifact
    from feast_embeddings.publish.versions import prune_versions

    feature_store = repo.feature_store()
    with run.step("publish") as step:
        artifact = load_artifact(repo.data, run.model, trained["version"])
        published = publish_artifact(feature_store, artifact, gates=Gates(**gates))
        run.live = artifact.manifest
        step.said = f"{published.version} is live{'' if published.changed else ' already'}"
        for warning in published.warnings:
            click.echo(f"warning: {warning}", err=True)
    with run.step("prune") as step:
        pruned = prune_versions(feature_store, repo.data, run.model, keep=keep, artifacts=False, dry_run=False)
        step.said = f"{len(pruned.collections) + len(pruned.leftovers)} collections deleted"
    with run.step("doctor") as step:
        report = examine(repo, max_age=max_age)
        found = [finding for finding in report.findings if finding.level != "ok"]
        step.said = f"{len(found)} finding{'' if len(found) == 1 else 's'}"
    for finding in found:
        click.echo(f"{finding.level}: {finding.message}{f' (fix: {finding.fix})' if finding.fix else ''}", err=True)
    if report.worst != "problem":
        run.exit_code, run.result = 0, "live" if published.changed else "nothing new"


def _pull_live(repo: Repo, model: str) -> None:
    """Bring the live version onto a disk that lacks it: training aligns to it, and gates compare with it."""
    from feast_embeddings.model.versions import artifact_store_of, versions_of
    from feast_embeddings.query.store import EmbeddingStore

    feature_store = repo.feature_store()
    if artifact_store_of(feature_store) is None:
        return
    try:
        live = EmbeddingStore(feature_store, model).live_version()
    except InputError:  # not registered yet
        return
    try:
        if live is not None:
            versions_of(feature_store, model).load(live)
    except InputError as error:
        click.echo(f"warning: the live version cannot be compared with: {error}", err=True)


def _train(repo: Repo, model: str, options: tuple[str, ...]) -> dict[str, Any]:
    """Train in a separate process, which gives its memory back before the version is loaded."""
    start = "from feast_embeddings.cli import run; run()"
    command = [
        sys.executable,
        "-c",
        start,
        "train",
        "--repo",
        str(repo.path),
        "--model",
        model,
        "--if-changed",
        "--json",
    ]
    trained = subprocess.run([*command, *options], stdout=subprocess.PIPE, text=True, check=False)
    if trained.returncode:
        raise _TrainFailedError(trained.returncode if trained.returncode > 0 else 1)
    found: dict[str, Any] = json.loads(trained.stdout)
    return found


def _told(trained: dict[str, Any]) -> str:
    measured = {name: value for name, value in trained["metrics"].items() if not name.startswith("popular_")}
    return str(trained["version"]) + "".join(f", {name} {value:.3f}" for name, value in measured.items())


def _say(error: EmbeddingsError) -> None:
    if os.environ.get("FEAST_EMBEDDINGS_TRACEBACK"):
        raise error
    print("error: " + " ".join(str(error).split()), file=sys.stderr)


def _write_metrics(path: Path, run: _Run) -> None:
    gauges = [
        Gauge("exit_code", "Exit code of the last refresh; 0 is good.", {"": float(run.exit_code)}),
        Gauge("timestamp_seconds", "When the last refresh ended.", {"": time.time()}),
        Gauge(
            "step_seconds",
            "Wall time of the steps of the last refresh.",
            {f'step="{step.name}"': step.seconds for step in run.steps},
        ),
    ]
    if run.live is not None:
        live = run.live
        gauges += [
            Gauge(
                "live_as_of_timestamp_seconds", "Newest interaction of the live version.", {"": live.as_of.timestamp()}
            ),
            Gauge("live_created_timestamp_seconds", "When it was trained.", {"": live.created_at.timestamp()}),
            Gauge(
                "live_metric",
                "Its ranking metrics.",
                {f'metric="{metric}"': value for metric, value in live.metrics.items()},
            ),
        ]
    write_textfile(path, "refresh", run.model, gauges)

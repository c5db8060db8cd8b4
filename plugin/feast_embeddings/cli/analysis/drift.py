"""`drift`: whether it is time to train again, for a person and for schedulers."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from feast_embeddings.cli.options import (
    json_option,
    max_age_option,
    model_option,
    one_model,
    open_store,
    print_json,
    repo_option,
    textfile_option,
)
from feast_embeddings.cli.output_file import Gauge, output_path, write_textfile
from feast_embeddings.errors import EmbeddingsError
from feast_embeddings.repo import Repo

if TYPE_CHECKING:
    from feast_embeddings.analysis.drift import Drift, Measure

DRIFTED = 3
_SHARE = click.FloatRange(0, 1)
_FORMS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"]


def _limit(
    name: str, default: float, help: str, metavar: str = "SHARE", type: click.ParamType[float] = _SHARE
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option of a limit."""
    return click.option(name, default=default, show_default=True, type=type, metavar=metavar, help=help)


@click.command()
@click.option(
    "--interactions",
    multiple=True,
    metavar="FILE",
    help="New interactions, in the form of the log of the training; again for more. By default those recorded since.",
)
@click.option(
    "--since",
    type=click.DateTime(_FORMS),
    metavar="TIME",
    help="Interactions from TIME on are new (UTC without an offset).  [default: later than the training's newest]",
)
@max_age_option
@_limit("--max-unknown-users", 0.3, "Of new interactions, by users that the live version does not know.")
@_limit("--max-unknown-items", 0.1, "The same with items.")
@_limit("--max-later", 0.2, "Of live users, and of live items, that came after the training.")
@_limit("--min-neighbour-overlap", 0.7, "Of an item's 10 nearest after the training that are still its nearest.")
@_limit(
    "--min-recall-ratio",
    0.8,
    "recall@20 on new interactions ÷ that on the version's holdout; its 95 % interval must reach this.",
    "RATIO",
    click.FloatRange(0),
)
@_limit(
    "--max-popularity-shift",
    0.5,
    "Jensen-Shannon distance of items' popularity now and in training.",
    "DISTANCE",
)
@click.option(
    "--sample", default=1000, show_default=True, type=click.IntRange(min=1), help="Users and items to rank for."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, metavar="INT")
@textfile_option
@json_option
@model_option
@repo_option
def drift(
    interactions: tuple[str, ...],
    since: datetime | None,
    max_age: float,
    sample: int,
    seed: int,
    textfile: str | None,
    as_json: bool,
    model: str | None,
    repo: str,
    **limits: float,
) -> None:
    """Measure whether the live version still fits what users do, and say if to train again.

    A measure beyond its limit is marked with an exclamation mark. Without new interactions only the age counts. Exit
    codes: 0 all within their limits; 1 failed; 2 bad input; 3 train again.
    """
    target = None if textfile is None else output_path("--textfile", textfile, ".prom")
    name = one_model(Repo.open(repo), model)
    code, found = 1, None
    try:
        found = _measured(repo, name, interactions, since, timedelta(days=max_age), limits, sample, seed)
        code = DRIFTED if found.beyond else 0
        _tell_services(repo, name, found)
    except EmbeddingsError as error:
        code = error.exit_code
        raise
    finally:
        if target is not None:
            _write_metrics(target, name, code, found)
    if as_json:
        print_json({"model": name, **dataclasses.asdict(found), "train_again": bool(found.beyond)})
    else:
        _print(name, found)
    sys.exit(code)


def _measured(
    repo: str,
    model: str,
    files: tuple[str, ...],
    since: datetime | None,
    max_age: timedelta,
    limits: dict[str, float],
    sample: int,
    seed: int,
) -> Drift:
    store = open_store(repo, model)

    from feast_embeddings.analysis.drift import Limits, measure_drift, read_interactions, recorded_interactions
    from feast_embeddings.artifact import load_artifact
    from feast_embeddings.events import event_log_of
    from feast_embeddings.reading import located

    opened, live = Repo.open(repo), store.live()
    artifact = load_artifact(opened.data, model, live.spec.version)
    if since is not None and since.tzinfo is None:
        since = since.replace(tzinfo=UTC)
    if files:
        new = read_interactions([located(file, repo=opened.path) for file in files], artifact, since)
    else:
        new = recorded_interactions(event_log_of(opened.data, model), artifact, since)
    return measure_drift(live, artifact, new, Limits(max_age, **limits), sample=sample, seed=seed)


def _tell_services(repo: str, model: str, found: Drift) -> None:
    """Leave the numbers where the services of the repo find them."""
    from feast_embeddings.events import MeasuredDrift, measured_drift_of

    measures = [
        {field: getattr(each, field) for field in ("name", "value", "limit", "beyond")} for each in found.measures
    ]
    drift = MeasuredDrift(found.version, datetime.now(UTC), found.n_interactions, measures)
    try:
        measured_drift_of(Repo.open(repo).data, model).write(drift)
    except EmbeddingsError as error:  # such as a disk that is read-only: the answer is as good without
        click.echo(f"warning: /metrics does not have this drift: {error}", err=True)


def _print(model: str, found: Drift) -> None:
    since = "" if found.since is None else f" since {found.since.isoformat()}"
    click.echo(f"{model} {found.version}: {_counted(found.n_interactions, 'new interaction')}{since}")
    for count, what, more in ((found.n_older, "older one", ""), (found.n_bad, "row", " that cannot be used")):
        if count:
            click.echo(f"{_counted(count, what)}{more} left out")
    for measure in found.measures:
        click.echo(_line(measure, found))
    if not found.n_interactions:
        click.echo("there are no new interactions, so only the age counts")
    reasons = ", ".join(measure.name for measure in found.beyond)
    click.echo(f"train again: {reasons}" if reasons else "no reason to train again")


def _line(measure: Measure, found: Drift) -> str:
    value = "not known" if measure.value is None else f"{measure.value:.3f}"
    notes = []
    if measure.low is not None:
        notes.append(f"95 % interval {measure.low:.3f} to {measure.high:.3f}, {_counted(found.n_users, 'user')}")
    if measure.name in found.holdout:
        notes.append(f"{found.holdout[measure.name]:.3f} on its holdout")
    if measure.name.startswith("unknown_") and found.n_interactions:
        new_ids = found.n_new_ids["user" if measure.name == "unknown_users" else "item"]
        notes.append(_counted(new_ids, "id"))
    if measure.name == "neighbour_overlap":
        notes.append(_counted(found.n_items, "item"))
    limit = "" if measure.limit is None else f"at {measure.bound} {measure.limit:g}"
    mark = "!" if measure.beyond else " "
    return f"{mark} {measure.name:<26} {value:>9}  {limit:<13} {'; '.join(notes)}".rstrip()


def _counted(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _write_metrics(path: Path, model: str, code: int, found: Drift | None) -> None:
    gauges = [
        Gauge("exit_code", "Exit code of the last drift; 3 says to train again.", {"": float(code)}),
        Gauge("timestamp_seconds", "When the last drift ended.", {"": time.time()}),
    ]
    if found is not None:

        def of(field: str) -> dict[str, float]:
            values: dict[str, Any] = {f'name="{each.name}"': getattr(each, field) for each in found.measures}
            return {label: float(value) for label, value in values.items() if value is not None}

        gauges += [
            Gauge("interactions", "New interactions.", {"": float(found.n_interactions)}),
            Gauge("measure", "What was measured.", of("value")),
            Gauge("limit", "The most or the least that a measure may be.", of("limit")),
            Gauge("beyond", "1 for a measure beyond its limit.", of("beyond")),
        ]
    write_textfile(path, "drift", model, gauges)

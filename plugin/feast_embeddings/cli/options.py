"""Options that commands share, and the printing of JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from feast_embeddings.errors import InputError
from feast_embeddings.repo import Repo

if TYPE_CHECKING:
    from feast_embeddings.query.store import EmbeddingStore

__all__ = [
    "filter_option",
    "gate_options",
    "json_option",
    "k_option",
    "keep_option",
    "max_age_option",
    "model_option",
    "one_model",
    "open_store",
    "print_json",
    "repo_option",
    "textfile_option",
]

repo_option = click.option("--repo", default=".", show_default=True, metavar="DIR", help="The Feast repo.")
model_option = click.option("--model", metavar="NAME", help="The model; optional if there is only one.")
k_option = click.option("-k", default=10, show_default=True, type=click.IntRange(min=1), help="How many.")
filter_option = click.option(
    "--filter", metavar="CONDITION", help="Condition on attributes, e.g. \"category = 'Books' AND price < 20\"."
)
keep_option = click.option(
    "--keep",
    type=click.IntRange(min=0),
    default=2,
    show_default=True,
    help="How many versions to keep in addition to the live one.",
)
max_age_option = click.option(
    "--max-age",
    default=30.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    metavar="DAYS",
    help="Oldest acceptable age of the newest interaction behind the live version, in days.",
)
textfile_option = click.option(
    "--textfile", metavar="FILE", help="Write metrics to this .prom file, for Prometheus' node exporter."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")

Command = Callable[..., Any]

_GATES = (
    click.option(
        "--allow-worse", is_flag=True, help="Publish even if its ranking metric is lower than the live version's."
    ),
    click.option("--allow-shrink", is_flag=True, help="Publish even if it has fewer users or items."),
    click.option(
        "--allow-new-space", is_flag=True, help="Publish even if its vectors cannot be compared with the live ones."
    ),
    click.option("--allow-future", is_flag=True, help="Publish even if its data is dated in the future."),
    click.option(
        "--allow-probe-drop", is_flag=True, help="Publish even if a probe scores worse than on the live vectors."
    ),
    click.option(
        "--max-metric-drop",
        type=click.FloatRange(0, 1),
        default=0.05,
        show_default=True,
        help="Largest relative drop of the ranking metric that still passes.",
    ),
    click.option(
        "--max-probe-drop",
        type=click.FloatRange(0, 1),
        default=0.05,
        show_default=True,
        help="Largest relative drop of a probe's score above chance that still passes.",
    ),
    click.option(
        "--max-shrink",
        type=click.FloatRange(0, 1),
        default=0.10,
        show_default=True,
        help="Largest relative loss of users or items that still passes.",
    ),
)


def gate_options(command: Command) -> Command:
    """Give a command the options of the gates; it gets them by the names of `feast_embeddings.publish.gates.Gates`."""
    for option in reversed(_GATES):
        command = option(command)
    return command


def one_model(repo: Repo, model: str | None) -> str:
    """Return the named model, or the repo's only one.

    Raises:
        InputError: the name is invalid, or none is given and the repo does not have exactly one model.
    """
    from feast_embeddings.artifact import trained_models, validate_model_name

    if model is not None:
        return validate_model_name(model)
    models = trained_models(repo.data)
    if len(models) != 1:
        raise InputError(
            f"name a model with --model; {repo.path} has {', '.join(models) or 'none yet: run train first'}"
        )
    return models[0]


def open_store(path: str, model: str | None) -> EmbeddingStore:
    """Open the query interface of a repo's model."""
    from feast_embeddings.query.store import EmbeddingStore

    repo = Repo.open(path)
    return EmbeddingStore(repo.feature_store(), one_model(repo, model))


def print_json(value: Any) -> None:
    """Print one JSON document; times in ISO 8601, null for NaN and infinity, which JSON does not have."""
    from pydantic_core import to_jsonable_python

    plain = to_jsonable_python(value, inf_nan_mode="null", fallback=str)
    click.echo(json.dumps(plain, ensure_ascii=False, allow_nan=False))

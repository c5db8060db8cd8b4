"""The options that say which trainer a command uses, and how."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embedding_trainers import AUTO
from embedding_trainers.commands.config_file import read_config
from embedding_trainers.commands.settings import is_given, train_option
from embedding_trainers.commands.value_types import Pair
from feast_embeddings.errors import InputError

if TYPE_CHECKING:
    from embedding_trainers.trainer import Device, RunOptions

__all__ = ["TrainerChoice", "run_options", "trainer_options"]


@dataclass(frozen=True)
class TrainerChoice:
    """A trainer by name, the hyper-parameters that differ from its defaults, and the options of the run."""

    name: str
    parameters: dict[str, Any]
    options: RunOptions


_OPTIONS = (
    train_option("--trainer", metavar="NAME", help=f"[default: from --config, else {AUTO}]"),
    train_option(
        "--config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="TOML file with the trainer and its hyper-parameters; --factors and --param override it.",
    ),
    train_option("--factors", type=int, metavar="INT", help="Length of the vectors.  [default: the trainer's]"),
    train_option(
        "--param",
        "params",
        type=Pair("learning_rate=0.05"),
        multiple=True,
        metavar="NAME=VALUE",
        help="A hyper-parameter of the trainer; repeatable.",
    ),
)
_RUN = (
    train_option(
        "--seed",
        type=click.IntRange(0, 2**32 - 1),
        default=0,
        show_default=True,
        metavar="INT",
        help="The same seed with one thread gives the same bytes.",
    ),
    train_option(
        "--threads",
        type=click.IntRange(0),
        default=0,
        show_default="all cores",
        metavar="INT",
        help="Threads to train with; with more than one, results differ slightly between runs.",
    ),
    train_option(
        "--device",
        type=click.Choice(["auto", "cpu", "gpu"]),
        default="auto",
        show_default=True,
        help="auto takes a GPU if implicit can use one and threads is not 1.",
    ),
    click.option("--quiet", is_flag=True, help="No progress bar."),
    click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object."),
)


def run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a run, whatever the trainer; the command gets them as ``options`` and ``as_json``."""

    @functools.wraps(command)
    def with_options(seed: int, threads: int, device: Device, quiet: bool, as_json: bool, **others: Any) -> None:
        from embedding_trainers.trainer import RunOptions

        options = RunOptions(seed=seed, threads=threads, progress=not (quiet or as_json), device=device)
        command(options=options, as_json=as_json, **others)

    for option in reversed(_RUN):
        with_options = option(with_options)
    return with_options


def trainer_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options to a command, which gets them as the arguments ``choice`` and ``as_json``."""

    @functools.wraps(command)
    def with_choice(
        trainer: str | None,
        config: Path | None,
        factors: int | None,
        params: tuple[tuple[str, Any], ...],
        options: RunOptions,
        **others: Any,
    ) -> None:
        context = click.get_current_context()
        here = {name for name in ("trainer", "config", "factors", "params") if is_given(context, name)}
        parameters = read_config(config) if config else {}
        of_config = parameters.pop("trainer", None)
        if "trainer" in here and of_config and trainer != of_config:
            raise InputError(f"--trainer {trainer}: {config} is for {of_config!r}; leave out one of them")
        name = of_config or trainer or AUTO
        # The settings file and --like, then --config, then --factors and --param.
        below = dict((context.default_map or {}).get("params", ())) if "params" in here else {}
        if factors is not None and "factors" not in here:
            below, factors = {"factors": factors, **below}, None
        parameters = below | parameters | _parameters(factors, params)
        command(choice=TrainerChoice(name, _nested(parameters), options), **others)

    with_run = run_options(with_choice)
    for option in reversed(_OPTIONS):
        with_run = option(with_run)
    return with_run


def _parameters(factors: int | None, params: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    parameters: dict[str, Any] = {} if factors is None else {"factors": factors}
    for name, value in params:
        if name in parameters:
            raise InputError(f"the parameter {name!r} is given twice")
        parameters[name] = value
    return parameters


def _nested(parameters: dict[str, Any]) -> dict[str, Any]:
    """A name with dots, such as ``settings.als.alpha``, is a value within a parameter, as in TOML."""
    nested: dict[str, Any] = {}
    # Whole tables first, as a value of one goes before what they say.
    for name, value in sorted(parameters.items(), key=lambda item: item[0].count(".")):
        *tables, last = name.split(".")
        inner = nested
        for table in tables:
            below = inner.get(table, {})
            if not isinstance(below, dict):
                raise InputError(f"parameter {name!r}: {table!r} is a value already, {below!r}")
            inner[table] = below = dict(below)
            inner = below
        inner[last] = value
    return nested

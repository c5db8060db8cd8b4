"""The options that say which trainer a command uses, and how."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from feast_embeddings.errors import InputError

if TYPE_CHECKING:
    from embedding_trainers.trainer import Device, RunOptions

__all__ = ["DEFAULT_TRAINER", "TrainerChoice", "read_config", "trainer_options"]


@dataclass(frozen=True)
class TrainerChoice:
    """A trainer by name, the hyper-parameters that differ from its defaults, and the options of the run."""

    name: str
    parameters: dict[str, Any]
    options: RunOptions


DEFAULT_TRAINER = "bpr"

_OPTIONS = (
    click.option("--trainer", metavar="NAME", help=f"[default: from --config, else {DEFAULT_TRAINER}]"),
    click.option(
        "--config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="TOML file with the trainer and its hyper-parameters; --factors and --param override it.",
    ),
    click.option("--factors", type=int, metavar="INT", help="Length of the vectors.  [default: the trainer's]"),
    click.option(
        "--param",
        "params",
        multiple=True,
        metavar="NAME=VALUE",
        help="A hyper-parameter of the trainer; repeatable.",
    ),
    click.option(
        "--seed",
        type=click.IntRange(0, 2**32 - 1),
        default=0,
        show_default=True,
        metavar="INT",
        help="The same seed with one thread gives the same bytes.",
    ),
    click.option(
        "--threads",
        type=click.IntRange(0),
        default=0,
        show_default="all cores",
        metavar="INT",
        help="Threads to train with; with more than one, results differ slightly between runs.",
    ),
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "gpu"]),
        default="auto",
        show_default=True,
        help="auto takes a GPU if implicit can use one and threads is not 1.",
    ),
    click.option("--quiet", is_flag=True, help="No progress bar."),
    click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object."),
)


def trainer_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options to a command, which gets them as the arguments ``choice`` and ``as_json``."""

    @functools.wraps(command)
    def with_choice(
        trainer: str | None,
        config: Path | None,
        factors: int | None,
        params: tuple[str, ...],
        seed: int,
        threads: int,
        device: Device,
        quiet: bool,
        as_json: bool,
        **others: Any,
    ) -> None:
        from embedding_trainers.trainer import RunOptions

        options = RunOptions(seed=seed, threads=threads, progress=not (quiet or as_json), device=device)
        parameters = read_config(config) if config else {}
        of_config = parameters.pop("trainer", None)
        if trainer and of_config and trainer != of_config:
            raise InputError(f"--trainer {trainer}: {config} is for {of_config!r}; leave out one of them")
        name = trainer or of_config or DEFAULT_TRAINER
        parameters |= _parameters(factors, params)
        command(choice=TrainerChoice(name, parameters, options), as_json=as_json, **others)

    for option in reversed(_OPTIONS):
        with_choice = option(with_choice)
    return with_choice


def read_config(path: Path) -> dict[str, Any]:
    """Hyper-parameters by name from a TOML file, and the name of their trainer as ``trainer`` if it is there.

    Raises:
        InputError: the file cannot be read, is not TOML, or has tables in it.
    """
    try:
        parameters = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"--config {path}: {error.strerror or error}") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise InputError(f"--config {path} is not TOML: {error}") from None
    for name, value in parameters.items():
        if isinstance(value, dict):
            raise InputError(f"--config {path}: expected lines NAME = VALUE, but [{name}] starts a table")
    if not isinstance(parameters.get("trainer", ""), str):
        raise InputError(f"--config {path}: trainer must be a name in quotes, not {parameters['trainer']!r}")
    return parameters


def _parameters(factors: int | None, params: tuple[str, ...]) -> dict[str, Any]:
    parameters: dict[str, Any] = {} if factors is None else {"factors": factors}
    for param in params:
        name, equals, value = param.partition("=")
        if not equals or not name:
            raise InputError(f"--param {param!r}: expected NAME=VALUE, e.g. learning_rate=0.05")
        if name in parameters:
            raise InputError(f"the parameter {name!r} is given twice")
        parameters[name] = value
    return parameters

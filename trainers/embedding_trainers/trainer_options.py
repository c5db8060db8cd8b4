"""The options that say which trainer a command uses, and how."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from feast_embeddings.errors import InputError

if TYPE_CHECKING:
    from embedding_trainers.trainer import Device, RunOptions

__all__ = ["TrainerChoice", "trainer_options"]


@dataclass(frozen=True)
class TrainerChoice:
    """A trainer by name, the hyper-parameters that differ from its defaults, and the options of the run."""

    name: str
    parameters: dict[str, Any]
    options: RunOptions


_OPTIONS = (
    click.option("--trainer", default="bpr", show_default=True, metavar="NAME"),
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
        help="More than one: runs differ slightly, as threads race.",
    ),
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "gpu"]),
        default="auto",
        show_default=True,
        help="auto takes a GPU if implicit can use one.",
    ),
    click.option("--quiet", is_flag=True, help="No progress bar."),
    click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object."),
)


def trainer_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options to a command, which gets them as the arguments ``choice`` and ``as_json``."""

    @functools.wraps(command)
    def with_choice(
        trainer: str,
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
        command(choice=TrainerChoice(trainer, _parameters(factors, params), options), as_json=as_json, **others)

    for option in reversed(_OPTIONS):
        with_choice = option(with_choice)
    return with_choice


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

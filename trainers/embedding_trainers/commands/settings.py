"""Where a command's settings come from: the command line, then ``--like``, then embeddings.toml, then the defaults.

All but the command line is put together before click reads the arguments, as click's `default_map`: so a value from a
file goes through the same option as one that was typed.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import click

from feast_embeddings.cli.version_words import VERSION, version_named
from feast_embeddings.errors import InputError

__all__ = [
    "LIKE",
    "ConfiguredCommand",
    "Setting",
    "is_given",
    "log_option",
    "model_named",
    "refuse_typed",
    "train_option",
]

# An option that is given higher up replaces these of the levels below: they were meant for its other value.
_REPLACES = {
    "interactions": ("query",),
    "trainer": ("params",),
    "config": ("params",),
    "align_to": ("no_align",),
    "no_align": ("align_to",),
}


class Setting(click.Option):
    """An option that may also be in embeddings.toml.

    Attributes:
        section: where it is there.
    """

    section: ClassVar[str]

    @property
    def key(self) -> str:
        """Its name there: ``user_column`` for ``--user-column``."""
        return self.opts[0].lstrip("-").replace("-", "_")


class _LogSetting(Setting):
    section = "log"


class _TrainSetting(Setting):
    section = "train"


log_option = functools.partial(click.option, cls=_LogSetting)
train_option = functools.partial(click.option, cls=_TrainSetting)

LIKE = click.option(
    "--like",
    type=VERSION,
    expose_value=False,
    help="Take columns, filters, weights, trainer, hyper-parameters and seed from this version. An option of the "
    "command line goes before --like, --like before embeddings.toml, and that before the defaults.",
)


class ConfiguredCommand(click.Command):
    """A command whose options may also come from a version and from the repo's embeddings.toml."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Look up what was not typed, then parse."""
        typed, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        # What was not typed is missing, or not of these types.
        given = {name: value for name, value in typed.items() if isinstance(value, str | list | bool)}
        asks_help = (option := self.get_help_option(ctx)) is not None and option.name in given
        if not asks_help and not ctx.resilient_parsing:
            ctx.default_map = self._below(given)
        return super().parse_args(ctx, args)

    def _below(self, given: Mapping[str, Any]) -> dict[str, Any]:
        from embedding_trainers.commands.settings_file import read_settings
        from feast_embeddings.artifact import trained_models

        repo, model = Path(given.get("repo", ".")), given.get("model")
        if model is None and len(models := trained_models(repo / "data")) == 1:
            model = models[0]
        merged: dict[str, Any] = {}
        for section in read_settings(repo, model, _sections()):
            _replace(merged, section)
            params = {**dict(merged.get("params", ())), **dict(section.get("params", ()))}
            merged |= section | ({"params": tuple(params.items())} if params else {})
        if (word := given.get("like")) is not None:
            merged |= _like(repo, model, word)
        _replace(merged, given)
        mine = {param.name for param in self.params if isinstance(param, Setting | click.Argument)}
        return {name: value for name, value in merged.items() if name in mine and value is not None}


def is_given(context: click.Context, name: str) -> bool:
    """Return whether an option was typed."""
    return context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def refuse_typed(names: Iterable[str], why: str) -> None:
    """Refuse options that were typed and would have no effect.

    Raises:
        InputError: one was.
    """
    context = click.get_current_context()
    options = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    for name in names:
        if is_given(context, name):
            raise InputError(f"{options[name]} {why}")


def _sections() -> dict[str, dict[str, Setting]]:
    """Each section's options by key, from `train`, which has all that any command has."""
    from embedding_trainers.commands.train import train

    sections: dict[str, dict[str, Setting]] = {"log": {}, "train": {}}
    for option in train.params:
        if isinstance(option, Setting):
            sections[option.section][option.key] = option
    return sections


def _replace(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    for name, replaced in _REPLACES.items():
        # Hyper-parameters next to no trainer are for the one that is named elsewhere.
        default = above.get(name) if name == "trainer" else None
        if above.get(name) and above[name] != below.get(name, default):
            for other in replaced:
                below.pop(other, None)


def model_named(repo: Path, model: str | None) -> str:
    """Return the model of an option, or the repo's only one; see `one_model`."""
    from feast_embeddings.cli.options import one_model
    from feast_embeddings.repo import Repo

    return one_model(Repo.open(repo), model)


def _like(repo: Path, model: str | None, word: str) -> dict[str, Any]:
    from embedding_trainers.commands.like import settings_of
    from feast_embeddings.artifact import load_artifact

    name = model_named(repo, model)
    return settings_of(load_artifact(repo / "data", name, version_named(repo, name, word)))

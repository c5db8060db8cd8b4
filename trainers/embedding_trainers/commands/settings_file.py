"""embeddings.toml: the options of a repo's logs and trainings, for every command that has them.

::

    [log]                       # the options of an interaction log, as `--user-column` and so on
    user_column = "customer_no"

    [train]                     # the other options of `train`
    trainer = "als"

    [models.shop.train]         # of one model only; `log` likewise
    factors = 32

Nothing is known here of the options: the command line's options check keys, types and values.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, time
from pathlib import Path
from typing import Any

import click

from embedding_trainers.commands.config_file import read_config
from embedding_trainers.commands.settings import Setting
from embedding_trainers.commands.value_types import FileValue
from feast_embeddings.errors import InputError
from feast_embeddings.reading import Location

__all__ = ["FILE_NAME", "read_settings"]

FILE_NAME = "embeddings.toml"
_MODELS = "models"
_SECRET = re.compile("password|secret|token", re.IGNORECASE)
_KINDS: tuple[tuple[type[click.ParamType[Any]], tuple[type, ...], str], ...] = (
    (click.types.BoolParamType, (bool,), "true or false"),
    (click.types.IntParamType, (int,), "a whole number"),
    (click.types.FloatParamType, (int, float), "a number"),
)

Sections = Mapping[str, Mapping[str, Setting]]


def read_settings(repo: Path, model: str | None, sections: Sections) -> list[dict[str, Any]]:
    """Read the sections for a model; the whole file is checked.

    Args:
        repo: the folder of the file; without a file there are no sections.
        model: whose own sections come in addition; None for no model.
        sections: the options that a section may have, by key.

    Returns:
        The values by parameter name, of each section; a later section goes before an earlier one.

    Raises:
        InputError: the file cannot be read, is not TOML, or has a section, a key or a value that no option takes.
    """
    path = repo / FILE_NAME
    try:
        content = tomllib.loads(path.read_text("utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):  # the command says that a folder is no repo
        return []
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise InputError(f"{path} is not TOML: {error}") from None
    models = content.pop(_MODELS, {})
    found = list(_checked(path, "", content, sections))
    for name, own in _table(path, _MODELS, models, "a table of models, [models.NAME.log]").items():
        prefix = f"{_MODELS}.{name}."
        own = _table(path, f"{_MODELS}.{name}", own, f"the tables [{prefix}log] and [{prefix}train]")
        checked = list(_checked(path, prefix, own, sections))
        if name == model:
            found += checked
    return found


def _checked(path: Path, prefix: str, content: Mapping[str, Any], sections: Sections) -> Iterator[dict[str, Any]]:
    """The values of each section; all sections are checked as one, so that a wrong one is an error wherever it is."""
    for name, section in content.items():
        if name in sections:
            _table(path, prefix + name, section, "a table")
        elif homes := [home for home, options in sections.items() if name in options]:
            raise InputError(f"{path}: {name!r} is outside of its section; write it below [{prefix}{homes[0]}]")
        else:
            known = [*sections, *([] if prefix else [_MODELS])]
            there = ", ".join(f"[{prefix}{section}]" for section in sections)
            more = "" if prefix else ", and [models.NAME.log] and [models.NAME.train] for one model"
            raise InputError(f"{path}: no section [{prefix}{name}]; there are {there}{more}{_guess(name, known)}")
    for name in sections:
        if name in content:
            yield _section(path, f"[{prefix}{name}]", content[name], name, sections)


def _section(path: Path, where: str, content: Mapping[str, Any], name: str, sections: Sections) -> dict[str, Any]:
    options = sections[name]
    values: dict[str, Any] = {}
    for key, value in content.items():
        if key not in options:
            other = next((other for other, its in sections.items() if key in its), None)
            if other is not None:
                raise InputError(f"{path}: {where} has no key {key!r}; it belongs in {where[: -len(name) - 1]}{other}]")
            raise InputError(
                f"{path}: {where} has no key {key!r}; there are {', '.join(options)}{_guess(key, options)}"
            )
        option = options[key]
        values[str(option.name)] = _value(path, f"{path}: {where} {key}", option, value)
    if "factors" in dict(values.get("params", ())):
        raise InputError(f"{path}: {where} param: write factors as a key of {where}")
    if config := values.pop("config", None):
        values = _with_config(f"{path}: {where}", config, values)
    return values


def _value(path: Path, where: str, option: Setting, value: Any) -> Any:
    _refuse_secrets(where, option, value)  # before an error could show it
    kinds, expected = _expected(option)
    right = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
    if isinstance(value, list):
        right = right and all(isinstance(text, str) for text in value)
    if not right:
        raise InputError(f"{where}: expected {expected}, got {_shown(value)}")
    if isinstance(option.type, click.Path):
        if not value or "\0" in value:
            raise InputError(f"{where}: expected the name of a file, got {_shown(value)}")
        value = Location(value).relative_to(path.parent)
    if isinstance(option.type, FileValue):
        value = option.type.located(value, path.parent)
    if option.multiple and isinstance(value, Mapping):
        value = list(value.items())
    try:
        return option.type_cast_value(click.Context(click.Command("settings")), value)
    except click.BadParameter as error:
        raise InputError(f"{where}: {error.message}") from None
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _expected(option: Setting) -> tuple[tuple[type, ...], str]:
    """The types of TOML that an option takes, and in words."""
    if isinstance(option.type, FileValue):
        text = (list,) if option.multiple else (str,)
        return (*text, *option.type.in_file), option.type.expected
    for kind, types, words in _KINDS:
        if isinstance(option.type, kind):
            return types, words
    if isinstance(option.type, click.Choice):
        return (str,), "one of " + ", ".join(f'"{choice}"' for choice in option.type.choices)
    return (str,), "text in quotes"


def _shown(value: Any) -> str:
    """A value as TOML has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list):
        return "a list"
    return str(value) if isinstance(value, date | time) else repr(value)


def _refuse_secrets(where: str, option: Setting, value: Any) -> None:
    pairs = value.items() if isinstance(value, Mapping) else ()
    texts: list[Any] = value if isinstance(value, list) else [value, *(content for _, content in pairs)]
    named = next((name for name, _ in pairs if _SECRET.search(name)), None)
    # A query may compare a column with the name of a secret.
    is_address = option.key != "query" and any(Location(text).has_password for text in texts if isinstance(text, str))
    if is_address or (option.multiple and named is not None):
        raise InputError(
            f"{where}: the file is no place for a password; set a variable of the environment, and write ${{NAME}} "
            "where the password was"
            if is_address
            else f"{where}: {named} is a secret, and the file is no place for one; give it on the command line"
        )


def _with_config(where: str, config: Path, values: dict[str, Any]) -> dict[str, Any]:
    """Put the content of a file of hyper-parameters below the values next to its name."""
    try:
        parameters = read_config(config)
    except InputError as error:
        raise InputError(f"{where} {error}") from None
    trainer = parameters.pop("trainer", None)
    if trainer and values.get("trainer", trainer) != trainer:
        raise InputError(f"{where} trainer is {values['trainer']!r}, but {config} is for {trainer!r}; leave out one")
    below = {"trainer": trainer, "factors": parameters.pop("factors", None)}
    params = parameters | dict(values.get("params", ()))
    return (
        {key: value for key, value in below.items() if value is not None} | values | {"params": tuple(params.items())}
    )


def _table(path: Path, name: str, value: Any, expected: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{path}: {name} must be {expected}, not {_shown(value)}")
    return value


def _guess(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name.replace("-", "_"), list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""

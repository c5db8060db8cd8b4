"""The list of the commands, which is made without importing them."""

from __future__ import annotations

import re
import sys
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import click
import pytest
from click import Context
from tests.conftest import Command

from feast_embeddings.cli import main


@click.command()
def colours() -> None:
    """Name a colour."""
    click.echo("blue")


@pytest.mark.parametrize("name", main.list_commands(Context(main)))
def test_the_list_says_of_a_command_what_its_own_help_begins_with(name: str) -> None:
    """In full, and as cut for a narrow terminal."""
    listed = main.get_command(Context(main), name)
    assert listed is not None
    own = listed.make_context(name, [], resilient_parsing=True).command

    assert own is not listed
    assert own.name == name
    assert [listed.get_short_help_str(limit) for limit in (1000, 45)] == [
        own.get_short_help_str(limit) for limit in (1000, 45)
    ]


def test_commands_of_packages_that_are_not_installed(monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    """They are not shown, and unknown."""
    monkeypatch.setattr("feast_embeddings.cli.commands._of_packages", dict)
    shown = [line.split()[0] for line in command("--help").out.partition("Commands:")[2].splitlines() if line]
    assert shown == [
        name
        for name in main.list_commands(Context(main))
        if name not in {"profile", "train", "evaluate", "compare", "import"}
    ]
    assert (answer := command("train")).code == 2
    assert answer.err == "error: No such command 'train'.\n"


def test_a_command_of_another_package(monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    """It comes last, with the first line of its help, and runs."""
    point = EntryPoint("colours", f"{__name__}:colours", "feast_embeddings.commands")
    monkeypatch.setitem(sys.modules, __name__, SimpleNamespace(colours=colours))
    monkeypatch.setattr("feast_embeddings.cli.commands._of_packages", lambda: {"colours": point})

    assert command("--help").out.splitlines()[-1].split() == ["colours", "Name", "a", "colour."]
    assert command("colours").out == "blue\n"


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("not_installed:go", "not_installed:go cannot be imported (No module named 'not_installed'): "),
        ("json:gone", "json:gone cannot be imported (module 'json' has no attribute 'gone'): "),
        ("json:dumps", "json:dumps is no click command: "),
    ],
)
def test_a_broken_command_of_another_package(
    value: str, error: str, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    """The list has it, and all others; called, it says what is wrong."""
    point = EntryPoint("broken", value, "feast_embeddings.commands")
    monkeypatch.setattr("feast_embeddings.cli.commands._of_packages", lambda: {"broken": point})

    listed = command("--help")
    assert (listed.code, listed.err) == (0, "")
    assert re.search(r"^  doctor ", listed.out, re.MULTILINE)
    assert listed.out.splitlines()[-1].split()[:3] == ["broken", "Broken:", value]
    called = command("broken", "--help")
    assert (called.code, called.out) == (1, "")
    assert called.err.startswith(f"error: {error}")

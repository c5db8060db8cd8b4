"""The names and first lines of all commands, for a list of them that imports none."""

from __future__ import annotations

import functools
import importlib
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

import click

from feast_embeddings.errors import EmbeddingsError

__all__ = ["Commands"]

# Command -> module below `cli` that defines it (and the function there, if it has another name), and the first sentence
# of its help; in the order in which a new user meets them.
_COMMANDS = {
    "quickstart": ("quickstart", "Run every step on a generated shop, in DIRECTORY (default: ./quickstart)."),
    "init": ("init", "Make a new Feast repo in DIRECTORY, ready for train."),
    # These five come with the trainers, by entry point.
    "profile": ("", "Describe LOG before training on it, and suggest options."),
    "train": ("", "Train embeddings of users and items from an interaction log."),
    "evaluate": ("", "Measure how well a trainer, or an existing version, predicts interactions."),
    "compare": ("", "Compare trainers, or existing versions, on the same test users."),
    "import": ("", "Make a version of vectors that were made elsewhere, of users, of items, or of both."),
    "refresh": ("refresh", "Train if there is something new, publish if the gates pass, prune, and check."),
    "drift": (
        "analysis.drift",
        "Measure whether the live version still fits what users do, and say if to train again.",
    ),
    "publish": ("versions", "Make a trained version live in Qdrant, users and items in one step."),
    "pull": ("versions", "Copy a version from the artifact store onto this disk, for example on a new machine."),
    "versions": ("versions", "List the versions of a model, or of all: live, kept in Qdrant, and on disk."),
    "diff": (
        "diff",
        "Compare version V2 of a model with V1: what was added and removed, and how far vectors and lists moved.",
    ),
    "rollback": ("versions", "Make an older version live again; instant if Qdrant still holds it."),
    "prune": ("versions", "Delete old versions from Qdrant; never the live one."),
    "similar-items": ("asking.query", "Items nearest to ITEM_IDS by cosine."),
    "similar-users": ("asking.query", "Users nearest to USER_ID by cosine."),
    "rank": ("asking.query", "Items with the highest score for USER_ID."),
    "search": ("asking.query", "Items for TEXT: by its words, by what it says as content, and for a user."),
    "visitor": (
        "asking.audience",
        "Items with the highest score for a visitor without an id, who interacted with ITEM_IDS.",
    ),
    "users-for-item": ("asking.audience", "Users with the highest score for ITEM_ID."),
    "audience": (
        "asking.audience",
        "Users most like the given ones: nearest by cosine to their mean direction, without them.",
    ),
    "list": (
        "asking.audience:list_members",
        "Users or items that pass a condition, with their attributes, in no order.",
    ),
    "user-embedding": ("asking.query", "Vectors of USER_IDS, as JSON."),
    "item-embedding": ("asking.query", "Vectors of ITEM_IDS, as JSON."),
    "inspect": (
        "analysis.inspect",
        "Say whether the vector of ID can be trusted: its length, neighbours, popularity, age and origin.",
    ),
    "segments": (
        "analysis.segments",
        "Divide the live users or items into segments by the direction of their vectors.",
    ),
    "cohorts": (
        "analysis.cohorts",
        "Compare groups of the live users or items: how far apart their vectors are, and what sets them apart.",
    ),
    "map": ("analysis.map", "Draw the live users or items as a map, on which like vectors are near."),
    "explain": ("analysis.explain", "Say why ID and OTHER_ID are near, or which of a user's items speak for an item."),
    "export": ("asking.export", "Write all live vectors of users or items, with their attributes, to a Parquet file."),
    "training-frame": ("frame", "Join the embeddings that existed at its time to each row of a file."),
    "fold-in": ("fold_in", "Compute vectors for users or items that are newer than the training."),
    "events": (
        "changes.events",
        "Write the recorded interactions to a Parquet file, with the columns of the log that the model was trained on.",
    ),
    "follow": (
        "changes.follow",
        "Record interactions from files that appear in a folder, a Kafka topic, or a table of PostgreSQL.",
    ),
    "set-attributes": (
        "changes.set_attributes",
        "Set attributes of live users and items, such as price and stock, without a training.",
    ),
    "hide": (
        "changes.hide",
        "Leave users and items out of all answers until `unhide`, such as items out of sale.",
    ),
    "unhide": ("changes.hide", "Show users and items again that are hidden."),
    "forget": (
        "changes.forget",
        "Remove users and items from all versions, live, kept and on disk, and from the recorded interactions.",
    ),
    "backup": (
        "changes.backup",
        "Write all models of a repo, with what came after their training, to a new folder, or a file PATH.tar.",
    ),
    "restore": (
        "changes.backup",
        "Restore a backup, on the engine of this repo; the live version answers until the end.",
    ),
    "serve": ("serve", "Serve the queries over HTTP; /docs describes the API."),
    "api-key": ("serve", "Make an API key for NAME: print the key, and the line for the key file."),
    "doctor": ("doctor", "Find problems of the repo and say how to fix them."),
    "plan": ("plan", "Compute machines, memory, disk, hours and money for a model of this size, from measured costs."),
}


@functools.cache
def _of_packages() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group="feast_embeddings.commands")}


def _load(name: str) -> click.Command:
    """Import a command.

    Raises:
        EmbeddingsError: another package declares it, and it cannot be imported, or is none.
    """
    module, _ = _COMMANDS.get(name, ("", ""))
    if module:
        module, _, function = module.partition(":")
        home = importlib.import_module(f"feast_embeddings.cli.{module}")
        return cast("click.Command", getattr(home, function or name.replace("-", "_")))
    point = _of_packages()[name]
    try:
        found = point.load()
    except Exception as error:
        if isinstance(error, EmbeddingsError):
            raise
        raise EmbeddingsError(f"{point.value} cannot be imported ({error}): install its package again") from error
    if not isinstance(found, click.Command):
        raise EmbeddingsError(f"{point.value} is no click command: correct the entry point {name!r} of its package")
    return found


class _Listed(click.Command):
    """A command as a list of all shows it. What parses the arguments, and runs, is the command itself."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        return _load(str(self.name)).make_context(info_name, args, parent, **extra)


class Commands(click.Group):
    """The commands of this package, then those that other packages declare as entry points."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*_COMMANDS, *sorted(_of_packages().keys() - _COMMANDS.keys())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module, about = _COMMANDS.get(cmd_name, ("", ""))
        if not module and cmd_name not in _of_packages():
            return None
        return _Listed(cmd_name, help=about or _help_of(cmd_name))


def _help_of(name: str) -> str | None:
    """Return the help of another package's command; one that is broken must not take the list with it."""
    try:
        return _load(name).help
    except EmbeddingsError as error:
        return f"Broken: {error}"

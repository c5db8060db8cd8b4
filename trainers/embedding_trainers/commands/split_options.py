"""The options that say what a test is: which interactions are held out, and which of those count."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from embedding_trainers.commands.interaction_options import InteractionSource
from embedding_trainers.commands.settings import is_given, log_option
from embedding_trainers.commands.value_types import TIME
from feast_embeddings.errors import InputError

if TYPE_CHECKING:
    from embedding_trainers.interactions import Interactions, LogReport, Split
    from embedding_trainers.trainer import Factors
    from feast_embeddings.artifact import Artifact, Entity

__all__ = ["LOG_TO_SPLIT", "SplitChoice", "split_options"]

_PER_USER = ("last", "user")
_COLD: dict[str, Entity] = {"cold-items": "item", "cold-users": "user"}


LOG_TO_SPLIT = log_option(
    "--interactions",
    type=click.Path(),
    metavar="FILE",
    help="Log to train on: Parquet, CSV or JSON, a folder or a glob of them. A part is held out unless --test is "
    "given.",
)

_OPTIONS = (
    click.option(
        "--test",
        type=click.Path(),
        metavar="FILE",
        help="Interactions to predict; pairs seen in training are left out.",
    ),
    click.option(
        "--split",
        type=click.Choice(["auto", "time", "last", "user", *_COLD]),
        default="auto",
        show_default=True,
        help="What to hold out: the newest tenth, the newest item of each user, a fifth of each user's items; "
        "auto is time if at least 100 users return, else user. cold-items and cold-users hide a fifth of the items or "
        "users, which evaluate folds in from few interactions, and from the content of --items or --users.",
    ),
    click.option("--split-at", type=TIME, metavar="TIME", help="Hold out interactions after TIME."),
    click.option(
        "--test-events",
        metavar="TYPE,…",
        help="Test on these types of the event column only, e.g. purchase. Training has all types.",
    ),
    click.option(
        "--include-seen",
        is_flag=True,
        help="Repeats count: rank items that the user had in training too, and test on them.",
    ),
)


@dataclass(frozen=True)
class SplitChoice:
    """What to test on.

    Attributes:
        file: interactions to predict; None to hold out a part of the log.
        split, at: how to hold out a part; at most one of `file`, `at` and a `split` other than ``auto``.
        events: the types of events that count; all if empty.
        include_seen: see `Split.include_seen`.
    """

    file: str | None
    split: str
    at: datetime | None
    events: tuple[str, ...]
    include_seen: bool

    @property
    def cold(self) -> Entity | None:
        """What is hidden from training; None if interactions are."""
        return _COLD.get(self.split)

    def of_log(
        self, source: InteractionSource, seed: int, *, uses_weights: bool, reads_log: bool
    ) -> tuple[Split, dict[str, LogReport]]:
        """Read the log, and split it or read the file to test on; and say what became of the rows.

        Args:
            source: the log.
            seed: of a split at random.
            uses_weights: a trainer is to learn how large the weights are, which are then checked as in `train`.
            reads_log: a trainer is to read more than the matrix, so that the split keeps the log of its training part.

        Raises:
            InputError: there is nothing to predict, or trainers cannot compute with the weights.
        """
        from embedding_trainers.interactions import split_against
        from embedding_trainers.interactions.checks import check_weights

        if len([given for given in (self.file, self.at, self.split != "auto") if given]) > 1:
            raise InputError("name one of --test, --split and --split-at")
        if self.cold:
            raise InputError(f"--split {self.split} is for evaluate, and with neither --test-events nor --include-seen")
        if self.include_seen and self.split in _PER_USER:
            raise InputError(
                f"--include-seen: --split {self.split} holds out all interactions of a user with an item, so nothing "
                "repeats; use time, --split-at or --test"
            )
        # Of a log that is only trained on, no row is a target.
        log, became = source.read(() if self.file else self.events)
        rows = {"interactions": became}
        if self.file is None:
            parts = self._held_back(log, seed)
        else:
            later, rows["test"] = source.to_predict(self.file).read(self.events)
            parts = split_against(
                *(log.users, log.items, log.to_csr(), later, f"the interactions of {self.file}"),
                include_seen=self.include_seen,
            )
        parts = dataclasses.replace(parts, method=self.describe(parts.method))
        if parts.n_test_users == 0:
            raise InputError(f"nothing to predict in {parts.method}: left out are {parts.left_out}")
        if reads_log:
            parts = parts.with_log(log)
        if uses_weights:
            for warning in check_weights(parts.train, parts.users, parts.items):
                click.echo(f"warning: {warning}", err=True)
        return parts, rows

    def of_version(self, artifact: Artifact, log: Interactions) -> tuple[Factors, Split]:
        """Test a version; see `version_split`."""
        from embedding_trainers.evaluation.version_split import version_split

        factors, parts = version_split(artifact, log, include_seen=self.include_seen)
        return factors, dataclasses.replace(parts, method=self.describe(parts.method))

    def read(self, source: InteractionSource, artifact: Artifact) -> tuple[Interactions, LogReport]:
        """Read the file to test on, with ids of the types that the version has.

        Filters of the settings do not apply, as they are for training; typed ones do.
        """
        from embedding_trainers.interactions.column_types import types_of_version

        context = click.get_current_context()
        preparation = source.preparation
        typed = {
            field.name: getattr(preparation, field.name)
            for field in dataclasses.fields(preparation)
            if field.name == "event_weights" or is_given(context, field.name)
        }
        types = types_of_version(artifact)
        reading = dataclasses.replace(
            source.reading,
            user_ids=source.reading.user_ids or types.ids.get("user"),
            item_ids=source.reading.item_ids or types.ids.get("item"),
        )
        return dataclasses.replace(source, preparation=type(preparation)(**typed), reading=reading).read(self.events)

    def describe(self, method: str) -> str:
        """Add what counts to how it was split."""
        if self.events:
            method += f", {' and '.join(self.events)} only"
        if self.include_seen:
            method += ", seen items included"
        return method

    def _held_back(self, log: Interactions, seed: int) -> Split:
        from embedding_trainers import interactions

        if self.at is not None or self.split == "time":
            return interactions.split_by_time(log, self.at, include_seen=self.include_seen)
        if self.split == "last":
            return interactions.split_leave_last_out(log)
        if self.split == "user":
            return interactions.split_by_user(log, seed=seed)
        return interactions.split_interactions(log, seed=seed, include_seen=self.include_seen)


def split_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options to a command, which gets them as one argument ``test``."""

    @functools.wraps(command)
    def with_test(
        test: str | None,
        split: str,
        split_at: datetime | None,
        test_events: str | None,
        include_seen: bool,
        **others: Any,
    ) -> None:
        events = (
            tuple(dict.fromkeys(part.strip() for part in test_events.split(","))) if test_events is not None else ()
        )
        command(test=SplitChoice(test, split, split_at, events, include_seen), **others)

    for option in reversed(_OPTIONS):
        with_test = option(with_test)
    return with_test

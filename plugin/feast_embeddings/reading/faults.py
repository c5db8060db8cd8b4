"""Bad rows: counted by kind, with examples, for one error or report about all of them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from feast_embeddings.errors import InputError

OnBadRows = Literal["error", "drop"]

MOST_EXAMPLES = 3
_MOST_SHOWN = 60
# How an example of a number ends that a spreadsheet in another language wrote.
_DECIMAL_COMMA = re.compile(r"'[-+]?[\d.]*\d,\d+'$")
_ADVICE = "correct them, or leave them out with --on-bad-rows drop"


@dataclass
class Faults:
    """The bad rows of one table.

    Attributes:
        rows: number of rows, including bad ones.
        bad: number of bad rows; a row with two faults counts once.
        counts: rows by kind of fault.
    """

    rows: int = 0
    bad: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    _examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, count: int = 1) -> None:
        """Count rows of one kind of fault."""
        self.counts[kind] = self.counts.get(kind, 0) + count

    def add_example(self, kind: str, place: str, value: str | None) -> None:
        """Keep the place of a fault of this kind, and its value, if it has one, for the first few."""
        if len(self._examples.get(kind, ())) < MOST_EXAMPLES:
            shown = "" if value is None else f" {shortened(value)!r}"
            self._examples.setdefault(kind, []).append(place + shown)

    def settle(self, name: str, on_bad_rows: OnBadRows, advice: str = _ADVICE) -> None:
        """Accept that the bad rows are dropped, or raise.

        Args:
            name: name of the table in errors.
            advice: what the user can do about bad rows.

        Raises:
            InputError: there are bad rows and `on_bad_rows` forbids them, or no other rows are left.
        """
        if not self.bad or (on_bad_rows == "drop" and self.bad < self.rows):
            return
        kinds = "; ".join(
            f"{count:,} {kind}{self._shown(kind, count)}"
            for kind, count in sorted(self.counts.items(), key=lambda entry: -entry[1])
        )
        if self.bad == self.rows:
            advice = "no row is left"
        if any(_DECIMAL_COMMA.search(example) for examples in self._examples.values() for example in examples):
            advice += "; write decimals with a point, as 1.5, not with a comma"
        raise InputError(f"{name}: {self.bad:,} of {self.rows:,} rows cannot be used: {kinds}; {advice}")

    def _shown(self, kind: str, count: int) -> str:
        examples = self._examples.get(kind, [])
        return f" ({', '.join(examples)}{', …' if count > MOST_EXAMPLES else ''})" if examples else ""


def shortened(value: str) -> str:
    """Shorten a value for an error."""
    return value if len(value) <= _MOST_SHOWN else f"{value[:_MOST_SHOWN]}…"


def first_line(error: Exception) -> str:
    """Return the first line of a library's error."""
    # DuckDB appends the stack of a failure within a stream that it reads from Python.
    said = str(error).partition(". Detail: Python exception: ")[0]
    return next((line.strip() for line in said.splitlines() if line.strip()), type(error).__name__)

"""How the query commands show what they found: as a table that fits the terminal, as JSON, or in a file."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from feast_embeddings.cli.options import json_option, print_json
from feast_embeddings.cli.output_file import new_file, output_path
from feast_embeddings.cli.table import columns_of, columns_option, fitting
from feast_embeddings.errors import import_extra

if TYPE_CHECKING:
    from feast_embeddings.query.answers import Found, Neighbours

__all__ = ["Shown", "shown_options"]


@dataclass(frozen=True)
class Shown:
    """How to show an answer.

    Args:
        columns: of the answer, in this order; None for all.
        output: a .csv, .parquet or .xlsx file instead of the terminal.
    """

    as_json: bool
    columns: Sequence[str] | None
    output: Path | None

    def neighbours(self, found: Neighbours, note: str = "", **facts: Any) -> None:
        """Show the answer to a query, and a note if it is not empty; JSON has the `facts` instead."""
        names = list(dict.fromkeys([found.id_name, "score", *(found.attributes[0] if found.attributes else ())]))
        rows = found.to_dicts()
        if found.because is not None:
            names = [*(name for name in names if name != "because"), "because"]
            if self.output is None and not self.as_json:
                for row, reasons in zip(rows, found.because, strict=True):
                    row["because"] = ", ".join(f"{reason.id} {reason.adds:+.4f}" for reason in reasons)
        self.show(rows, names, key="neighbours", facts={"version": found.version, **facts}, note=note)

    def ranking(self, found: Neighbours, note: str = "", **facts: Any) -> None:
        """Show items for someone, and say so if they are a fallback."""
        if found.fallback is not None:
            instead = f"no vector in version {found.version}: {found.fallback} items instead"
            note = f"{note}\n{instead}" if note else instead
        self.neighbours(found, note, **facts, fallback=found.fallback)

    def found(self, found: Found) -> None:
        """Show the answer to a search by text, and say so if its user is unknown."""
        note = f"user {found.missing[0]!r} has no embedding in version {found.version}" if found.missing else ""
        self.neighbours(found, note, missing=found.missing)

    def show(
        self, rows: list[dict[str, Any]], names: Sequence[str], *, key: str, facts: dict[str, Any], note: str = ""
    ) -> None:
        """Show rows with columns of these names.

        Args:
            key: what JSON calls the rows.
            facts: what JSON says with them.
            note: on standard error without JSON, unless an error is there instead.

        Raises:
            InputError: there is no such column, or the file cannot be written.
        """
        columns = columns_of(names, self.columns)
        if self.columns is not None:
            rows = [{name: row.get(name) for name in columns} for row in rows]
        if self.output is not None:
            _write(self.output, rows, columns)
        if note and not self.as_json:
            click.echo(note, err=True)
        if self.output is not None:
            facts = facts | {"rows": len(rows), "output": str(self.output)}
            if self.as_json:
                print_json(facts)
            else:
                click.echo(f"wrote {len(rows):,} row{'' if len(rows) == 1 else 's'} to {self.output}")
        elif self.as_json:
            print_json(facts | {key: rows})
        elif not rows:
            click.echo("none match", err=True)
        else:
            import pandas as pd

            click.echo(fitting(pd.DataFrame(rows, columns=columns)))


def _write(path: Path, rows: list[dict[str, Any]], columns: list[str]) -> None:
    import pandas as pd

    frame = pd.DataFrame(rows, columns=columns)
    if path.suffix == ".parquet":
        with new_file(path) as file:
            frame.to_parquet(file, index=False)
        return
    for name in columns:  # a cell holds one value
        frame[name] = [json.dumps(v, ensure_ascii=False) if isinstance(v, list) else v for v in frame[name]]
    if path.suffix == ".csv":
        with new_file(path) as file:
            frame.to_csv(file, index=False)
        return
    import_extra("xlsxwriter", "writing .xlsx files", "excel")
    for moments in frame.select_dtypes("datetimetz"):  # Excel knows no zones
        frame[moments] = frame[moments].dt.tz_convert("UTC").dt.tz_localize(None)
    # A text that begins with = must not become a formula, nor an id a link.
    options = {"strings_to_formulas": False, "strings_to_urls": False}
    with new_file(path) as file, pd.ExcelWriter(file, "xlsxwriter", engine_kwargs={"options": options}) as book:
        frame.to_excel(book, index=False)


def shown_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``--columns``, ``--output`` and ``--json``, which it gets as one argument `shown`."""

    @functools.wraps(command)
    def wrapped(*given: Any, columns: list[str] | None, output: str | None, as_json: bool, **options: Any) -> Any:
        path = None if output is None else output_path("--output", output, ".csv", ".parquet", ".xlsx")
        return command(*given, shown=Shown(as_json, columns, path), **options)

    with_output = click.option("--output", metavar="FILE", help="Write to this .csv, .parquet or .xlsx file instead.")
    return columns_option(with_output(json_option(wrapped)))

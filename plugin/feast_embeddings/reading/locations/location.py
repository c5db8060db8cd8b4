"""Where a table is, other than in files of this machine: a database, a lake, an object store, standard input, Feast.

A location is opened for one pass. What cannot be streamed is copied to a scratch folder, so memory stays bounded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import entry_points
from pathlib import Path
from typing import TypeAlias

from feast_embeddings.errors import InputError
from feast_embeddings.reading.files import DataFile, find_files
from feast_embeddings.reading.locations.databases import DATABASES, open_query
from feast_embeddings.reading.locations.lakes import METADATA_FILE, is_delta, open_delta, open_iceberg, query_files
from feast_embeddings.reading.locations.remote import copied_files, spooled_input
from feast_embeddings.reading.relation import ArrowStream

__all__ = ["Location", "located", "opened"]

# Packages that know further schemes, such as Feast's data sources, declare a function in this group, by scheme.
_GROUP = "feast_embeddings.locations"
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):")
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_PASSWORD = re.compile(r"(://[^/@:]*):([^@]*)@|\b(password|secret|token)=([^&;\s]+)", re.IGNORECASE)
# What follows the address of a database, where an option such as --items has no --query.
_QUERY_WITHIN = re.compile(r"#\s*(?=(select|with|values|table|from)\b)", re.IGNORECASE)
_INPUT = "-"


@dataclass(frozen=True)
class Location:
    """A table that is not a file of this machine, or a query.

    Attributes:
        text: ``postgresql://…``, ``sqlite:…``, ``delta:…``, ``iceberg:…``, ``s3://…``, ``feast:NAME``, ``-``, or a path
            to query. ``${NAME}`` stands for a variable of the environment.
        query: SQL for a database; or for Parquet files, which it calls ``log``.
        repo: the Feast repo of ``feast:NAME``.
        since, until: rows outside are of no interest; only a hint.
    """

    text: str
    query: str | None = None
    repo: Path | None = None
    since: datetime | None = None
    until: datetime | None = None

    def __repr__(self) -> str:
        return f"Location({str(self)!r})"

    def __str__(self) -> str:
        if self.text == _INPUT:
            return "standard input"
        return _PASSWORD.sub(lambda found: f"{found[1]}:***@" if found[1] else f"{found[3]}=***", self.text)

    @property
    def scheme(self) -> str:
        """The lower-case word before the colon; empty for a path."""
        found = _SCHEME.match(self.text)
        return found[1] if found else ""

    @property
    def has_password(self) -> bool:
        """Whether a password is written in the text, and not as a variable of the environment."""
        found = _PASSWORD.finditer(_VARIABLE.sub("", self.text))
        return any(secret[2] or secret[4] for secret in found)

    def relative_to(self, folder: Path) -> str:
        """Return the text with a relative path in it taken from a folder; a URI and standard input stay."""
        if self.text == _INPUT:
            return self.text
        if not self.scheme or (folder / self.text).exists():  # a file may have a colon in its name
            return str(folder / self.text)
        head, path = f"{self.scheme}:", self.text.removeprefix(f"{self.scheme}:")
        if self.scheme == "sqlite":
            path = re.sub("^//", "", path)
        is_path = self.scheme in ("sqlite", "delta") or (self.scheme == "iceberg" and path.endswith(METADATA_FILE))
        return head + str(folder / path) if is_path and not _SCHEME.match(path) else self.text

    @property
    def expanded(self) -> str:
        """The text with the variables of the environment in it.

        Raises:
            InputError: one is not set.
        """

        def value(found: re.Match[str]) -> str:
            if (text := os.environ.get(found[1])) is None:
                raise InputError(f"{self}: the environment variable {found[1]} is not set")
            return text

        return _VARIABLE.sub(value, self.text)


Opener: TypeAlias = Callable[[Location, Path, ExitStack], "ArrowStream | list[DataFile]"]


def located(
    text: str,
    query: str | None = None,
    repo: Path | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Location | Path:
    """Return a path as such, and anything else as a location; a database may have its query after a ``#``."""
    if query is None and text.partition(":")[0] in DATABASES and (found := _QUERY_WITHIN.search(text)):
        text, query = text[: found.start()], text[found.end() :]
    location = Location(text, query, repo, since, until)
    is_path = not location.scheme or Path(text).exists()  # a file may have a colon in its name
    return location if query is not None or text == _INPUT or not is_path else Path(text)


def opened(source: Location | Path | str, scratch: Path, exits: ExitStack) -> ArrowStream | list[DataFile]:
    """Open a path or a location, for one pass.

    Args:
        scratch: a folder for copies.
        exits: closes what stays open during the pass.

    Returns:
        The files to read, or a stream of rows.

    Raises:
        InputError: there is no such table, or it cannot be read.
        MissingExtraError: the package that reads it is not installed.
    """
    if not isinstance(source, Location):
        return open_delta(str(source), str(source)) if is_delta(Path(source)) else find_files(source)
    scheme = source.scheme
    if scheme in DATABASES:
        if source.query is None:
            raise InputError(
                f"{source} is a database: say what to read of it, as SQL, with --query or after a #, as in "
                f"'{source}#SELECT …'"
            )
        return open_query(str(source), source.expanded, source.query, exits)
    if not scheme and source.text != _INPUT and source.query is not None:
        return query_files(find_files(source.text), source.query, exits)
    if source.query is not None:
        raise InputError(f"--query works on databases and on Parquet files of this machine, not on {source}")
    if source.text == _INPUT:
        return spooled_input(scratch)
    rest = source.expanded.removeprefix(f"{scheme}:")
    if scheme == "delta":
        return open_delta(str(source), rest)
    if scheme == "iceberg":
        return open_iceberg(str(source), rest)
    if found := next(iter(entry_points(group=_GROUP, name=scheme)), None):
        opener: Opener = found.load()
        return opener(source, scratch, exits)
    return copied_files(str(source), source.expanded, scratch)

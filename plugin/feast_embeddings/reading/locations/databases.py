"""Queries of databases through ADBC (https://arrow.apache.org/adbc), which streams rows as Arrow batches."""

from __future__ import annotations

import re
import sqlite3
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from feast_embeddings.errors import InputError, MissingExtraError, import_extra
from feast_embeddings.reading.relation import ArrowStream

__all__ = ["DATABASES", "open_query", "said"]

# Scheme -> the module that connects, and the package that has it.
DATABASES = {
    **dict.fromkeys(("postgresql", "postgres"), "adbc_driver_postgresql"),
    "sqlite": "adbc_driver_sqlite",
    "snowflake": "adbc_driver_snowflake",
    **dict.fromkeys(("grpc", "grpc+tls"), "adbc_driver_flightsql"),
}
_IN_EXTRA = ("adbc_driver_postgresql", "adbc_driver_sqlite")
# Enough for a column's type to be seen, as SQLite's values have types and its columns do not.
_SQLITE_ROWS = 1 << 16


def open_query(name: str, uri: str, query: str, exits: ExitStack) -> ArrowStream:
    """Send a query, and return its rows as a stream.

    Args:
        name: what to call the database in an error, without its password.
        exits: closes the connection.

    Raises:
        InputError: the database cannot be reached, or refuses the query.
        MissingExtraError: its driver is not installed.
    """
    scheme = uri.partition(":")[0]
    try:
        driver = import_extra(f"{DATABASES[scheme]}.dbapi", f"reading {name}", "sql")
    except MissingExtraError:
        if DATABASES[scheme] in _IN_EXTRA:
            raise
        package = DATABASES[scheme].replace("_", "-")
        raise InputError(f"reading {name} needs the package {package!r}: run pip install {package}") from None
    if scheme == "sqlite":
        _check_query(name, _file(name, uri), query)
    try:
        connection = exits.enter_context(closing(driver.connect(_file(name, uri) if scheme == "sqlite" else uri)))
        cursor: Any = exits.enter_context(closing(connection.cursor()))
        if scheme == "sqlite":
            cursor.adbc_statement.set_options(**{"adbc.sqlite.query.batch_rows": str(_SQLITE_ROWS)})
        cursor.execute(query)
        reader: ArrowStream = cursor.fetch_record_batch()
    except driver.Error as error:
        raise InputError(f"{name}: {said(error, uri)}") from None
    return reader


def _file(name: str, uri: str) -> str:
    path = Path(unquote(re.sub(r"^sqlite:(//)?(?=/|[^/])", "", uri)))
    if not path.is_file():
        raise InputError(f"{name}: {path} does not exist")
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        try:
            connection.execute("SELECT 1 FROM sqlite_master")
        except sqlite3.DatabaseError as error:
            raise InputError(f"{name} cannot be read as SQLite: {error}") from None
    return f"{path.resolve().as_uri()}?mode=ro"


def _check_query(name: str, address: str, query: str) -> None:
    """Raise `InputError` if SQLite refuses the query; its ADBC driver ignores what follows the first statement."""
    with closing(sqlite3.connect(address, uri=True)) as connection:
        try:
            connection.execute(f"EXPLAIN {query}")
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise InputError(f"{name}: {error}") from None


def said(error: Exception, uri: str) -> str:
    """Return the first line of an error, without the password of the URI."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    text = lines[0][:300]
    for secret in re.findall(r"://[^/@:]*:([^@]*)@", uri):
        text = text.replace(secret, "***").replace(unquote(secret), "***")
    return text

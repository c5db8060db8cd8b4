"""Read tables: files of several formats, folders, globs, and tables in memory. See docs/input.md.

Stability: provisional, see docs/compatibility.md.
"""

from feast_embeddings.reading.column_types import ColumnType, parse_types
from feast_embeddings.reading.expressions import IdType
from feast_embeddings.reading.faults import Faults, OnBadRows
from feast_embeddings.reading.locations import Location, located
from feast_embeddings.reading.opening import Source, missing_column, source_name
from feast_embeddings.reading.scan import Rules, Scan, Wanted
from feast_embeddings.reading.table import read_table

__all__ = [
    "ColumnType",
    "Faults",
    "IdType",
    "Location",
    "OnBadRows",
    "Rules",
    "Scan",
    "Source",
    "Wanted",
    "located",
    "missing_column",
    "parse_types",
    "read_table",
    "source_name",
]

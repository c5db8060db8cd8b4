"""The names of online tables, of which no two views of any projects share one; and those that older releases gave.

Older releases joined project, view and version with ``_`` alone, as Feast's own stores do, so that view ``c`` of
project ``a_b`` and view ``b_c`` of project ``a`` had one table. What a ``_`` cannot tell now stands behind an ``@``,
which Feast allows in neither name: how long the project is, and the version of the view. A ``__`` begins what a
collection's name has beyond that of its alias, so an alias that has one has a mark, too.
"""

from __future__ import annotations

import re

from feast import FeatureView, RepoConfig

from feast_embeddings._feast.private import view_version
from feast_embeddings.engines.engine import Engine
from feast_embeddings.errors import EngineError

__all__ = ["collection_name", "is_table_of", "older_names", "rename_tables", "table_id", "table_name"]


def table_name(project: str, view: str, version: int) -> str:
    """The alias of the table of this version of a view; 0 is the first, and that of a repo without versioning."""
    length = str(len(project)) if "_" in project or "__" in f"{project}_{view}_" else ""
    mark = length + (f"v{version}" if version else "")
    return f"{project}_{view}" + (f"@{mark}" if mark else "")


def table_id(config: RepoConfig, view: FeatureView) -> str:
    """The alias of the online table of a view."""
    return table_name(config.project, view.name, view_version(config, view))


def is_table_of(config: RepoConfig, view: FeatureView, table: str) -> bool:
    """Whether an online table is that of some version of the view."""
    first = table_name(config.project, view.name, 0)
    version = ("" if "@" in first else "@") + r"v\d+"
    return re.fullmatch(f"{re.escape(first)}({version})?", table) is not None


def collection_name(alias: str, version: str) -> str:
    """The collection of an alias that holds this version of a model; rows of an ordinary view have none."""
    # One "@" alone is a mark.
    return f"{alias}__{version.replace('@', '@@') or 'live'}"


def older_names(engine: Engine, project: str) -> dict[str, str]:
    """The tables of a project that still have an older release's name, with the name that they should have."""
    aliases = engine.aliases()
    found = {}
    for alias, collection in aliases.items():
        if not alias.startswith(f"{project}_") or "@" in alias:
            continue
        if table_name(project, alias.removeprefix(f"{project}_"), 0) == alias and not re.search(r"_v\d+$", alias):
            continue  # as it should be, whatever the view
        try:
            view = engine.describe(collection).view
        except EngineError:  # of another program, or just dropped
            continue
        # The view was written down, and tells whose table it is.
        if match := re.fullmatch(re.escape(f"{project}_{view}") + r"(?:_v(\d+))?", alias):
            name = table_name(project, view, int(match[1] or 0))
            if name != alias and name not in aliases:
                found[alias] = name
    return found


def rename_tables(engine: Engine, project: str) -> None:
    """Give the tables of a project their names. Safe to repeat, and to interrupt.

    Raises:
        EngineError: they have others, and the store cannot be changed.
    """
    for older, name in older_names(engine, project).items():
        try:
            for collection, spec in engine.collections(older).items():
                engine.annotate(collection, spec.model_copy(update={"alias": name}))
            if (live := engine.aliases().get(older)) is not None:  # else another process has just done it
                engine.switch({older: None, name: live})
        except (EngineError, OSError) as error:
            raise EngineError(
                f"the table {older!r} has the name that an older release gave it, and cannot be renamed to {name!r} "
                f"({error}); run feast apply where the store can be written"
            ) from error

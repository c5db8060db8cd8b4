"""The names of online tables, unique over all views and projects, and the renaming of tables of older releases.

Older releases only joined project, view and version with ``_``, as Feast's own stores do, so that view ``c`` of
project ``a_b`` and view ``b_c`` of project ``a`` had the same table. Now an ``@``, which Feast allows in neither name,
marks what a ``_`` leaves ambiguous: the length of the project's name, and the version of the view. A ``__`` separates
the suffix of a collection's name from its alias, so an alias that contains one has a mark too.
"""

from __future__ import annotations

import re

from feast import FeatureView, RepoConfig

from feast_embeddings._feast.private import view_version
from feast_embeddings.engines.engine import Engine
from feast_embeddings.errors import EngineError

__all__ = ["collection_name", "is_table_of", "older_names", "rename_tables", "table_id", "table_name"]


def table_name(project: str, view: str, version: int) -> str:
    """Return the alias of the table of a version of a view; 0 is the first, or the only one without versioning."""
    length = str(len(project)) if "_" in project or "__" in f"{project}_{view}_" else ""
    mark = length + (f"v{version}" if version else "")
    return f"{project}_{view}" + (f"@{mark}" if mark else "")


def table_id(config: RepoConfig, view: FeatureView) -> str:
    """Return the alias of the online table of a view."""
    return table_name(config.project, view.name, view_version(config, view))


def is_table_of(config: RepoConfig, view: FeatureView, table: str) -> bool:
    """Return whether an online table belongs to any version of the view."""
    first = table_name(config.project, view.name, 0)
    version = ("" if "@" in first else "@") + r"v\d+"
    return re.fullmatch(f"{re.escape(first)}({version})?", table) is not None


def collection_name(alias: str, version: str, copy: int = 0) -> str:
    """Return the name of an alias's collection for a model version; ordinary views have the version "".

    Args:
        copy: 1 or more for one that replaces a collection of the same version that cannot be read.
    """
    # A single "@" is a mark.
    return f"{alias}__{version.replace('@', '@@') or 'live'}" + (f"@{copy}" if copy else "")


def older_names(engine: Engine, project: str) -> dict[str, str]:
    """Return the tables of a project that have a name of an older release -> their new name."""
    aliases = engine.aliases()
    found = {}
    for alias, collection in aliases.items():
        if not alias.startswith(f"{project}_") or "@" in alias:
            continue
        if table_name(project, alias.removeprefix(f"{project}_"), 0) == alias and not re.search(r"_v\d+$", alias):
            continue  # a current name, whatever the view
        try:
            view = engine.describe(collection).view
        except EngineError:  # made by another program, or just dropped
            continue
        # The spec records the view that the table belongs to.
        if match := re.fullmatch(re.escape(f"{project}_{view}") + r"(?:_v(\d+))?", alias):
            name = table_name(project, view, int(match[1] or 0))
            if name != alias and name not in aliases:
                found[alias] = name
    return found


def rename_tables(engine: Engine, project: str) -> None:
    """Rename tables that have a name of an older release. Safe to repeat, and to interrupt.

    Raises:
        EngineError: a table needs a new name, but the store cannot be written.
    """
    for older, name in older_names(engine, project).items():
        try:
            for collection, spec in engine.collections(older).items():
                engine.annotate(collection, spec.model_copy(update={"alias": name}))
            if (live := engine.aliases().get(older)) is not None:  # else another process has just renamed it
                engine.switch({older: None, name: live})
        except (EngineError, OSError) as error:
            raise EngineError(
                f"the table {older!r} has a name of an older release, and cannot be renamed to {name!r} "
                f"({error}); run feast apply where the store can be written"
            ) from error

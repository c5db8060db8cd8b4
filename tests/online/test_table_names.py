"""Names of online tables: one per project, view and version, and those of older releases are found."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Int64
from hypothesis import given
from hypothesis import strategies as st
from tests.support.shop import qdrant

from feast_embeddings.engines.engine import Engine
from feast_embeddings.engines.testing import ids, make_batch, make_spec
from feast_embeddings.online.table_names import older_names, rename_tables, table_name

NOW = datetime(2026, 6, 1, tzinfo=UTC)
PROJECTS = st.from_regex(r"[a1][a1_v-]{0,4}", fullmatch=True)
VIEWS = st.from_regex(r"[a1_v.-]{1,6}", fullmatch=True)
TABLES = st.tuples(PROJECTS, VIEWS, st.integers(0, 12))


@given(TABLES, TABLES)
def test_no_two_tables_share_a_name(one: tuple[str, str, int], other: tuple[str, str, int]) -> None:
    """Project, view and version can be read out of a name."""
    assert (table_name(*one) == table_name(*other)) == (one == other)


def open_project(folder: Path, project: str, **registry: bool) -> FeatureStore:
    """A repo whose vectors are in a folder that it shares with others."""
    repo = folder / project
    repo.mkdir(exist_ok=True)
    config = {
        "project": project,
        "provider": "local",
        "registry": {"path": "registry.db", **registry},
        "offline_store": {"type": "duckdb"},
        "online_store": {"type": "feast_embeddings.QdrantEmbeddingOnlineStore", "path": str(folder / "qdrant")},
        "entity_key_serialization_version": 3,
    }
    (repo / "feature_store.yaml").write_text(yaml.safe_dump(config))
    return FeatureStore(repo_path=str(repo))


def define(store: FeatureStore, view: str, *more: str) -> None:
    thing = Entity(name="thing", join_keys=["id"], value_type=ValueType.INT64)
    schema = [Field(name=name, dtype=Int64) for name in ("id", "n", *more)]
    source = FileSource(path="nowhere.parquet", timestamp_field="event_timestamp")
    store.apply([thing, FeatureView(name=view, entities=[thing], schema=schema, source=source)])


def write(store: FeatureStore, view: str, n: int) -> None:
    store.write_to_online_store(view, pd.DataFrame({"id": [1], "n": [n], "event_timestamp": [NOW]}))


def read(store: FeatureStore, view: str) -> int | None:
    rows = store.get_online_features(features=[f"{view}:n"], entity_rows=[{"id": 1}]).to_dict()
    n: int | None = rows["n"][0]
    return n


def test_projects_that_share_a_store_do_not_meet(tmp_path: Path) -> None:
    """View c of project a_b and view b_c of project a: each has its own rows, and its end is not the other's."""
    stores = {"c": open_project(tmp_path, "a_b"), "b_c": open_project(tmp_path, "a")}
    for view, store in stores.items():
        define(store, view)
    write(stores["c"], "c", 1)
    assert read(stores["b_c"], "b_c") is None
    write(stores["b_c"], "b_c", 2)
    assert (read(stores["c"], "c"), read(stores["b_c"], "b_c")) == (1, 2)
    stores["c"].teardown()  # type: ignore[no-untyped-call]
    assert read(stores["b_c"], "b_c") == 2


def test_a_version_of_a_view_is_not_another_view(tmp_path: Path) -> None:
    """Version 1 of `docs`, and a view called `docs_v1`."""
    store = open_project(tmp_path, "shop", enable_online_feature_view_versioning=True)
    define(store, "docs")
    define(store, "docs", "more")
    define(store, "docs_v1")
    store.write_to_online_store("docs", pd.DataFrame({"id": [1], "n": [1], "more": [0], "event_timestamp": [NOW]}))
    assert read(store, "docs_v1") is None
    write(store, "docs_v1", 2)
    assert (read(store, "docs"), read(store, "docs_v1")) == (1, 2)


def under_older_names(store: FeatureStore) -> dict[str, str]:
    """Name the tables of a project as older releases did; what they are to be called again."""
    engine = qdrant(store).engine(store.config)
    older = {}
    for alias, live in engine.aliases().items():
        name, _, mark = alias.partition("@")
        _, _, version = mark.partition("v")
        older[name + (f"_v{version}" if version else "")] = alias
        for collection, spec in engine.collections(alias).items():
            engine.annotate(collection, spec.model_copy(update={"alias": name + (f"_v{version}" if version else "")}))
        engine.switch({alias: None, name + (f"_v{version}" if version else ""): live})
    engine.close()
    return older


@pytest.mark.parametrize(("project", "versioned"), [("my_shop", False), ("my_shop", True), ("shop", True)])
def test_a_store_of_an_older_release_goes_on(project: str, versioned: bool, tmp_path: Path) -> None:
    """Its tables are found, get their new names when the store is opened, and can be written, read and dropped."""
    registry = {"enable_online_feature_view_versioning": versioned}
    store = open_project(tmp_path, project, **registry)
    define(store, "docs")
    define(store, "docs", "more")
    store.write_to_online_store("docs", pd.DataFrame({"id": [1], "n": [7], "more": [0], "event_timestamp": [NOW]}))
    older = under_older_names(store)
    assert older == {f"{project}_docs" + "_v1" * versioned: table_name(project, "docs", int(versioned))}
    again = open_project(tmp_path, project, **registry)
    assert read(again, "docs") == 7
    engine = qdrant(again).engine(again.config)
    assert set(engine.aliases()) == set(older.values())
    assert older_names(engine, project) == {}
    again.teardown()  # type: ignore[no-untyped-call]
    assert engine.aliases() == {}


def test_only_tables_of_the_project_are_renamed(tmp_path: Path) -> None:
    """The table of view b_c of project a is not taken for view c of project a_b; an interrupted renaming goes on."""
    for project, view in (("a", "b_c"), ("a_b", "d")):
        store = open_project(tmp_path, project)
        define(store, view)
        write(store, view, 1)
    under_older_names(store)
    engine = qdrant(store).engine(store.config)
    (older,) = (alias for alias in engine.aliases() if alias.endswith("d"))
    # As left by a process that was killed before the switch.
    for collection, spec in engine.collections(older).items():
        engine.annotate(collection, spec.model_copy(update={"alias": table_name("a_b", "d", 0)}))
    rename_tables(engine, "a_b")
    assert set(engine.aliases()) == {"a_b_d@3", "a_b_c"}


@pytest.mark.parametrize("interrupted", [False, True])
@pytest.mark.parametrize(
    ("view", "version"),
    [("my__docs", 0), ("my__docs", 2), ("my__docs_v2", 0), ("_docs", 0), ("docs_", 0), ("docs_", 1)],
)
def test_an_older_table_of_a_view_with_two_underscores(
    view: str, version: int, interrupted: bool, engine: Engine
) -> None:
    """It gets its mark, and keeps its rows; views whose tables or collections read alike keep theirs."""
    project = f"p{uuid.uuid4().hex}"  # a server may be shared
    older, name = f"{project}_{view}" + f"_v{version}" * bool(version), table_name(project, view, version)
    matrix = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    # As older releases named them, and, of view `my`, all releases; the last is another project's.
    tables = {
        older: (view, f"{older}__live"),
        f"{project}_my": ("my", f"{project}_my__docs_of_may"),
        f"{project}x_my__docs": ("my__docs", f"{project}x_my__docs__live"),
    }
    for number, (alias, (of, collection)) in enumerate(tables.items()):
        engine.create(collection, make_spec(alias, view=of), [make_batch(matrix + number)], wait_for_indexes=False)
        engine.switch({alias: collection})
    try:
        assert older_names(engine, project) == {older: name}
        if interrupted:  # before the switch
            engine.annotate(f"{older}__live", engine.describe(f"{older}__live").model_copy(update={"alias": name}))
        for _ in range(2):
            rename_tables(engine, project)
            assert older_names(engine, project) == {}
            expected = {name if alias == older else alias: table for alias, table in tables.items()}
            found = {alias: live for alias, live in engine.aliases().items() if alias.startswith(project)}
            assert found == {alias: collection for alias, (_, collection) in expected.items()}
            for number, (alias, (of, collection)) in enumerate(expected.items()):
                specs = engine.collections(alias)
                assert {name: (spec.alias, spec.view) for name, spec in specs.items()} == {collection: (alias, of)}
                points = engine.retrieve(collection, ids(0, 3), vectors=["v"])
                vectors = np.stack([point.vectors["v"] for point in points if point is not None])
                assert vectors.tobytes() == (matrix + number).tobytes()
            assert engine.collections(older) == {}
    finally:
        mine = [alias for alias in engine.aliases() if alias.startswith(project)]
        engine.switch(dict.fromkeys(mine))
        engine.drop([collection for _, collection in tables.values()])

"""Tables of names that read alike stay apart, in any order of calls, over each engine.

Projects, views and versions are drawn from few names that concatenate to the same text in many ways.
"""

from __future__ import annotations

import functools
import itertools
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
from feast import Entity, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Int64, String
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from feast_embeddings._feast.private import EntityKeyProto, ValueProto
from feast_embeddings.codec.collection import UNINDEXED_TAG, collection_spec
from feast_embeddings.codec.columns import encode_rows
from feast_embeddings.codec.rows import FeastRow
from feast_embeddings.engines.engine import Engine
from feast_embeddings.online.store import QdrantEmbeddingOnlineStore
from feast_embeddings.online.table_names import collection_name, table_id

NOW = datetime(2026, 6, 1, tzinfo=UTC)
PROJECTS = ["a", "a_b"]
# The rows of these are of a version of a model, as are those of `embedding_views`.
OF_MODELS = ["c", "b_c", "c_", "c__x"]
VIEWS = [*OF_MODELS, "c__live", "b_c__live", "c__x__live", "c_v1", "b-c", "_c"]
VERSIONS = ["", "live", "_live", "x", "x__live", "x@1", "x@1__live"]
IDS = range(3)
Rows = dict[int, str]


class Key(NamedTuple):
    """Whose table it is."""

    project: str
    view: str
    version: int


@dataclass
class Table:
    """What must be in a table: the rows of each version of the model, and which is live."""

    live: str
    versions: dict[str, Rows] = field(default_factory=dict)


KEYS = st.builds(Key, st.sampled_from(PROJECTS), st.sampled_from(VIEWS), st.integers(0, 1))


class Names(RuleBasedStateMachine):
    """Tables by their owners, each row of which names its owner; after each step all are read."""

    steps = itertools.count()

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.engine = engine
        self.store = QdrantEmbeddingOnlineStore()
        self.store._engine = engine
        self.prefix = uuid.uuid4().hex[:12]  # a server may be shared
        self.expected: dict[Key, Table] = {}
        self.clock = itertools.count()

    @functools.cache  # noqa: B019 (a machine is gone soon)
    def config(self, project: str) -> RepoConfig:
        return RepoConfig(
            project=self.prefix + project,
            provider="local",
            offline_store={"type": "duckdb"},
            registry={"path": "registry.db", "enable_online_feature_view_versioning": True},
            online_store={"type": "feast_embeddings.QdrantEmbeddingOnlineStore"},
            entity_key_serialization_version=3,
            repo_path=Path(),
        )

    def view(self, key: Key) -> FeatureView:
        names = ["owner", *(["version", "space"] if key.view in OF_MODELS else [])]
        view = FeatureView(
            name=key.view,
            entities=[Entity(name="thing", join_keys=["id"], value_type=ValueType.INT64)],
            schema=[
                Field(name="id", dtype=Int64),
                *(Field(name=name, dtype=String, tags={UNINDEXED_TAG: "true"}) for name in names),
            ],
            source=FileSource(path="nowhere.parquet", timestamp_field="event_timestamp"),
        )
        view.entity_columns = [Field(name="id", dtype=Int64)]
        view.features = [column for column in view.features if column.name != "id"]
        view.current_version_number = key.version
        return view

    def new_rows(self, key: Key, version: str, ids: set[int]) -> tuple[Rows, list[FeastRow]]:
        when = NOW + timedelta(seconds=next(self.clock))
        rows = {id: f"{key} {version!r} {id} {when}" for id in ids}
        more = {"version": version, "space": "s"} if key.view in OF_MODELS else {}
        encoded: list[FeastRow] = [
            (
                self.entity_key(id),
                {name: ValueProto(string_val=value) for name, value in ({"owner": owner} | more).items()},
                when,
                None,
            )
            for id, owner in rows.items()
        ]
        return rows, encoded

    @staticmethod
    def entity_key(id: int) -> EntityKeyProto:
        return EntityKeyProto(join_keys=["id"], entity_values=[ValueProto(int64_val=id)])

    def alias(self, key: Key) -> str:
        return table_id(self.config(key.project), self.view(key))

    @rule(key=KEYS, version=st.sampled_from(VERSIONS), ids=st.sets(st.sampled_from(IDS), min_size=1))
    def write(self, key: Key, version: str, ids: set[int]) -> None:
        """As a push does: into what is live, or a table of its own where nothing is."""
        if key.view not in OF_MODELS:
            version = ""
        table = self.expected.setdefault(key, Table(version, {version: {}}))
        rows, encoded = self.new_rows(key, table.live, ids)
        self.store.online_write_batch(self.config(key.project), self.view(key), encoded, None)
        table.versions[table.live].update(rows)
        self.check_all()

    @precondition(lambda self: any(key.view in OF_MODELS for key in self.expected))
    @rule(chosen=st.data(), version=st.sampled_from(VERSIONS[1:]), ids=st.sets(st.sampled_from(IDS), min_size=1))
    def switch(self, chosen: st.DataObject, version: str, ids: set[int]) -> None:
        """As a publish does: another version goes live, which is loaded unless it is kept."""
        key = chosen.draw(st.sampled_from(sorted(key for key in self.expected if key.view in OF_MODELS)))
        table, view, alias = self.expected[key], self.view(key), self.alias(key)
        # Without a version a collection is called live.
        taken = {other or "live": other for other in table.versions}
        version = taken.get(version, version)
        name = collection_name(alias, version)
        if version not in table.versions:
            rows, encoded = self.new_rows(key, version, ids)
            codec = self.store.codec(self.config(key.project), view)
            spec = collection_spec(view, alias, codec.fields, {}, version=version, space="s")
            self.engine.create(name, spec, [encode_rows(codec, encoded)], wait_for_indexes=False)
            table.versions[version] = rows
        self.engine.switch({alias: name})
        table.live = version
        self.check_all()

    @precondition(lambda self: any(len(table.versions) > 1 for table in self.expected.values()))
    @rule(chosen=st.data())
    def prune(self, chosen: st.DataObject) -> None:
        """What is not live of one table goes."""
        key = chosen.draw(st.sampled_from(sorted(k for k, table in self.expected.items() if len(table.versions) > 1)))
        table, alias = self.expected[key], self.alias(key)
        self.engine.drop(self.engine.collections(alias))
        table.versions = {table.live: table.versions[table.live]}
        self.check_all()

    @precondition(lambda self: self.expected)
    @rule(chosen=st.data())
    def delete_view(self, chosen: st.DataObject) -> None:
        """As an apply does for a view that is defined no more: every version of it goes."""
        gone = chosen.draw(st.sampled_from(sorted(self.expected)))
        self.store.update(self.config(gone.project), [self.view(gone)], [], [], [], partial=True)
        self.forget([key for key in self.expected if key[:2] == gone[:2]])

    @precondition(lambda self: self.expected)
    @rule(chosen=st.data())
    def tear_down(self, chosen: st.DataObject) -> None:
        """Of one project."""
        gone = chosen.draw(st.sampled_from(sorted({key.project for key in self.expected})))
        views = [self.view(Key(gone, view, 0)) for view in {key.view for key in self.expected if key.project == gone}]
        self.store.teardown(self.config(gone), views, [])
        self.forget([key for key in self.expected if key.project == gone])

    def forget(self, keys: list[Key]) -> None:
        for key in keys:
            del self.expected[key]
            assert self.engine.collections(self.alias(key)) == {}
        self.check_all()

    def check_all(self) -> None:
        """Each table answers from its own rows, has its own versions, and there is no other."""
        next(self.steps)
        aliases = {alias for alias in self.engine.aliases() if alias.startswith(self.prefix)}
        assert aliases == {self.alias(key) for key in self.expected}
        assert len(aliases) == len(self.expected)
        for key, table in self.expected.items():
            found = self.store.online_read(
                self.config(key.project), self.view(key), [self.entity_key(id) for id in IDS], ["owner"]
            )
            owners = {id: row["owner"].string_val for id, (_, row) in enumerate(found) if row is not None}
            assert owners == table.versions[table.live]
            specs = self.engine.collections(self.alias(key))
            assert {spec.version: spec.view for spec in specs.values()} == dict.fromkeys(table.versions, key.view)
            counts = {spec.version: self.engine.count(name) for name, spec in specs.items()}
            assert counts == {version: len(rows) for version, rows in table.versions.items()}

    def teardown(self) -> None:
        mine = [alias for alias in self.engine.aliases() if alias.startswith(self.prefix)]
        self.engine.switch(dict.fromkeys(mine))
        for alias in mine:
            self.engine.drop(self.engine.collections(alias))


@pytest.mark.parametrize(("histories", "steps"), [(8, 15), pytest.param(60, 40, marks=pytest.mark.slow)])
def test_names_that_read_alike(histories: int, steps: int, engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    """Created, filled, switched, pruned, deleted and torn down in any order: no table meets another."""
    Names.steps = itertools.count()
    run_state_machine_as_test(
        functools.partial(Names, engine),  # type: ignore[arg-type]  # it calls what makes a machine
        settings=settings(
            max_examples=histories,
            stateful_step_count=steps,
            deadline=None,
            phases=[Phase.generate],  # each step is on disk or on a server: to make a failure small takes minutes
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        ),
    )
    with capsys.disabled():
        print(f"\n{histories} histories, {next(Names.steps)} steps, over {type(engine).__name__}")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((Key("a", "c", 0), "live"), (Key("a", "c__live", 0), "")),
        ((Key("a", "c__live", 0), ""), (Key("a", "c", 0), "live")),
        ((Key("a", "c", 0), "x__live"), (Key("a", "c__x", 0), "live")),
        ((Key("a", "c", 0), "_live"), (Key("a", "c_", 0), "live")),
        ((Key("a_b", "c", 0), "x"), (Key("a", "b_c", 0), "x")),
    ],
)
def test_two_names_that_read_alike(one: tuple[Key, str], other: tuple[Key, str], engine: Engine) -> None:
    """The collection of one view has not the name of another view's table, or of its collection."""
    machine = Names(engine)
    try:
        for key, version in (one, other):
            Names.write(machine, key, version, {0, 1})
    finally:
        machine.teardown()

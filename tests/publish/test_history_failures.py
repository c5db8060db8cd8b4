"""What stops a version from getting into a team's tables changes nothing; what died is finished by the next publish."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from feast import FeatureStore, FileSource, PushSource
from feast.data_source import DataSource
from tests.conftest import Command
from tests.support.job import Job
from tests.support.process_jobs import publish_half
from tests.support.publishing import publish_any
from tests.support.shop import AS_OF, qdrant
from tests.support.team_tables import DAY, ITEMS, USERS, Team, make_team

from feast_embeddings import embedding_views
from feast_embeddings.artifact import Artifact
from feast_embeddings.doctor import examine
from feast_embeddings.errors import EmbeddingsError, EngineError, InputError

Start = Callable[..., Job]


@pytest.fixture
def team(postgres: str, tmp_path: Path) -> Team:
    """The one in PostgreSQL, whose tables are empty."""
    return make_team("postgres", tmp_path, postgres)


def refused(team: Team, feature_store: FeatureStore, artifact: Artifact, kind: type[EmbeddingsError]) -> str:
    """The error of a publish, after which nothing is loaded, live or written, and no password is shown."""
    with pytest.raises(kind) as error:
        publish_any(feature_store, artifact)
    engine = qdrant(feature_store).engine(feature_store.config)
    assert not engine.aliases()
    if kind is InputError:
        assert not [name for side in ("user", "item") for name in engine.collections(alias(feature_store, side))]
    message = str(error.value)
    assert "s3cret" not in message
    assert "\n" not in message
    return message


def alias(feature_store: FeatureStore, side: str) -> str:
    return f"{feature_store.project}_shop_{side}_embeddings"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "DROP TABLE items",
            'does not exist; create it: CREATE TABLE {}.items ("item_id" text, "emb',
        ),
        ("ALTER TABLE users DROP country", 'users of PostgreSQL cannot hold version {v}: it lacks "country" text.'),
        ("ALTER TABLE items ALTER price TYPE text", 'version {v}: "price" is text, not double precision.'),
        (
            "ALTER TABLE items ALTER at TYPE timestamp",
            '"at" is timestamp without time zone, not timestamp with time zone.',
        ),
        ("ALTER TABLE users RENAME TO u; CREATE VIEW users AS SELECT * FROM u", "is not a table"),
        (
            "ALTER TABLE items DROP bias, ALTER tags TYPE varchar[]",
            'it lacks "bias" real; "tags" is character varying[]',
        ),
    ],
)
def test_a_table_that_does_not_fit(team: Team, change: str, message: str) -> None:
    artifact = team.train(1, AS_OF, USERS, ITEMS)
    feature_store = team.apply()
    team.sql(change)
    said = refused(team, feature_store, artifact, InputError)
    assert message.replace("{v}", artifact.manifest.version).replace("{}", team.schema) in said


def test_the_statement_of_the_error_makes_the_table(team: Team) -> None:
    artifact = team.train(1, AS_OF, USERS, ITEMS)
    feature_store = team.apply()
    team.sql("DROP TABLE items; DROP TABLE users")
    for _ in range(2):
        said = refused(team, feature_store, artifact, InputError)
        team.sql(said.partition("create it: ")[2].partition(". Nothing")[0])
    publish_any(feature_store, artifact)
    assert team.both() == team.all_of(artifact)


def test_no_right_to_write(team: Team) -> None:
    """And a server that does not answer, or does not know the password."""
    artifact = team.train(1, AS_OF, USERS, ITEMS)
    team.apply()
    team.sql(
        f"CREATE ROLE reader LOGIN PASSWORD 's3cret'; GRANT USAGE ON SCHEMA {team.schema} TO reader; "
        f"GRANT SELECT ON ALL TABLES IN SCHEMA {team.schema} TO reader"
    )
    for change, kind, message in [
        ({"user": "reader"}, InputError, "user 'reader' may not INSERT in table"),
        ({"password": "s3cret-too"}, InputError, "password authentication failed"),
        ({"port": 1}, InputError, "refused"),
    ]:
        file = team.repo.path / "feature_store.yaml"
        before = file.read_text()
        config = yaml.safe_load(before)
        config["offline_store"] |= change
        file.write_text(yaml.safe_dump(config))
        assert message in refused(team, team.repo.feature_store(), artifact, kind)
        file.write_text(before)
    team.sql("DROP OWNED BY reader; DROP ROLE reader")


def test_a_value_that_postgres_cannot_hold(team: Team) -> None:
    """Is found while the rows are written: none is, and the version does not go live."""
    artifact = team.train(1, AS_OF, [*USERS, "zero\0byte"], ITEMS)
    feature_store = team.apply()
    said = refused(team, feature_store, artifact, EngineError)
    assert "invalid byte sequence" in said
    assert "None of the rows" in said
    assert team.both() == {"users": [], "items": []}


def test_a_store_that_cannot_write(tmp_path: Path) -> None:
    team = make_team("warehouse", tmp_path)
    artifact = team.train(1, AS_OF, USERS, ITEMS)
    file = team.repo.path / "feature_store.yaml"
    file.write_text(file.read_text().replace("WarehouseOffline", "ReadOnlyOffline").replace("password: s3cret", ""))
    said = refused(team, team.apply(), artifact, InputError)
    assert "the offline store ReadOnlyOfflineStore does not write (it has no offline_write_batch)" in said
    assert publish_any(team.repo.feature_store(), artifact, history="none").changed
    assert team.both() == {"users": [], "items": []}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("DROP TABLE users", "WarehouseSource 'users' cannot be read: no table users for the password ***; create"),
        ("ALTER TABLE users DROP country", 'it lacks "country" string'),
        ("ALTER TABLE items ALTER price TYPE VARCHAR", '"price" is string, not double'),
    ],
)
def test_a_table_of_another_store(tmp_path: Path, change: str, message: str) -> None:
    team = make_team("warehouse", tmp_path)
    artifact = team.train(1, AS_OF, USERS, ITEMS)
    feature_store = team.apply()
    team.sql(change)
    assert message in refused(team, feature_store, artifact, InputError)


def test_a_folder_that_is_a_file_or_of_other_columns(tmp_path: Path) -> None:
    team = make_team("duckdb", tmp_path)
    artifact = team.train(1, AS_OF, USERS, ITEMS)
    feature_store = team.apply()
    users = team.repo.path / "warehouse" / "users"
    users.write_text("")
    assert "is a file, expected a folder" in refused(team, feature_store, artifact, InputError)
    users.unlink()
    users.mkdir()
    stats = team.repo.path / "warehouse" / "stats" / "1.parquet"
    (users / "1.parquet").write_bytes(stats.read_bytes())
    assert 'it lacks "customer" string, "embedding" list<' in refused(team, feature_store, artifact, InputError)


@pytest.mark.parametrize("store", ["postgres", "duckdb", "warehouse"])
def test_killed_in_the_middle(request: pytest.FixtureRequest, tmp_path: Path, store: Any, start: Start) -> None:
    """With some rows sent: the older version answers, and the next publish leaves each row there once."""
    team = make_team(store, tmp_path, request.getfixturevalue("postgres") if store == "postgres" else "")
    first = team.train(1, AS_OF, USERS, ITEMS)
    feature_store = team.apply()
    publish_any(feature_store, first)
    second = team.train(2, AS_OF + DAY, USERS, ITEMS)
    for _ in range(2):
        job = start(publish_half, team.repo.path, second.manifest.version)
        assert job.receive() == "half"
        job.kill()
        # Only a store without transactions has a part.
        assert (team.rows("users") != team.all_of(first)["users"]) == (store == "warehouse")
        found = feature_store.get_online_features(["shop_user_embeddings:version"], [{"user_id": USERS[0]}]).to_dict()
        assert found["version"] == [first.manifest.version]
    publish_any(feature_store, second)
    assert team.both() == team.all_of(first, second)
    assert publish_any(feature_store, second).n_history == 0
    assert not list((team.repo.path / "warehouse").glob("*.tmp"))


def test_two_publishes_of_two_machines(team: Team, start: Start) -> None:
    """The second waits for the first's transaction, and then finds the rows."""
    artifact = team.train(1, AS_OF, USERS, ITEMS)
    feature_store = team.apply()
    job = start(publish_half, team.repo.path, artifact.manifest.version)
    assert job.receive() == "half"
    (artifact.path.parent / "history.lock").unlink()  # another machine does not see it
    other = start(publish_half, team.repo.path, artifact.manifest.version)
    locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    while not team.sql(locks)[0][0]:
        assert other.process.is_alive()
    job.pipe.send("go on")
    job.finish()
    other.finish()
    assert team.both() == team.all_of(artifact)
    assert publish_any(feature_store, artifact).n_history == 0


def test_the_command(team: Team, command: Command) -> None:
    """Says what it will do and did; an option that would have no effect is an error."""
    artifact = team.train(1, AS_OF, USERS, ITEMS)
    feature_store = team.apply()
    call = ("publish", "--repo", team.repo.path)
    planned = command(*call, "--dry-run")
    assert planned.code == 0, planned.err
    assert f"table {team.schema}.users of PostgreSQL: gets the rows of {artifact.manifest.version}" in planned.out
    assert command(*call, "--history", "none", "--quiet").code == 0
    assert team.both() == {"users": [], "items": []}
    late = command(*call)
    assert f"{len(USERS) + len(ITEMS)} rows written to the tables of the feature views" in late.out
    assert json.loads(command(*call, "--json").out)["n_history"] == 0
    assert team.both() == team.all_of(artifact)
    feature_store.apply(list(embedding_views("shop", team.repo.data).by_name().values()))
    for extra in ([], ["--dry-run"]):
        answer = command(*call, "--history", "feast", *extra)
        assert (answer.code, answer.err.count("\n")) == (2, 1)
        assert "read the files that training writes, so there is no table to write" in answer.err


def test_a_query_and_a_source_of_another_store(team: Team) -> None:
    from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import PostgreSQLSource

    artifact = team.train(1, AS_OF, USERS, ITEMS)
    query = PostgreSQLSource(name="q", query="SELECT * FROM users", timestamp_field="at")
    said = refused(team, team.apply(user_source=query), artifact, InputError)
    assert "is a query, which cannot be written" in said
    file = team.repo.path / "feature_store.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"offline_store": {"type": "duckdb"}}))
    said = refused(team, team.repo.feature_store(), artifact, InputError)
    assert "a PostgreSQLSource, which the offline store of this repo, duckdb, cannot read" in said


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (PushSource(name="p", batch_source=FileSource(path="x", timestamp_field="t")), "got PushSource"),
        (FileSource(name="f", path="x"), "user_source of model 'shop', 'f': it has no timestamp_field"),
        ("users", "expected a table of the offline store, such as a PostgreSQLSource, got str"),
    ],
)
def test_sources_that_cannot_be_one(team: Team, source: DataSource, message: str) -> None:
    team.train(1, AS_OF, USERS, ITEMS)
    with pytest.raises(InputError, match=message):
        embedding_views("shop", team.repo.data, user_source=source)


def test_one_table_for_both_sides(team: Team, tmp_path: Path) -> None:
    """It could hold the columns of one of them only."""
    team.train(1, AS_OF, USERS, ITEMS)
    both = [FileSource(name=name, path=str(tmp_path / "both"), timestamp_field="t") for name in ("a", "b")]
    with pytest.raises(InputError, match="user_source and item_source of model 'shop' are one table"):
        embedding_views("shop", team.repo.data, user_source=both[0], item_source=both[1])


@pytest.mark.parametrize("tags", [{"a": 1}, {1: "a"}, ["a"], "a"])
def test_tags_that_are_none(team: Team, tags: Any) -> None:
    team.train(1, AS_OF, USERS, ITEMS)
    with pytest.raises(InputError, match="expected names and values that are text"):
        embedding_views("shop", team.repo.data, tags=tags)


def test_the_doctor(team: Team) -> None:
    """Finds nothing in PostgreSQL and in its settings, and then the table that is gone."""
    artifact = team.train(1, AS_OF, USERS, ITEMS)
    publish_any(team.apply(), artifact)

    def said(check: str) -> list[tuple[str, str]]:
        return [(each.level, each.message) for each in examine(team.repo).findings if each.check == check]

    assert [level for level, _ in said("history") + said("configuration")] == ["ok", "ok"]
    team.sql("DROP TABLE items")
    ((level, message),) = said("history")
    assert level == "problem"
    assert f"table {team.schema}.items of PostgreSQL does not exist; create it: CREATE TABLE" in message

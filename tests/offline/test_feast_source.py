"""``feast:NAME``: the log is a data source that the repo has already."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Field, FileSource, PushSource, RequestSource
from feast.types import Int64
from tests.conftest import Command

from embedding_trainers.interactions import read_interactions
from feast_embeddings._feast.private import offline_rows
from feast_embeddings.errors import InputError
from feast_embeddings.reading import Location
from feast_embeddings.repo import Repo, init_repo

N = 300
START = datetime(2026, 1, 1, tzinfo=UTC)
ROWS = pa.table(
    {
        "user_id": [f"u{i % 30}" for i in range(N)],
        "item_id": [f"i{i * 7 % 41}" for i in range(N)],
        "event_timestamp": pa.array([START + timedelta(hours=i) for i in range(N)], pa.timestamp("us", "UTC")),
    }
)


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """A repo with the rows as a file source, and as the batch source of a push source."""
    repo = init_repo(tmp_path_factory.mktemp("feast") / "repo")
    pq.write_table(ROWS, repo.path / "clicks.parquet")
    clicks = FileSource(name="clicks", path=str(repo.path / "clicks.parquet"), timestamp_field="event_timestamp")
    repo.feature_store().apply([clicks, PushSource(name="pushed", batch_source=clicks)])
    return repo


@pytest.mark.parametrize("name", ["clicks", "pushed"])
def test_a_file_source_is_read_as_its_file_is(name: str, repo: Repo) -> None:
    """By the readers of this project, so with all of their rules."""
    log = read_interactions(Location(f"feast:{name}", repo=repo.path))
    assert log.fingerprint() == read_interactions(repo.path / "clicks.parquet").fingerprint()


def test_a_source_that_the_repo_lacks(repo: Repo, tmp_path: Path) -> None:
    """The error lists those that it has; without a repo it says so."""
    with pytest.raises(InputError, match=r"feast:views: .* has the data sources clicks, pushed"):
        read_interactions(Location("feast:views", repo=repo.path))
    with pytest.raises(InputError, match="is not a Feast repo"):
        read_interactions(Location("feast:views", repo=tmp_path))


def test_a_source_without_rows(tmp_path: Path) -> None:
    """Its values come with each request."""
    repo = init_repo(tmp_path / "repo")
    asked = RequestSource(name="asked", schema=[Field(name="x", dtype=Int64)])
    repo.feature_store().apply([asked])
    with pytest.raises(InputError, match="feast:asked has no rows, as its values come with each request"):
        read_interactions(Location("feast:asked", repo=repo.path))


def test_other_sources_are_read_through_the_offline_store(repo: Repo) -> None:
    """All of their columns, and only the rows between two times."""
    feature_store = repo.feature_store()
    source = feature_store.get_data_source("clicks")
    last = START + timedelta(hours=99)
    table = offline_rows(feature_store, source, START, last)
    assert set(ROWS.column_names) <= set(table.column_names)
    assert len(table) == 100
    assert set(table["user_id"].to_pylist()) == {f"u{i}" for i in range(30)}


def test_commands_take_it(repo: Repo, command: Command) -> None:
    """Train, evaluate and profile, each with the repo that has the source."""
    times = ("--timestamp-column", "event_timestamp")
    small = ("--factors", "4", "--threads", "1", "--quiet", "--json")
    place = ("--repo", repo.path)
    trained = command("train", *place, "--model", "m", "--interactions", "feast:clicks", *times, *small)
    assert trained.code == 0, trained.err
    assert json.loads(trained.out)["n_interactions"] == N
    judged = command("evaluate", *place, "--interactions", "feast:clicks", *times, "--split", "user", *small)
    assert judged.code == 0, judged.err
    assert json.loads(judged.out)["n_items"] == 41
    found = command("profile", "feast:clicks", *place, *times, "--json")
    assert found.code == 0, found.err
    assert json.loads(found.out)["rows"] == N
    wrong = command("train", *place, "--model", "m", "--interactions", "feast:nothing", *times, *small)
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
    queried = command(
        *("train", *place, "--model", "m", "--interactions", repo.path / "clicks.parquet", *times, *small),
        *("--query", "SELECT * FROM log WHERE item_id <> 'i0'"),
    )
    assert queried.code == 0, queried.err
    assert json.loads(queried.out)["n_items"] == 40

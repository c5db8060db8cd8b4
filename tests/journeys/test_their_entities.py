"""A team's own Feast repo, as `feast init` makes it, gets embeddings of its own entity, and nothing else changes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from feast import FeatureStore
from feast.repo_operations import init_repo as feast_init
from tests.conftest import Command
from tests.support.shop import AS_OF, item_table, user_table

from feast_embeddings import EmbeddingStore
from feast_embeddings.artifact import Artifact, TrainerInfo, write_artifact

# Of Feast's dask offline store, the default of `feast init`.
pytestmark = pytest.mark.filterwarnings("ignore:Downcasting object dtype arrays:FutureWarning")

DRIVERS = list(range(1001, 1021))
ZONES = [f"zone-{i}" for i in range(30)]
NEWER = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2)
TEN_LINES = """from pathlib import Path
from feast import Entity, FeatureService, ValueType
from feast_embeddings import embedding_views
from feature_definitions import driver, driver_stats_fv

zone = Entity(name="zone", join_keys=["zone_id"], value_type=ValueType.STRING)
rides = embedding_views("rides", Path(__file__).parent / "data", user_entity=driver, item_entity=zone)
globals().update(rides.by_name())
training_set = FeatureService(
    name="training_set", features=[driver_stats_fv[["conv_rate"]], rides.user_embeddings[["embedding", "version"]]]
)
"""


def write_rides(data: Path, seed: int = 0, as_of: datetime = AS_OF, model: str = "rides") -> Artifact:
    rng = np.random.default_rng(seed)
    return write_artifact(
        data,
        model,
        users=user_table(rng, pa.array(DRIVERS), [[ZONES[i], ZONES[i + 1]] for i in range(len(DRIVERS))]),
        items=item_table(rng, pa.array(ZONES)),
        as_of=as_of,
        trainer=TrainerInfo(name="random", config={}),
        seed=seed,
        metrics={},
        fingerprint="0" * 64,
        n_interactions=40,
    )


def run(command: list[str]) -> None:
    program = Path(sys.executable).parent / command[0]
    done = subprocess.run([str(program), *command[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def answers(feature_store: FeatureStore) -> list[bytes]:
    """What the team asks today: views, on-demand views and services, online and point in time."""
    rows = [{"driver_id": id, "val_to_add": 1, "val_to_add_2": 2} for id in (1001, 1003, 9)]
    services = [feature_store.get_feature_service(f"driver_activity_v{i}") for i in (1, 2, 3)]
    asked: list[Any] = [*services, ["driver_hourly_stats:acc_rate", "driver_hourly_stats_fresh:conv_rate"]]
    online = [feature_store.get_online_features(features, rows).proto for features in asked]
    times = pd.to_datetime([NEWER, NEWER - timedelta(hours=7), NEWER], utc=True)
    frame = pd.DataFrame(
        {"driver_id": [1001, 1002, 1004], "event_timestamp": times, "val_to_add": 1, "val_to_add_2": [1, 2, 3]}
    )
    tables = [feature_store.get_historical_features(frame, features).to_df() for features in services[:2]]
    joined = [table.sort_values(["driver_id"]).to_json(orient="split").encode() for table in tables]
    return [each.SerializeToString(deterministic=True) for each in online] + joined


@dataclass(frozen=True)
class Team:
    repo: Path
    feature_store: FeatureStore
    before: list[bytes]
    older: Artifact
    artifact: Artifact


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Team:
    """The repo with the ten lines, after the first publish; what it answered before is kept."""
    folder = tmp_path_factory.mktemp("their repo")
    feast_init("team", "local", repo_path=str(folder / "team"))
    repo = next(folder.rglob("feature_store.yaml")).parent
    run(["feast", "-c", str(repo), "apply"])
    feature_store = FeatureStore(repo_path=str(repo))
    feature_store.materialize(datetime(2020, 1, 1, tzinfo=UTC), datetime.now(UTC))
    before = answers(feature_store)

    config = yaml.safe_load((repo / "feature_store.yaml").read_text())
    config["online_store"] = {"type": "feast_embeddings.RoutedOnlineStore", "default": config["online_store"]}
    (repo / "feature_store.yaml").write_text(yaml.safe_dump(config))
    (repo / "embeddings.py").write_text(TEN_LINES)
    older, artifact = write_rides(repo / "data"), write_rides(repo / "data", seed=1, as_of=NEWER)
    run(["feast", "-c", str(repo), "apply"])
    run(["feast-embeddings", "publish", "--repo", str(repo), "--quiet"])
    return Team(repo, FeatureStore(repo_path=str(repo)), before, older, artifact)


def test_every_earlier_call_is_equal_to_the_byte(team: Team) -> None:
    """And no second entity was made."""
    assert answers(team.feature_store) == team.before
    assert sorted(entity.name for entity in team.feature_store.list_entities()) == ["driver", "zone"]


def test_a_training_set_of_both_kinds(team: Team) -> None:
    """One key in each row; online and offline the vectors are those of the artifact, and none from the future."""
    feature_store = team.feature_store
    service = feature_store.get_feature_service("training_set")
    vectors = dict(zip(DRIVERS, team.artifact.table("user")["embedding"].to_pylist(), strict=True))
    asked = [1001, 1005, 1020, 9]
    found = feature_store.get_online_features(service, [{"driver_id": id} for id in asked]).to_dict()
    assert found["embedding"] == [vectors.get(id) for id in asked]
    assert found["version"] == [team.artifact.manifest.version] * 3 + [None]
    alone = feature_store.get_online_features(["driver_hourly_stats:conv_rate"], [{"driver_id": id} for id in asked])
    assert found["conv_rate"] == alone.to_dict()["conv_rate"]
    assert set(found) == {"driver_id", "conv_rate", "embedding", "version"}

    # The team's own features of `feast init` are of the last days.
    times = [NEWER, NEWER - timedelta(seconds=1), NEWER]
    frame = pd.DataFrame({"driver_id": [1001, 1001, 1005], "event_timestamp": times, "label": [0, 1, 2]})
    joined = feature_store.get_historical_features(frame, service).to_df().sort_values("label")
    older = team.older.table("user")["embedding"][0].as_py()
    assert [row.tolist() for row in joined["embedding"]] == [vectors[1001], older, vectors[1005]]
    assert set(joined.columns) == {*frame.columns, "conv_rate", "embedding", "version"}
    early = pd.DataFrame({"driver_id": [1001], "event_timestamp": [AS_OF - timedelta(seconds=1)]})
    assert EmbeddingStore(feature_store, "rides").training_frame(early)["user_version"].tolist() == [None]
    ours = EmbeddingStore(feature_store, "rides").training_frame(frame, allow_mixed_spaces=True)
    assert [row.tolist() for row in ours["user_embedding"]] == [row.tolist() for row in joined["embedding"]]


def test_queries_have_their_join_keys(team: Team) -> None:
    store = EmbeddingStore(team.feature_store, "rides")
    found = store.rank(1001, k=3, exclude_seen=False)
    users, items = team.artifact.table("user"), team.artifact.table("item")
    scores = np.array(items["embedding"].to_pylist()) @ np.array(users["embedding"][0].as_py())
    scores += items["bias"].to_numpy()
    assert found.ids == [ZONES[i] for i in np.argsort(-scores)[:3]]
    assert set(found.to_dicts()[0]) == {"zone_id", "score", "title", "category", "price", "tags"}
    assert store.user_embeddings([1002]).vectors[0].tolist() == users["embedding"][1].as_py()
    assert store.item_embeddings(["zone-3"]).vectors[0].tolist() == items["embedding"][3].as_py()
    # As in requests over HTTP, whatever the join key.
    for name in ("zone_id", "item_id"):
        assert store.similar_items("zone-1", filter=f"{name} IN ('zone-2')").ids == ["zone-2"]
    exported = store.export("user").read_all().sort_by("driver_id")
    assert exported["driver_id"].to_pylist() == DRIVERS
    assert exported["embedding"].to_pylist() == users["embedding"].to_pylist()


def test_the_commands(team: Team, command: Command, tmp_path: Path) -> None:
    """Each one answers by the team's ids, and its tables have the team's column."""

    def ask(*arguments: object) -> str:
        done = command(*arguments, "--repo", team.repo)
        assert done.code == 0, done.err
        return done.out

    for name, id, column in [("similar-users", 1001, "driver_id"), ("similar-items", "zone-1", "zone_id")]:
        rows = json.loads(ask(name, id, "--json", "-k", 2))
        assert column in json.dumps(rows)
    ask("rank", 1001)
    ask("user-embedding", 1001)
    vectors = team.artifact.table("user")["embedding"].to_pylist()
    for version, of in [("live", team.artifact), ("previous", team.older)]:
        output = tmp_path / f"{version}.parquet"
        ask("export", "--entity", "user", "--output", output, "--version", version, "--quiet")
        table = pq.read_table(output).sort_by("driver_id")
        assert table["driver_id"].to_pylist() == DRIVERS
        assert table["embedding"].to_pylist() == of.table("user")["embedding"].to_pylist()
    labels = tmp_path / "labels.csv"
    labels.write_text(f"driver_id,event_timestamp\n1002,{NEWER.isoformat()}\n9,{NEWER.isoformat()}\n")
    ask("training-frame", "--entities", labels, "--output", tmp_path / "frame.parquet")
    frame = pq.read_table(tmp_path / "frame.parquet")
    assert frame["user_embedding"].to_pylist() == [vectors[1], None]
    labels.write_text(f"user_id,event_timestamp\n1002,{NEWER.isoformat()}\n")
    refused = command("training-frame", "--entities", labels, "--output", tmp_path / "x.parquet", "--repo", team.repo)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "event_timestamp and driver_id, zone_id or both" in refused.err
    report = json.loads(command("doctor", "--repo", team.repo, "--json").out)
    assert [each for each in report["findings"] if each["level"] == "problem"] == []


def test_writes_of_feast(team: Team) -> None:
    """Materialize and push reach the live version under the team's key."""
    feature_store, rows = team.feature_store, [{"driver_id": 1001}, {"driver_id": 1002}]
    view = ["rides_user_embeddings:embedding", "rides_user_embeddings:country"]
    vectors = team.artifact.table("user")["embedding"].to_pylist()
    more = team.artifact.table("user").slice(0, 1).to_pandas().rename(columns={"user_id": "driver_id"})
    more["embedding"] = [np.ones(8, dtype=np.float32)]
    more["event_timestamp"] = NEWER + timedelta(minutes=1)
    feature_store.write_to_online_store("rides_user_embeddings", more)
    assert feature_store.get_online_features(view, rows).to_dict()["embedding"] == [[1.0] * 8, vectors[1]]
    feature_store.materialize(NEWER, NEWER, feature_views=["rides_user_embeddings", "rides_item_embeddings"])
    found = feature_store.get_online_features(view, rows).to_dict()
    assert found["embedding"] == [[1.0] * 8, vectors[1]]  # the newer row stays
    assert EmbeddingStore(feature_store, "rides").user_embeddings([1001, 1002]).vectors.tolist() == found["embedding"]

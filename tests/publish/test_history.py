"""Versions in the tables of a repo's own offline store, against a dictionary of what each version held."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from tests.support.publishing import publish_any
from tests.support.shop import AS_OF
from tests.support.team_tables import DAY, ITEMS, USERS, Team, make_team

from feast_embeddings import EmbeddingStore

# Of Feast's dask offline store.
pytestmark = pytest.mark.filterwarnings("ignore:Downcasting object dtype arrays:FutureWarning")


@pytest.fixture(params=["postgres", "duckdb", "dask"])
def team(request: pytest.FixtureRequest, tmp_path: Path) -> Team:
    uri = request.getfixturevalue("postgres") if request.param == "postgres" else ""
    return make_team(request.param, tmp_path, uri)


def test_each_label_gets_what_the_dictionary_says(team: Team) -> None:
    """Both sides and a view of the team's own, in one join; before, between, at and after the versions."""
    first = team.train(1, AS_OF, USERS[:4], ITEMS[:10])
    feature_store = team.apply()
    assert publish_any(feature_store, first).n_history == 14
    second = team.train(2, AS_OF + 7 * DAY, USERS[1:], ITEMS[2:])
    assert publish_any(feature_store, second).n_history == 14
    for artifact in (first, second):
        team.remember(artifact)
    moments = [
        -DAY,
        -timedelta(microseconds=1),
        timedelta(0),
        3 * DAY,
        7 * DAY - timedelta(seconds=1),
        7 * DAY,
        9 * DAY,
    ]
    labels = [
        {"user_id": user, "item_id": ITEMS[(3 * n + m) % len(ITEMS)], "event_timestamp": AS_OF + moment}
        for n, user in enumerate([*USERS, "u-unknown"])
        for m, moment in enumerate(moments)
    ]
    frame = pd.DataFrame(labels).assign(label=range(len(labels)))
    service = feature_store.get_feature_service("both")
    found = feature_store.get_historical_features(frame, service, full_feature_names=True).to_df()
    assert found["label"].is_unique
    joined: dict[int, Any] = {row["label"]: row for row in found.to_dict("records")}
    kept = set()
    for label, row in enumerate(labels):
        user, item, time = row["user_id"], row["item_id"], row["event_timestamp"]
        assert isinstance(time, datetime)
        wanted = {"user": team.newest("user", str(user), time), "item": team.newest("item", str(item), time)}
        # The trap of dask: a known id that is older than its first version takes the whole row away.
        is_early = any(
            version is None and (side, str(id)) in team.truth
            for (side, (version, _)), id in zip(wanted.items(), (user, item), strict=True)
        ) or (user in USERS[:3] and time < AS_OF - DAY)
        if team.store == "dask" and is_early:
            continue
        kept.add(label)
        for side, (version, vector) in wanted.items():
            got = joined[label][f"shop_{side}_embeddings__embedding"]
            assert (None if version is None else list(got)) == vector, (row, side)
            said = joined[label][f"shop_{side}_embeddings__version"]
            assert (None if pd.isna(said) else said) == version
        orders = joined[label]["stats__orders"]
        assert (orders == USERS.index(str(user)) + 1) if user in USERS[:3] else pd.isna(orders)
    assert joined.keys() == kept
    # Our own join, of the same files.
    ours = EmbeddingStore(feature_store, "shop").training_frame(frame, allow_mixed_spaces=True)
    for side, ids in (("user", frame["user_id"]), ("item", frame["item_id"])):
        expected = [team.newest(side, id, time)[0] for id, time in zip(ids, frame["event_timestamp"], strict=True)]
        assert ours[f"{side}_version"].tolist() == expected


def test_a_version_is_written_once(team: Team) -> None:
    """Publishing again, going back and publishing the old one again add no row."""
    first = team.train(1, AS_OF, USERS, ITEMS)
    feature_store = team.apply()
    publish_any(feature_store, first)
    assert team.both() == team.all_of(first)
    again = publish_any(feature_store, first)
    assert (again.changed, again.n_history) == (False, 0)
    second = team.train(2, AS_OF, USERS, ITEMS)  # of the same time
    assert publish_any(feature_store, second).n_history == len(USERS) + len(ITEMS)
    assert publish_any(feature_store, first).n_history == 0
    assert team.both() == team.all_of(first, second)


def test_every_value_arrives(team: Team) -> None:
    """Text with quotes, braces, new lines; empty text and lists; nulls; floats to the bit; and a column of theirs."""
    artifact = team.train(1, AS_OF, USERS, ITEMS)
    publish_any(team.apply(), artifact)
    for side, key in (("user", "customer"), ("item", "item_id")):
        expected = artifact.table(side).rename_columns(  # type: ignore[arg-type]
            [
                {f"{side}_id": key, "event_timestamp": "at", "created_timestamp": "made"}.get(name, name)
                for name in artifact.schema(side).names  # type: ignore[arg-type]
            ]
        )
        wanted = expected.sort_by(key).to_pylist()
        if team.store == "postgres":
            names = ", ".join(f'"{name}"' for name in expected.column_names)
            rows = team.sql(f'SELECT {names} FROM {side}s ORDER BY "{key}" COLLATE "C"')  # noqa: S608
            got = [dict(zip(expected.column_names, row, strict=True)) for row in rows]
            for row in got:
                row["embedding"] = np.float32(row["embedding"]).tolist()
                row |= {"bias": float(np.float32(row["bias"]))} if side == "item" else {}
                row |= {name: row[name].astimezone(UTC) for name in ("at", "made")}
            for row in wanted:
                row |= {name: row[name].astimezone(UTC) for name in ("at", "made")}
        else:
            got = pq.read_table(team.repo.path / "warehouse" / f"{side}s").sort_by(key).to_pylist()
        assert got == wanted
    if team.store == "postgres":
        assert team.sql("SELECT DISTINCT note FROM users") == [("ours",)]

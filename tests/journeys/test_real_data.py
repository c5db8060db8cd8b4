"""The commands on real logs, which are not part of the project: MovieLens 100K and Gowalla."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.conftest import Command

from embedding_trainers.train import train_model
from embedding_trainers.trainer import RunOptions
from feast_embeddings import embedding_views, publish_artifact
from feast_embeddings.artifact import load_artifact
from feast_embeddings.repo import Repo, init_repo

Ask = Callable[..., list[dict[str, Any]]]


def apply_and_publish(repo: Repo, model: str) -> None:
    """What `feast apply` and `publish` do, in this process."""
    feature_store = repo.feature_store()
    feature_store.apply(list(embedding_views(model, repo.data).by_name().values()))
    publish_artifact(feature_store, load_artifact(repo.data, model))


@pytest.fixture(scope="module")
def movies(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """MovieLens 100K trained with seed 0 and one thread, which gives the same bytes each time, and published."""
    repo = init_repo(tmp_path_factory.mktemp("movies") / "repo")
    train_model(
        repo.path,
        "movies",
        real_data / "ml-100k_interactions.parquet",
        item_attributes=real_data / "ml-100k_items.parquet",
        user_attributes=real_data / "ml-100k_users.parquet",
        trainer="bpr",
        options=RunOptions(seed=0, threads=1),
        evaluation=False,
    )
    apply_and_publish(repo, "movies")
    return repo


@pytest.fixture
def ask(movies: Repo, command: Command) -> Ask:
    """A query through the command line: its neighbours."""

    def query(*arguments: str) -> list[dict[str, Any]]:
        answer = command(*arguments, "--repo", movies.path, "--json")
        assert answer.code == 0, answer.err
        found: list[dict[str, Any]] = json.loads(answer.out)["neighbours"]
        return found

    return query


# Measured: 9, 8 and 10 of 10 (seeds 1 and 2: 9, 9, 10 and 9, 7, 9). Ten at random hold 0.7: 122 of 1,682 are.
@pytest.mark.parametrize(
    ("item", "title"),
    [("71", "Lion King, The"), ("95", "Aladdin"), ("418", "Cinderella")],
)
def test_neighbours_of_childrens_films(ask: Ask, item: str, title: str) -> None:
    """Of the ten nearest to a well-known children's film, at least eight are children's films."""
    genres = {row["item_id"]: row["genres"] for row in ask("similar-items", "1", "-k", "2000")}
    assert "Children's" in genres[item]
    found = ask("similar-items", item)
    assert len(found) == 10
    childrens = [row["title"] for row in found if "Children's" in row["genres"]]
    assert len(childrens) >= 8, (title, [(row["title"], row["genres"]) for row in found])


def test_filters_on_real_attributes(ask: Ask, movies: Repo) -> None:
    """Genres, years, ages and occupations of the files can be filtered on; the order stays that of all."""
    everything = ask("similar-items", "71", "-k", "2000")
    assert len(everything) == 1681
    old = "release_year IN ('1937', '1939', '1940', '1964')"
    found = ask("similar-items", "71", "-k", "5", "--filter", f"genres = 'Musical' AND {old}")
    expected = [row["item_id"] for row in everything if "Musical" in row["genres"] and row["release_year"] in old]
    assert [row["item_id"] for row in found] == expected[:5]
    assert len(found) == 5
    students = ask("similar-users", "1", "-k", "1000", "--filter", "occupation = 'student' AND age < 20")
    table = load_artifact(movies.data, "movies").table("user").to_pandas().set_index("user_id")
    young = table[(table.occupation == "student") & (table.age < 20)]
    assert {row["user_id"] for row in students} == set(young.index) - {"1"}


def test_rank_leaves_out_what_was_seen(ask: Ask, real_data: Path) -> None:
    """A user is not recommended a film that is in the user's log, unless asked for."""
    log = pq.read_table(real_data / "ml-100k_interactions.parquet")
    seen = {row["item_id"] for row in log.select(["user_id", "item_id"]).to_pylist() if row["user_id"] == "196"}
    assert len(seen) == 39
    assert {row["item_id"] for row in ask("rank", "196", "-k", "2000")} == set(log["item_id"].to_pylist()) - seen
    top = [row["item_id"] for row in ask("rank", "196", "-k", "100", "--include-seen")]
    assert seen & set(top)


def test_whole_number_ids_of_gowalla(real_data: Path, tmp_path: Path, command: Command) -> None:
    """int32 ids of a real log become int64 and are served, those below and above 128 alike."""
    path = real_data / "gowalla_train.parquet"
    if not path.is_file():
        pytest.skip(f"no {path.name} in {path.parent}")
    repo, log = init_repo(tmp_path / "repo"), tmp_path / "log.parquet"
    rows = pq.read_table(path)
    assert str(rows.schema.field("user_id").type) == "int32"
    rows = rows.filter(np.asarray(rows["user_id"]) % 20 == 0)
    pq.write_table(rows, log)
    place = ["--repo", repo.path, "--model", "places"]
    trained = command(
        *("train", *place, "--interactions", log, "--threads", "1", "--seed", "0", "--json", "--no-evaluate"),
        *("--trainer", "bpr", "--param", "iterations=5", "--factors", "16"),
    )
    assert trained.code == 0, trained.err
    apply_and_publish(repo, "places")
    users, items = sorted(set(rows["user_id"].to_pylist())), sorted(set(rows["item_id"].to_pylist()))
    asked = [users[0], 120, 140, users[-1]]
    assert asked[0] < 128 < asked[-1]
    answer = json.loads(command("user-embedding", *place, *asked).out)
    assert ([row["id"] for row in answer["embeddings"]], answer["missing"]) == (asked, [])
    ranked = json.loads(command("rank", *place, users[-1], "-k", "100", "--json").out)["neighbours"]
    assert len({row["item_id"] for row in ranked}) == 100
    assert {row["item_id"] for row in ranked} <= set(items)
    online = repo.feature_store().get_online_features(
        ["places_item_embeddings:embedding"], [{"item_id": item} for item in items[:200]]
    )
    table = load_artifact(repo.data, "places").table("item")
    assert table["item_id"].slice(0, 200).to_pylist() == items[:200]
    assert online.to_dict()["embedding"] == table["embedding"].slice(0, 200).to_pylist()

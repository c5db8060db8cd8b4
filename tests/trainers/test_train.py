from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedding_trainers.evaluation import evaluate
from embedding_trainers.interactions import (
    Columns,
    Interactions,
    Preparation,
    Reading,
    Split,
    read_interactions,
    split_interactions,
)
from embedding_trainers.models.bpr import BPRConfig, train_bpr
from embedding_trainers.models.svd import SVD, SVDConfig
from embedding_trainers.search import Race, Search, Tuning, race, tune
from embedding_trainers.train import train_model
from embedding_trainers.trainer import RunOptions, find_trainer
from feast_embeddings.artifact import ENTITIES, list_artifacts, load_artifact
from feast_embeddings.errors import InputError
from feast_embeddings.reading import IdType

BPR: dict[str, Any] = {"trainer": "bpr", "parameters": {"factors": 4, "iterations": 3}}
ONE_THREAD = RunOptions(seed=5, threads=1)


def vectors(table: pa.Table) -> Any:
    return np.stack(table["embedding"].to_numpy())


def test_artifact_holds_the_factors(repo: Path, tmp_path: Path) -> None:
    """The tables are what the trainer returned, row by row, with counts, history and attributes."""
    log = tmp_path / "log.parquet"
    users = ["b", "a", "b", "b", "c", "a"]
    items = [7, 7, -3, 7, 200, 200]
    times = [1_700_000_000 + second for second in (3, 1, 2, 6, 5, 4)]
    pq.write_table(pa.table({"user_id": users, "item_id": items, "timestamp": times}), log)
    (tmp_path / "items.csv").write_text("item_id,title\n200,Z\n7,A\n9,no one\n")
    (tmp_path / "users.jsonl").write_text('{"user_id": "c", "age": 30}\n')

    training = train_model(
        repo,
        "shop",
        log,
        **BPR,
        options=ONE_THREAD,
        item_attributes=tmp_path / "items.csv",
        user_attributes=tmp_path / "users.jsonl",
        content="none",
    )
    expected = train_bpr(read_interactions(log).to_csr(), BPRConfig(factors=4, iterations=3), ONE_THREAD)
    artifact = load_artifact(repo / "data", "shop")
    user_table, item_table = artifact.table("user"), artifact.table("item")

    assert training.artifact == artifact
    assert user_table["user_id"].to_pylist() == ["a", "b", "c"]
    assert item_table["item_id"].to_pylist() == [-3, 7, 200]
    np.testing.assert_array_equal(expected.user_factors, vectors(user_table))
    np.testing.assert_array_equal(expected.item_factors, vectors(item_table))
    np.testing.assert_array_equal(expected.item_bias, item_table["bias"])
    assert user_table["n_interactions"].to_pylist() == [2, 3, 1]
    assert item_table["n_interactions"].to_pylist() == [1, 3, 2]
    assert user_table["seen_items"].to_pylist() == [[7, 200], [-3, 7], [200]]
    assert item_table["title"].to_pylist() == [None, "A", "Z"]
    assert user_table["age"].to_pylist() == [None, None, 30]
    as_of = datetime.fromtimestamp(1_700_000_006, UTC)
    assert [as_of] * 3 == user_table["event_timestamp"].to_pylist()

    manifest = artifact.manifest
    assert (
        manifest.n_users,
        manifest.n_items,
        manifest.n_interactions,
        manifest.dim,
        manifest.seed,
    ) == (3, 3, 6, 4, 5)
    assert ("bpr", BPRConfig(factors=4, iterations=3, regularization=0.04)) == (
        manifest.trainer.name,
        BPRConfig.model_validate(manifest.trainer.config),
    )
    assert as_of == manifest.as_of
    assert read_interactions(log).fingerprint() == manifest.fingerprint
    assert list(training.seconds) == ["read", "evaluate", "fit", "write"]


def test_checkerboard(repo: Path, log: Path) -> None:
    """From the file on disk to the vectors on disk, the first unseen item is the one that was withheld."""
    artifact = train_model(repo, "board", log, parameters={"factors": 8}).artifact
    users, items = artifact.table("user"), artifact.table("item")
    scores = vectors(users) @ vectors(items).T + items["bias"].to_numpy()
    ids = items["item_id"].to_pylist()
    for number, seen in enumerate(users["seen_items"].to_pylist()):
        scores[number, [ids.index(item) for item in seen]] = -np.inf

    assert [f"i{n:02}" for n in range(50)] == [ids[number] for number in scores.argmax(axis=1)]


def test_same_seed_same_bytes(repo: Path, log: Path) -> None:
    """Two runs with one thread and one seed write the same vectors, evaluated or not."""
    first = train_model(repo, "m", log, **BPR, options=ONE_THREAD).artifact
    second = train_model(repo, "m", log, **BPR, options=ONE_THREAD, evaluation=False).artifact
    other = train_model(repo, "m", log, **BPR, options=RunOptions(seed=6, threads=1)).artifact

    for entity in ("user", "item"):
        table = first.table(entity)
        assert vectors(table).tobytes() == vectors(second.table(entity)).tobytes()
        assert vectors(table).tobytes() != vectors(other.table(entity)).tobytes()
    assert first.manifest.fingerprint == second.manifest.fingerprint
    assert len(list_artifacts(repo / "data", "m")) == 3


def test_metrics(repo: Path, log: Path) -> None:
    """The metrics of the holdout go into the manifest, unless nobody asked for them."""
    judged = train_model(repo, "m", log, **BPR)
    assert judged.evaluation is not None
    assert judged.evaluation.n_users == 50
    assert judged.evaluation.method == "random 20% of each user's items"
    names = {"recall@20", "ndcg@20", "popular_recall@20", "popular_ndcg@20"}
    assert names == set(judged.artifact.manifest.metrics)
    assert judged.evaluation.metrics == judged.artifact.manifest.metrics

    plain = train_model(repo, "m", log, **BPR, evaluation=False)
    assert plain.evaluation is None
    assert plain.artifact.manifest.metrics == {}
    assert list(plain.seconds) == ["read", "fit", "align", "write"]


@pytest.mark.parametrize(
    ("users", "items"),
    [(["u"], ["i"]), (["u"] * 3, ["i", "j", "i"]), (["u", "v"], ["i", "i"])],
    ids=["one-pair", "one-user", "one-item"],
)
def test_tiny(repo: Path, tmp_path: Path, users: list[str], items: list[str]) -> None:
    """One user or one item is trained, and the result says why it was not measured."""
    log = tmp_path / "log.csv"
    log.write_text("user_id,item_id\n" + "".join(f"{u},{i}\n" for u, i in zip(users, items, strict=True)))
    training = train_model(repo, "m", log)

    assert training.evaluation is not None
    assert (
        training.evaluation.method,
        training.evaluation.metrics,
    ) == ("too few interactions to hold any back", {})
    assert sorted(set(users)) == training.artifact.table("user")["user_id"].to_pylist()
    assert training.artifact.manifest.trainer.name == "svd"
    assert training.race is not None
    assert training.race.reason.startswith("svd is the cheapest; too few interactions for a race: 0 test users")


def test_as_of_without_times(repo: Path, log: Path) -> None:
    """A log without times is as of the training itself."""
    before = datetime.now(UTC)
    as_of = train_model(repo, "m", log, **BPR).artifact.manifest.as_of

    assert before <= as_of <= before + timedelta(minutes=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "My Model"}, "model name 'My Model'"),
        ({"trainer": "brp"}, "no trainer 'brp'; installed are als, bpr, concat, graph, item2vec, sasrec, softmax, svd"),
        ({"parameters": {"factor": 3}}, "no parameter 'factor'; there are factors"),
        ({"parameters": {"learning_rate": 1e9}}, "lower the learning rate"),
        ({"interactions": Path("nowhere.parquet")}, "nowhere.parquet does not exist"),
        ({"columns": Columns(item="sku")}, "has no column 'sku'"),
        ({"preparation": Preparation(until=datetime(2024, 1, 1, tzinfo=UTC))}, "has no column 'timestamp'"),
        ({"preparation": Preparation(half_life=timedelta(days=30))}, "bpr asks only whether a pair occurs"),
        ({"item_attributes": Path("nowhere.csv")}, "nowhere.csv does not exist"),
        ({"item_attributes": "item_id,version\ni01,2\n"}, "the column name 'version' is reserved"),
        ({"user_attributes": "user_id,x\nu01,2\nu01,2\n"}, "1 of 2 rows repeat an id, e.g. 'u01'"),
    ],
    ids=[
        "model",
        "trainer",
        "parameter",
        "divergence",
        "no-file",
        "no-column",
        "no-times",
        "half-life-without-weights",
        "no-items",
        "reserved-attribute",
        "repeated-attribute",
    ],
)
def test_failure_leaves_nothing(repo: Path, log: Path, changes: dict[str, Any], message: str) -> None:
    """Whatever is wrong, the error says it and no version or temporary folder is left."""
    arguments: dict[str, Any] = {"model": "m", "interactions": log, **BPR} | changes
    for name in ("item_attributes", "user_attributes"):
        if isinstance(arguments.get(name), str):
            (repo / f"{name}.csv").write_text(arguments[name])
            arguments[name] = repo / f"{name}.csv"

    with pytest.raises(InputError) as error:
        train_model(repo, arguments.pop("model"), arguments.pop("interactions"), **arguments)
    assert message in str(error.value)
    assert [path for path in repo.glob("data/**/*") if path.name != "m"] == []


@pytest.mark.parametrize(
    ("ids", "price", "message"),
    [("int", "9.5", "changed its type.*user_id"), (None, "dear", "'price': 1 of 1 values are not a number.*'dear'")],
    ids=["ids", "attribute"],
)
def test_a_column_of_another_type_is_refused_before_the_fit(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ids: IdType | None, price: str, message: str
) -> None:
    """What cannot join the versions that are there is said before anything was computed."""

    def write(price: str) -> dict[str, Any]:
        pq.write_table(pa.table({"user_id": ["1", "2", "3"], "item_id": ["a", "b", "a"]}), tmp_path / "log.parquet")
        (tmp_path / "items.csv").write_text(f"item_id,price\na,{price}\n")
        return {"interactions": tmp_path / "log.parquet", "item_attributes": tmp_path / "items.csv"}

    train_model(repo, "m", **write("9.5"), **BPR, evaluation=False)
    unable = replace(find_trainer("bpr"), train=lambda *_: pytest.fail("it was fitted"))
    monkeypatch.setattr("embedding_trainers.training.find_trainer", lambda _: unable)
    with pytest.raises(InputError, match=message):
        train_model(repo, "m", **write(price), reading=Reading(user_ids=ids), **BPR, evaluation=False)


def test_a_version_is_read_with_the_types_of_the_one_before(repo: Path, tmp_path: Path) -> None:
    """Numbers of a Parquet log are text where the ids were, and codes that look like numbers stay text."""
    (tmp_path / "log.csv").write_text("user_id,item_id\n007,1\n8,2\n")
    (tmp_path / "items.csv").write_text("item_id,zip,price\n1,01234,1\n2,56789,2\n")
    files: dict[str, Any] = {"item_attributes": tmp_path / "items.csv", **BPR, "evaluation": False}
    train_model(repo, "m", tmp_path / "log.csv", attribute_types={"price": "float"}, **files)
    (tmp_path / "items.csv").write_text("item_id,zip,price\n1,11234,1\n2,56789,2\n")
    later = train_model(repo, "m", pa.table({"user_id": [7, 8], "item_id": [1, 2]}), **files).artifact

    assert later.table("user")["user_id"].to_pylist() == ["7", "8"]
    assert later.table("item").select(["item_id", "zip", "price"]).to_pydict() == {
        "item_id": ["1", "2"],
        "zip": ["11234", "56789"],
        "price": [1.0, 2.0],
    }
    assert (later.manifest.interactions or {})["types"] == {
        "ids": {"user": "text", "item": "text"},
        "attributes": {"user": {}, "item": {"zip": "text", "price": "float", "source": "text"}},
    }


def test_repository_is_needed(tmp_path: Path, log: Path) -> None:
    """A folder that is no Feast repository is refused before anything is read."""
    with pytest.raises(InputError, match=r"has no feature_store\.yaml; run feast-embeddings init"):
        train_model(tmp_path, "m", log)


@pytest.mark.parametrize("evaluation", [True, False])
def test_search_sees_nothing_of_the_evaluation(
    repo: Path, log: Path, monkeypatch: pytest.MonkeyPatch, evaluation: bool
) -> None:
    """Hyper-parameters are searched on the training part; version, evaluation and manifest have the best of them."""
    looked_at: list[Interactions] = []

    def spy(trainer: Any, parameters: Any, log: Interactions, *rest: Any) -> Tuning:
        looked_at.append(log)
        return tune(trainer, parameters, log, *rest)

    monkeypatch.setattr("embedding_trainers.train.tune", spy)
    training = train_model(
        repo, "m", log, trainer="svd", parameters={"factors": 4}, options=ONE_THREAD, search=Search(3),
        evaluation=evaluation,
    )  # fmt: skip
    manifest = training.artifact.manifest
    read = read_interactions(log)
    (searched,) = looked_at

    if evaluation:
        assert training.evaluation is not None
        split = split_interactions(read, seed=ONE_THREAD.seed)
        assert split.test.nnz > 0
        assert searched.to_csr().multiply(split.test).nnz == 0
        config = SVDConfig.model_validate(manifest.trainer.config)
        assert evaluate(SVD.train(split.train, config, ONE_THREAD), split.train, split.test) == manifest.metrics
    else:
        assert searched.fingerprint() == read.fingerprint()
    assert training.tuning is not None
    assert manifest.tuning == training.tuning.to_json()
    assert manifest.tuning["objective"] == "ndcg@20"
    assert len(manifest.tuning["trials"]) == 3
    best = max(manifest.tuning["trials"], key=lambda trial: trial["score"])
    assert {"factors": 4} | best["parameters"] == manifest.trainer.config
    expected = SVD.train(read.to_csr(), SVDConfig.model_validate(manifest.trainer.config), ONE_THREAD)
    np.testing.assert_array_equal(expected.user_factors, vectors(training.artifact.table("user")))


def test_search_and_early_stop_split_by_time(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a log with times they hold back the newest of what the evaluation leaves, so nothing newer is learned from."""
    rng = np.random.default_rng(0)
    users, items = np.nonzero(rng.random((150, 40)) < 0.4)
    times = (1_700_000_000 + rng.permutation(len(users))).astype("datetime64[s]")
    table = pa.table({"user_id": users, "item_id": items, "timestamp": times})
    seen: list[Interactions] = []

    def spy(interactions: Interactions, *, seed: int) -> Split:
        seen.append(interactions)
        return split_interactions(interactions, seed=seed)

    for module in ("tuning", "early_stop"):
        monkeypatch.setattr(f"embedding_trainers.search.{module}.split_interactions", spy)
    training = train_model(
        repo, "m", table, trainer="als", parameters={"factors": 2, "iterations": 2}, options=ONE_THREAD,
        search=Search(1), patience=1,
    )  # fmt: skip

    assert training.tuning is not None
    assert training.tuning.validation.startswith("newest 10% of the interactions")
    oldest = np.sort(times.astype("datetime64[us]").astype(np.int64))[: len(seen[0])]
    for log in seen:
        assert log.timestamps is not None
        np.testing.assert_array_equal(np.sort(log.timestamps), oldest)
    assert len(seen) == 2
    assert len(oldest) == pytest.approx(0.9 * len(users), abs=1)


@pytest.mark.parametrize(("timed", "validation"), [(True, "newest 10% of the interactions"), (False, "random 20% of")])
def test_auto_races_on_the_split_of_the_evaluation(repo: Path, timed: bool, validation: str) -> None:
    """By time where there are times; the winner is as good as if it had been named, and fitted on the same rows."""
    rng = np.random.default_rng(0)
    # Users of two kinds, and each item of one of them, so that there is something to learn.
    likes = np.add.outer(np.arange(200) % 2, np.arange(40) % 2) % 2 == 0
    users, items = np.nonzero((rng.random(likes.shape) < 0.6) & likes)
    table = pa.table({"user_id": users, "item_id": items})
    if timed:
        times = (1_700_000_000 + rng.permutation(len(users))).astype("datetime64[s]")
        table = table.append_column("timestamp", pa.array(times))
    small: dict[str, Any] = {"parameters": {"factors": 4}, "options": ONE_THREAD, "align_to": None}
    found, again, unjudged = (
        train_model(repo, "m", table, evaluation=judged, **small) for judged in (True, True, False)
    )
    name = found.artifact.manifest.trainer.name
    named = train_model(repo, "m", table, trainer=name, **small)

    assert found.race is not None
    assert found.race.method.startswith(validation)
    assert {lap.trainer for lap in found.race.laps} == {"als", "bpr", "softmax", "svd"}
    assert named.race is None
    assert named.artifact.manifest.tuning is None
    assert found.evaluation is not None
    assert named.evaluation is not None
    assert found.evaluation.n_users == named.evaluation.n_users
    assert name in ("als", "svd")  # which race as they are fitted
    lap = next(lap for lap in found.race.laps if lap.trainer == name)
    assert (lap.recall, lap.ndcg) == tuple(named.evaluation.metrics[metric] for metric in ("recall@20", "ndcg@20"))
    honest = found.race.honest_values(found.race.values[name]).mean(axis=0)
    assert honest.tolist() == pytest.approx([found.evaluation.metrics[metric] for metric in ("recall@20", "ndcg@20")])
    for training in (again, unjudged, named):
        assert training.artifact.manifest.trainer == found.artifact.manifest.trainer
        for entity in ENTITIES:
            first, second = (each.artifact.table(entity) for each in (found, training))
            assert vectors(first).tobytes() == vectors(second).tobytes()


def test_auto_before_a_search_sees_nothing_of_the_evaluation(
    repo: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is tuned is another model, and so its test is on interactions that no choice has seen."""
    raced: list[Split] = []

    def spy(racers: Any, split: Split, options: RunOptions, **more: Any) -> Race:
        raced.append(split)
        return race(racers, split, options, **more)

    monkeypatch.setattr("embedding_trainers.train.race", spy)
    training = train_model(repo, "m", log, parameters={"factors": 4}, options=ONE_THREAD, search=Search(1))
    judged = split_interactions(read_interactions(log), seed=ONE_THREAD.seed)
    (split,) = raced
    assert split.train.shape == split.test.shape == judged.test.shape
    assert (split.train + split.test).multiply(judged.test).nnz == 0
    assert split.test.nnz > 0
    assert training.race is not None
    assert (training.artifact.manifest.tuning or {})["race"] == training.race.to_json()

"""Why two are near, where it is known: user u-i of the shop has seen the items i and i + 1."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from tests.conftest import Command
from tests.support.publishing import publish_any
from tests.support.shop import Shop, apply
from tests.support.two_tastes import SEEN, train_two_tastes

from embedding_trainers.models.least_squares import row_regularization
from embedding_trainers.trainer import find_trainer
from feast_embeddings.artifact import embedding_matrix, load_artifact
from feast_embeddings.errors import OptionError
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.repo import init_repo


def test_two_items(command: Command, common_shop: Shop) -> None:
    """Items 7 and 8 have two users each and one in common, of 20; neither is a toy, and one only has tags."""
    where = ("--repo", common_shop.repo.path)
    found = json.loads(command("explain", "sku-7", "sku-8", "--json", *where).out)
    vectors = EmbeddingStore(common_shop.feature_store, "shop").item_embeddings(["sku-7", "sku-8"]).vectors
    cosine = vectors[0] @ vectors[1] / np.prod(np.linalg.norm(vectors, axis=1))
    assert found["cosine"] == pytest.approx(cosine, abs=1e-6)
    near = EmbeddingStore(common_shop.feature_store, "shop").similar_items("sku-7", k=100).ids
    assert found["cosine_rank"] == pytest.approx(1 - near.index("sku-8") / (len(near) - 1))
    nearest = json.loads(command("explain", "sku-7", near[0], "--json", *where).out)
    assert nearest["cosine_rank"] == 1.0
    assert (found["with_first"], found["with_second"], found["with_both"], found["lift"]) == (2, 2, 1, 5)
    assert found["shared_attributes"] == {"category": "Books"}
    found = json.loads(command("explain", "u-1", "u-2", "--entity", "user", "--json", *where).out)
    assert (found["with_both"], found["lift"], found["shared_attributes"]) == (1, 10, {})
    assert "users in common: 1, 5.0 times" in command("explain", "sku-7", "sku-8", *where).out
    ran = command("explain", "sku-7", "sku-7", *where)
    assert (ran.code, ran.err) == (2, "error: 'sku-7' is named twice; name two different items\n")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingStore:
    """Users of two groups, each with items of its own, and one user of both."""
    repo = init_repo(tmp_path_factory.mktemp("trained") / "repo")
    artifact = train_two_tastes(repo.path)
    publish_any(feature_store := apply(repo), artifact)
    return EmbeddingStore(feature_store, "shop")


def test_what_speaks_for_an_item(command: Command, trained: EmbeddingStore) -> None:
    """What the seen items add is the score that `rank` gives, each as the equations of als split it."""
    where = ("--repo", trained.feature_store.repo_path)
    found = json.loads(command("explain", "--user", "both", "--item", "sku-5", "--json", *where).out)
    ranked = trained.rank("both", 1, item_ids=["sku-5"]).scores[0]
    added = {row["item"]: row["adds"] for row in found["items"]}

    assert found["method"] == "exact"
    # A user's trained vector is conjugate gradient, so that it differs from the equations' by as much.
    assert found["folded_in_score"] == pytest.approx(ranked, rel=2e-3)
    assert sum(added.values()) == pytest.approx(found["folded_in_score"], rel=1e-5)
    assert added == {seen: pytest.approx(value, abs=1e-5) for seen, value in _split(trained, "both", "sku-5").items()}
    assert list(added.values()) == sorted(added.values(), reverse=True)
    first, *lines = command("explain", "--user", "both", "--item", "sku-5", *where).out.splitlines()
    assert first == f"score of sku-5 for both, folded in from 3 items (exact): {found['folded_in_score']:.4f}"
    assert lines == [f"{row['adds']:+.4f}  {row['item']}" for row in found["items"]]
    ran = command("explain", "--user", "both", "--item", "nothing", *where)
    assert (ran.code, "nothing" in ran.err, len(ran.err.splitlines())) == (2, True, 1)


def _split(store: EmbeddingStore, user: str, item: str) -> dict[str, float]:
    """The terms of c y_i (YᵀY + Σ (c - 1) y yᵀ + λ I)⁻¹ y, by the dense equations, with the weights of the log."""
    assert store.feature_store.config.repo_path is not None
    artifact = load_artifact(store.feature_store.config.repo_path / "data", "shop")
    items = artifact.table("item")
    factors = dict(zip(items["item_id"].to_pylist(), embedding_matrix(items).astype(np.float64), strict=True))
    config = artifact.manifest.trainer.config
    (ridge,) = row_regularization(np.array([sum(SEEN.values())]), config["alpha"], config["regularization"])
    every = np.array(list(factors.values()))
    left = every.T @ every + ridge * np.eye(8)
    for id, weight in SEEN.items():
        left += config["alpha"] * weight * np.outer(factors[id], factors[id])
    solved = np.linalg.solve(left, factors[item])
    return {id: float((1 + config["alpha"] * weight) * (solved @ factors[id])) for id, weight in SEEN.items()}


def test_a_trainer_that_cannot_split(
    command: Command, trained: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an item adds is the score of all seen items less that without it, for a trainer of others."""
    als = find_trainer("als")
    monkeypatch.setattr("embedding_trainers.fold_in.loaded.find_trainer", lambda name: replace(als, parts=None))
    where = ("--repo", trained.feature_store.repo_path)
    found = json.loads(command("explain", "--user", "both", "--item", "sku-5", "--json", *where).out)

    fresh = EmbeddingStore(trained.feature_store, "shop")  # the other one keeps what it has loaded

    def score(left_out: str = "") -> float:
        history = {id: weight for id, weight in SEEN.items() if id != left_out}
        return float(fresh.rank_visitor(history, 1, item_ids=["sku-5"], exclude_seen=False).scores[0])

    assert found["method"] == "leave-one-out"
    assert found["folded_in_score"] == pytest.approx(score(), abs=1e-5)
    added = {row["item"]: row["adds"] for row in found["items"]}
    assert added == {id: pytest.approx(score() - score(id), abs=1e-5) for id in SEEN}
    ran = command("explain", "--user", "one", "--item", "sku-5", *where)
    assert (ran.code, "it takes 2" in ran.err, len(ran.err.splitlines())) == (2, True, 1)


def test_events_speak_too(command: Command, trained: EmbeddingStore) -> None:
    """An interaction since the training counts as it does in `rank`; an item never speaks for itself."""
    where = ("--repo", trained.feature_store.repo_path)
    trained.add_interactions([{"user_id": "late", "item_id": id} for id in ("sku-3", "sku-4", "sku-5")])
    ranked = trained.rank("late", 1, item_ids=["sku-6"]).scores[0]
    found = json.loads(command("explain", "--user", "late", "--item", "sku-6", "--json", *where).out)
    assert {row["item"] for row in found["items"]} == {"sku-3", "sku-4", "sku-5"}
    assert sum(row["adds"] for row in found["items"]) == pytest.approx(ranked, rel=1e-5)
    found = json.loads(command("explain", "--user", "late", "--item", "sku-5", "--json", *where).out)
    assert {row["item"] for row in found["items"]} == {"sku-3", "sku-4"}
    for user in ("no one", "one"):
        ran = command("explain", "--user", user, "--item", "sku-1", *where)
        assert (ran.code, user in ran.err, len(ran.err.splitlines())) == (2, True, 1)


def test_rank_says_the_same(command: Command, trained: EmbeddingStore) -> None:
    """The three that add most, with the numbers of the command; also of a seen result, and of one with events."""
    where = ("--repo", trained.feature_store.repo_path)
    trained.add_interactions([{"user_id": "busy", "item_id": f"sku-{n}"} for n in (3, 4, 5, 6, 15)])
    for user, items in (("both", ["sku-1", "sku-5", "sku-12"]), ("busy", ["sku-4", "sku-7"])):
        found = trained.rank(user, item_ids=items, exclude_seen=False, explain=True)
        assert found.because is not None
        assert set(found.ids) == set(items)
        for item, reasons in zip(found.ids, found.because, strict=True):
            told = json.loads(command("explain", "--user", user, "--item", item, "--json", *where).out)["items"]
            assert [tuple(row.values()) for row in told if row["adds"] > 0][:3] == reasons
    assert trained.rank("both", explain=True).to_dicts()[0].keys() == {"item_id", "score", "title", "because"}
    assert trained.rank("both").because is None


def test_a_visitor_is_told_too(trained: EmbeddingStore) -> None:
    """The reasons sum to the score of a visitor with three items; those unknown, and hidden ones, are not named."""
    found = trained.rank_visitor(SEEN | {"nothing": 1.0}, 20, explain=True)
    assert found.because is not None
    assert any(len(reasons) == 3 for reasons in found.because)
    for item, score, reasons in zip(found.ids, found.scores.tolist(), found.because, strict=True):
        assert dict(reasons) == {
            id: pytest.approx(value, abs=1e-5) for id, value in _split(trained, "", str(item)).items() if value > 0
        }
        if len(reasons) == 3:
            assert sum(reason.adds for reason in reasons) == pytest.approx(score, abs=1e-5)
    trained.hide(items=["sku-1"])
    try:
        hidden = trained.rank_visitor(SEEN, 20, explain=True)
        assert hidden.because == [[r for r in reasons if r.id != "sku-1"] for reasons in found.because]
    finally:
        trained.unhide(items=["sku-1"])
    (stranger,) = trained.rank_batch(["stranger"], 3, fallback="popular", explain=True).answers
    assert stranger is not None
    assert stranger.because == [[], [], []]


def test_rank_is_refused_where_the_trainer_cannot(trained: EmbeddingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the name of the option; no item is left out in turn, as that takes a fold-in for each."""
    als = find_trainer("als")
    monkeypatch.setattr("embedding_trainers.fold_in.loaded.find_trainer", lambda name: replace(als, parts=None))
    fresh = EmbeddingStore(trained.feature_store, "shop")
    with pytest.raises(OptionError, match="as als and svd can") as refused:
        fresh.rank("stranger", explain=True)
    assert refused.value.option == "explain"
    with pytest.raises(OptionError, match="as als and svd can"):
        fresh.rank_visitor(SEEN, explain=True)


def test_what_is_refused(command: Command, common_shop: Shop) -> None:
    where = ("--repo", common_shop.repo.path)
    for given in (("sku-1",), ("sku-1", "sku-2", "--user", "u-1"), ("--user", "u-1"), ("sku-1", "nothing")):
        ran = command("explain", *given, *where)
        assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)

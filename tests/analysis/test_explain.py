"""Why two are near, where it is known: user u-i of the shop has seen the items i and i + 1."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from tests.conftest import Command
from tests.support.publishing import publish_any
from tests.support.shop import Shop, apply

from embedding_trainers.train import train_model
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.repo import init_repo


def test_two_items(command: Command, common_shop: Shop) -> None:
    """Items 7 and 8 have two users each and one in common, of 20; neither is a toy, and one only has tags."""
    where = ("--repo", common_shop.repo.path)
    found = json.loads(command("explain", "sku-7", "sku-8", "--json", *where).out)
    vectors = EmbeddingStore(common_shop.feature_store, "shop").item_embeddings(["sku-7", "sku-8"]).vectors
    cosine = vectors[0] @ vectors[1] / np.prod(np.linalg.norm(vectors, axis=1))
    assert found["cosine"] == pytest.approx(cosine, abs=1e-6)
    assert (found["with_first"], found["with_second"], found["with_both"], found["lift"]) == (2, 2, 1, 5)
    assert found["shared_attributes"] == {"category": "Books"}
    found = json.loads(command("explain", "u-1", "u-2", "--entity", "user", "--json", *where).out)
    assert (found["with_both"], found["lift"], found["shared_attributes"]) == (1, 10, {})
    assert "users in common: 1, 5.0 times" in command("explain", "sku-7", "sku-8", *where).out


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingStore:
    """Users of two groups, each with items of its own, and one user of both."""
    repo = init_repo(tmp_path_factory.mktemp("trained") / "repo")
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(40), 6)
    items = rng.integers(0, 10, len(users)) + 10 * (users % 2)
    rows = {(f"u-{u}", f"sku-{i}") for u, i in zip(users, items, strict=True)}
    rows |= {("both", item) for item in ("sku-1", "sku-2", "sku-11")}
    log = pa.table(dict(zip(("user_id", "item_id"), map(list, zip(*sorted(rows), strict=True)), strict=True)))
    parameters = {"factors": 8, "iterations": 10}
    artifact = train_model(repo.path, "shop", log, trainer="als", parameters=parameters).artifact
    publish_any(feature_store := apply(repo), artifact)
    return EmbeddingStore(feature_store, "shop")


def test_what_speaks_for_an_item(command: Command, trained: EmbeddingStore) -> None:
    """What an item adds is the score of all seen items less that without it, the most first."""
    where = ("--repo", trained.feature_store.repo_path)
    found = json.loads(command("explain", "--user", "both", "--item", "sku-5", "--json", *where).out)

    def score(*seen: str) -> float:
        return float(trained.rank_visitor(seen, 1, item_ids=["sku-5"], exclude_seen=False).scores[0])

    whole = score("sku-1", "sku-2", "sku-11")
    assert found["folded_in_score"] == pytest.approx(whole, abs=1e-5)
    added = {row["item"]: row["adds"] for row in found["items"]}
    assert added == {
        "sku-1": pytest.approx(whole - score("sku-2", "sku-11"), abs=1e-5),
        "sku-2": pytest.approx(whole - score("sku-1", "sku-11"), abs=1e-5),
        "sku-11": pytest.approx(whole - score("sku-1", "sku-2"), abs=1e-5),
    }
    assert list(added.values()) == sorted(added.values(), reverse=True)
    ran = command("explain", "--user", "both", "--item", "nothing", *where)
    assert (ran.code, "nothing" in ran.err, len(ran.err.splitlines())) == (2, True, 1)


def test_what_is_refused(command: Command, common_shop: Shop) -> None:
    where = ("--repo", common_shop.repo.path)
    for given in (("sku-1",), ("sku-1", "sku-2", "--user", "u-1"), ("--user", "u-1"), ("sku-1", "nothing")):
        ran = command("explain", *given, *where)
        assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)

"""What is said of one vector, against vectors whose facts are known."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.conftest import Command
from tests.support.shop import Shop

from feast_embeddings.query.store import EmbeddingStore


def test_the_facts_of_an_item(command: Command, common_shop: Shop) -> None:
    """Ranks against all vectors, neighbours as similar-items has them; the third of the shop has 3 interactions."""
    where = ("--entity", "item", "--repo", common_shop.repo.path)
    found = json.loads(command("inspect", "sku-4", "--json", *where).out)
    store = EmbeddingStore(common_shop.feature_store, "shop")
    table = store.export("item").read_all()
    norms = np.linalg.norm(np.array(table["embedding"].to_pylist()), axis=1)
    own = norms[table["item_id"].to_pylist().index("sku-4")]
    assert found["norm"] == pytest.approx(own)
    assert found["norm_rank"] == (norms < own).mean()
    assert (found["n_interactions"], found["interactions_rank"]) == (5, 4 / 40)
    assert [row["item_id"] for row in found["nearest"]] == store.similar_items("sku-4", 5).ids
    assert (found["source"], found["age_days"], found["doubts"]) == ("training", 0, [])
    assert (found["attributes_known"], found["n_attributes"]) == (3, 4)  # it has no price
    doubtful = json.loads(command("inspect", "sku-2", "--json", *where).out)
    assert "it was learned from 3 interactions only" in doubtful["doubts"]
    assert "doubtful: it was learned from 3 interactions only" in command("inspect", "sku-2", *where).out


def test_the_items_of_a_user(command: Command, common_shop: Shop) -> None:
    found = json.loads(command("inspect", "u-7", "--entity", "user", "--repo", common_shop.repo.path, "--json").out)
    assert (found["seen"], found["seen_known"]) == (2, 2)


def test_who_is_hidden(command: Command, common_shop: Shop) -> None:
    """Says so, until it is shown again."""
    store, ask = EmbeddingStore(common_shop.feature_store, "shop"), ("inspect", "sku-4", "--entity", "item", "--repo")
    store.hide(items=["sku-4"])
    try:
        assert "answers leave it out until unhide" in command(*ask, common_shop.repo.path).out
        assert json.loads(command(*ask, common_shop.repo.path, "--json").out)["hidden"]
    finally:
        store.unhide(items=["sku-4"])
    assert "unhide" not in command(*ask, common_shop.repo.path).out


def test_an_unknown_id(command: Command, common_shop: Shop) -> None:
    ran = command("inspect", "nothing", "--entity", "item", "--repo", common_shop.repo.path)
    assert (ran.code, ran.out, "item 'nothing' has no embedding" in ran.err) == (2, "", True)

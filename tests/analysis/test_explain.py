"""Why two are near, where it is known: user u-i of the shop has seen the items i and i + 1."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.conftest import Command
from tests.support.shop import Shop

from feast_embeddings.query.store import EmbeddingStore


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


def test_what_is_refused(command: Command, common_shop: Shop) -> None:
    where = ("--repo", common_shop.repo.path)
    for given in (("sku-1",), ("sku-1", "sku-2", "--user", "u-1"), ("--user", "u-1"), ("sku-1", "nothing")):
        ran = command("explain", *given, *where)
        assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest

from embedding_trainers.interactions import Columns, read_interactions, seen
from embedding_trainers.interactions import tables as factor_tables
from embedding_trainers.train import train_model
from embedding_trainers.trainer import Factors, find_trainer
from feast_embeddings.artifact import EmbeddingTable, trained_models
from feast_embeddings.errors import InputError


def log(weight: float) -> pa.Table:
    pairs = [(f"u{u}", f"i{i}") for u in range(6) for i in range(6) if (u + i) % 3]
    users, items = zip(*pairs, strict=True)
    return pa.table({"user_id": users, "item_id": items, "w": [weight] * len(pairs)})


@pytest.mark.parametrize("trainer", ["als", "svd", "softmax"])
@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (1e30, "user 'u0' and item 'i1' sum up to 1e+30, and trainers compute with at most 1,000,000; scale them"),
        (3e10, "sum up to 3e+10"),
        (1e-30, "no pair of user and item has a weight of more than 1e-30"),
    ],
)
def test_refused_before_the_fit(repo: Path, trainer: str, weight: float, message: str) -> None:
    """Weights that would end in zeros or a LinAlgError are named, and no version is there."""
    with pytest.raises(InputError) as error:
        train_model(repo, "m", log(weight), columns=Columns(weight="w"), trainer=trainer, parameters={"factors": 4})
    assert message in str(error.value)
    assert trained_models(repo / "data") == []


@pytest.mark.parametrize("weight", [1e-5, 1, 1e5])
def test_taken(repo: Path, weight: float) -> None:
    """Other sizes give no zeros; large ones are a warning."""
    training = train_model(
        repo, "m", log(weight), columns=Columns(weight="w"), trainer="svd", parameters={"factors": 4}, evaluation=False
    )
    assert np.stack(training.artifact.table("user")["embedding"].to_numpy()).any(axis=1).all()
    assert [warning for warning in training.warnings if "half of all pairs weigh" in warning] == (
        [] if weight <= 1 else training.warnings
    )


def test_bpr_warns_that_it_ignores_weights(repo: Path) -> None:
    """It asks only whether a pair occurs, so any size is fine."""
    training = train_model(repo, "m", log(1e30), columns=Columns(weight="w"), trainer="bpr", parameters={"factors": 4})
    assert training.warnings == ["bpr ignores how large the weights of 'w' are; only 0 counts"]


def test_a_vector_of_zeros_is_not_written(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named, whatever trainer made it."""
    als = find_trainer("als")

    def train(*arguments: Any) -> Factors:
        factors = als.train(*arguments)
        factors.user_factors[2] = 0
        return factors

    monkeypatch.setattr("embedding_trainers.training.find_trainer", lambda _: replace(als, train=train))
    with pytest.raises(InputError, match="1 of 6 users a vector of zeros, which is similar to nothing: 'u2'; look at"):
        train_model(repo, "m", log(1), trainer="als", parameters={"factors": 4}, evaluation=False)
    assert trained_models(repo / "data") == []


@pytest.mark.parametrize("ids", ["text", "int64"])
def test_what_users_have_seen_comes_in_chunks(ids: str) -> None:
    """Arrow's offsets have 32 bits: the lists of long logs are cut between users, and are the same lists."""
    table = log(1)
    if ids == "int64":
        table = table.set_column(1, "item_id", pa.array([int(item[1:]) for item in table["item_id"].to_pylist()]))
    interactions = read_interactions(table)
    matrix = interactions.to_csr()
    factors = Factors(np.ones((6, 2), np.float32), np.ones((6, 2), np.float32), np.zeros(6, np.float32))

    def users() -> EmbeddingTable:
        return factor_tables.factor_tables(interactions.summary(), matrix, factors)["user"]

    whole = users().part(slice(0, 6)).seen_items
    assert isinstance(whole, pa.ChunkedArray)
    for size in (1, 6, 20):
        with patch.object(seen, "_CHUNK_BYTES", size):
            cut = users().part(slice(0, 6)).seen_items
            some = users().part(slice(2, 5)).seen_items
        assert isinstance(cut, pa.ChunkedArray)
        assert cut.num_chunks > 1
        assert cut.to_pylist() == whole.to_pylist()
        assert isinstance(some, pa.ChunkedArray)
        assert some.to_pylist() == whole.to_pylist()[2:5]

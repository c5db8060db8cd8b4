"""A trained shop whose users have one of two tastes, but for one who has both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from embedding_trainers.train import train_model
from feast_embeddings.artifact import Artifact

__all__ = ["SEEN", "train_two_tastes"]

# What the user of both tastes has seen, with the weights of the log.
SEEN = {"sku-1": 3.0, "sku-2": 1.0, "sku-11": 1.0}


def train_two_tastes(repo: Path, seed: int = 0) -> Artifact:
    """Each taste has ten items of its own; `both` has some of each, and `one` a single item."""
    rng = np.random.default_rng(seed)
    users = np.repeat(np.arange(40), 6)
    items = rng.integers(0, 10, len(users)) + 10 * (users % 2)
    rows = {(f"u-{u}", f"sku-{i}") for u, i in zip(users, items, strict=True)}
    rows |= {("both", item) for item in SEEN} | {("one", "sku-1")}
    log = pa.table(dict(zip(("user_id", "item_id"), map(list, zip(*sorted(rows), strict=True)), strict=True)))
    log = pa.concat_tables([log, pa.table({"user_id": ["both"] * 2, "item_id": ["sku-1"] * 2})])  # three times in all
    ids = [f"sku-{n}" for n in range(20)]
    titles = pa.table({"item_id": ids, "title": [f"<i>Title</i> of {id}" for id in ids]})
    parameters = {"factors": 8, "iterations": 10}
    return train_model(
        repo,
        "shop",
        log,
        trainer="als",
        parameters=parameters,
        item_attributes=titles,
        content="none",
        evaluation=False,
    ).artifact

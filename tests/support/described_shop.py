"""A shop whose items have texts, trained with content."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embedding_trainers.train import train_model
from embedding_trainers.trainer import RunOptions
from feast_embeddings.artifact import Artifact

__all__ = ["ITEMS", "trained"]

ITEMS, COLD, USERS, KINDS = 320, 40, 120, 4
THINGS = ("jacket", "lamp", "chair", "Stiefel")
LOOKS = ("warm", "red", "waterproof", "blue", "old")


def trained(repo: Path, folder: Path, content: str) -> Artifact:
    """Users like mostly one kind of thing, which the title names; some items have no notes, the last no clicks."""
    rng = np.random.default_rng(6)
    kinds = rng.integers(KINDS, size=ITEMS)
    likes = kinds == np.arange(USERS)[:, None] % KINDS
    users, items = np.nonzero((rng.random(likes.shape) < np.where(likes, 0.4, 0.1)) & (np.arange(ITEMS) < ITEMS - COLD))
    log = pa.table({"user_id": [f"u-{n}" for n in users], "item_id": [f"sku-{n}" for n in items]})
    looks = [rng.choice(LOOKS, size=rng.integers(1, 4)).tolist() for _ in range(ITEMS)]
    catalogue = {
        "item_id": [f"sku-{n}" for n in range(ITEMS)],
        "title": [f"{' '.join(own)} {THINGS[kind]}" for own, kind in zip(looks, kinds, strict=True)],
        "notes": [None if n % 3 else f"A {LOOKS[n % 5].upper()} thing, for all {n % 7}" for n in range(ITEMS)],
        "price": rng.uniform(1, 50, ITEMS).round(2),
        "colours": [[f"c{n % 3}"] for n in range(ITEMS)],
    }
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(catalogue), folder / "items.parquet")
    return train_model(
        repo,
        "shop",
        log,
        trainer="svd",
        parameters={"factors": 8},
        options=RunOptions(threads=1),
        item_attributes=folder / "items.parquet",
        content=content,
        evaluation=False,
    ).artifact

"""The parts of a cosine: they sum to it, by a rotation that finds the axes that vectors were made of."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from tests.conftest import Command
from tests.support.shop import DIM, Shop

from feast_embeddings.analysis.dimensions import carrying, varimax
from feast_embeddings.analysis.members import Members

RNG = np.random.default_rng(0)


def criterion(x: np.ndarray) -> float:
    return float((x**2).var(axis=0).sum())


def planted(n: int = 400, dim: int = 6) -> tuple[Members, np.ndarray]:
    """Items that are on one axis each, rotated at random; the category is the axis and its sign."""
    axes, signs = RNG.integers(0, dim, n), RNG.choice([-1, 1], n)
    plain = RNG.normal(0, 0.05, (n, dim))
    plain[np.arange(n), axes] = signs
    plain /= np.linalg.norm(plain, axis=1, keepdims=True)
    turned = plain @ np.linalg.qr(RNG.standard_normal((dim, dim)))[0]
    ids = pa.array([f"i{row:03}" for row in range(n)])
    table = pa.table(
        {"item_id": ids, "category": [f"c{sign * (axis + 1)}" for axis, sign in zip(axes, signs, strict=True)]}
    )
    unit = turned.astype(np.float32)
    return Members("item", "item_id", ids, np.ones(n, np.float32), unit, table, "v", "2026-05-01T12:00:00Z"), plain


def test_varimax() -> None:
    """It is orthogonal, it finds planted axes, and no random rotation is better."""
    members, plain = planted()
    x = members.unit.astype(np.float64)
    rotation = varimax(x)
    assert np.abs(rotation.T @ rotation - np.eye(6)).max() < 1e-12
    best = criterion(x @ rotation)
    assert best >= criterion(plain) * (1 - 1e-9)
    for _ in range(50):
        assert criterion(x @ np.linalg.qr(RNG.standard_normal((6, 6)))[0]) < best
    agreement = np.abs(np.corrcoef((x @ rotation).T, plain.T)[:6, 6:])
    assert np.sort(agreement.max(axis=1))[0] > 0.99
    # Degenerate: one column, zeros, and no variance.
    for flat in (np.ones((5, 1)), np.zeros((5, 3)), np.eye(3)):
        found = varimax(flat)
        assert np.abs(found.T @ found - np.eye(flat.shape[1])).max() < 1e-12


def test_parts_sum_to_the_cosine() -> None:
    members, _ = planted()
    for a, b in RNG.integers(0, len(members), (20, 2)).tolist():
        parts = carrying(members, a, b, 6)
        cosine = float(members.unit[a].astype(np.float64) @ members.unit[b].astype(np.float64))
        assert sum(part.adds for part in parts) == pytest.approx(cosine, abs=1e-12)
        assert sorted(part.number for part in parts) == [1, 2, 3, 4, 5, 6]
        assert [abs(part.adds) for part in parts] == sorted((abs(part.adds) for part in parts), reverse=True)
        assert carrying(members, a, b, 3) == parts[:3]
    categories = members.table["category"].to_pylist()
    a = 0
    b = next(row for row in range(1, len(members)) if categories[row] == categories[a])
    (part,) = carrying(members, a, b, 1)
    assert part.name.split(", ")[0] == f"category {categories[a]}"
    assert part.adds > 0.8


def test_a_dimension_without_attributes_is_named_by_ids() -> None:
    members, _ = planted()
    bare = Members(**{**vars(members), "table": members.table.select(["item_id"])})
    (part,) = carrying(bare, 3, 3, 1)
    assert all(name in members.ids.to_pylist() for name in part.name.split(", "))


def test_the_command(command: Command, common_shop: Shop) -> None:
    where = ("--repo", common_shop.repo.path)
    for entity, first, second in (("item", "sku-7", "sku-8"), ("user", "u-1", "u-2")):
        asked = ("explain", first, second, "--entity", entity, *where)
        found = json.loads(command(*asked, "--json").out)
        parts = found["dimensions"]
        assert 0 < len(parts) <= min(3, DIM)
        lines = [f"{part['adds']:+.4f} of the cosine  dimension {part['number']}: {part['name']}" for part in parts]
        assert command(*asked).out.splitlines()[-len(parts) :] == lines

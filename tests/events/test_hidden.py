"""The file of hidden ids, against a set: every reader sees each change, and writers at the same time lose nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from feast_embeddings.events import hidden_of


def test_a_set_is_what_readers_see(tmp_path: Path) -> None:
    """After each of many changes in a row, quicker than any clock: also ids that only look alike."""
    writer, reader = hidden_of(tmp_path / "data", "shop"), hidden_of(tmp_path / "data", "shop")
    assert (reader.ids("item"), reader.path.exists()) == (frozenset(), False)
    rng, ids, model = np.random.default_rng(0), ["7", 7, "007", "Füß", -(2**63), "a"], set[str | int]()
    for _ in range(200):
        some = [ids[i] for i in rng.choice(len(ids), 2, replace=False)]
        if rng.random() < 0.5:
            assert writer.add("item", some) == len(set(some) - model)
            model |= set(some)
        else:
            assert writer.remove("item", some) == len(set(some) & model)
            model -= set(some)
        assert reader.ids("item") == writer.ids("item") == model
        assert reader.ids("item") is reader.ids("item")
        assert reader.ids("user") == frozenset()


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        done = pool.map(lambda i: hidden_of(tmp_path, "shop").add("user" if i % 2 else "item", [i]), range(40))
        assert sum(done) == 40
    kept = hidden_of(tmp_path, "shop")
    assert kept.ids("user") | kept.ids("item") == set(range(40))
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["shop.hidden.json", "shop.hidden.lock"]

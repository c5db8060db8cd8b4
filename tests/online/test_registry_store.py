"""The registry file is whole at every moment. Real processes, which are killed while they write it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from feast import FeatureStore
from tests.support import process_jobs as jobs
from tests.support.job import Job
from tests.support.shop import apply

from feast_embeddings.repo import init_repo


@pytest.mark.parametrize("rounds", [10, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_while_it_writes(
    rounds: int,
    tmp_path: Path,
    start: Callable[..., Job],
    rng: np.random.Generator,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whenever an apply is killed, the registry can be read, and the next apply needs no hand."""
    repo = init_repo(tmp_path / "repo")
    jobs.write_random(repo.data, 0)
    apply(repo, jobs.MODEL)
    for _ in range(rounds):
        writer = start(jobs.apply_registry, repo.path)
        writer.receive()
        writer.process.join(float(rng.uniform(0, 0.03)))
        writer.kill()
        store = FeatureStore(repo_path=str(repo.path))
        assert {view.name for view in store.list_feature_views()} == {"shop_user_embeddings", "shop_item_embeddings"}
    left = list(repo.data.glob(".registry.db.*"))
    for path in left:
        os.utime(path, (0, 0))
    apply(repo, jobs.MODEL)
    assert list(repo.data.glob(".registry.db.*")) == []
    with capsys.disabled():
        print(f"\n{rounds} applies killed, {len(left)} while they wrote; each registry whole")

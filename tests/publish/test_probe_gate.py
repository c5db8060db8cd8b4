"""A version on whose vectors a model of the live ones fails is refused, unless a flag says otherwise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from tests.conftest import Command
from tests.support.shop import AS_OF, Shop, alignment_to, apply

from feast_embeddings.artifact import Artifact, EmbeddingTable, TrainerInfo, write_artifact
from feast_embeddings.repo import Repo, init_repo

N, DIM = 200, 8


def version(repo: Repo, vectors: npt.NDArray[np.float32], labels: Path, live: Artifact | None) -> Artifact:
    """These users, in the space of a version, as if aligned to it."""
    items = np.random.default_rng(1).standard_normal((5, DIM)).astype(np.float32)
    return write_artifact(
        repo.data,
        "shop",
        users=EmbeddingTable(pa.array([f"u{n}" for n in range(N)]), vectors, np.ones(N, np.int64)),
        items=EmbeddingTable(pa.array([f"i{n}" for n in range(5)]), items, np.ones(5, np.int64)),
        as_of=AS_OF,
        trainer=TrainerInfo(name="mine", config={}),
        seed=0,
        metrics={},
        fingerprint="0" * 64,
        n_interactions=N,
        alignment=None if live is None else alignment_to(live),
        probes={"churn": f"{labels}:churned"},
    )


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """A live version whose first dimension says who churns."""
    vectors = np.random.default_rng(0).standard_normal((N, DIM)).astype(np.float32)
    rows = "".join(f"u{n},{bool(each > 0)}\n" for n, each in enumerate(vectors[:, 0]))
    (tmp_path / "labels.csv").write_text("user_id,churned\n" + rows)
    repo = init_repo(tmp_path / "repo")
    artifact = version(repo, vectors, tmp_path / "labels.csv", None)
    shop = Shop(repo, artifact, apply(repo))
    shop.publish()
    return shop


def vectors_of(artifact: Artifact) -> npt.NDArray[np.float32]:
    return np.stack(artifact.table("user")["embedding"].to_numpy()).astype(np.float32)


def test_a_broken_probe_is_refused(shop: Shop, command: Command, tmp_path: Path) -> None:
    """Mirrored vectors are of the space by name only: the gate sees it, a flag overrules it, nothing is loaded."""
    mirrored = vectors_of(shop.artifact) * np.float32(-1)
    new = version(shop.repo, mirrored, tmp_path / "labels.csv", shop.artifact)
    refused = command("publish", "--repo", shop.repo.path)
    assert (refused.code, len(refused.err.splitlines())) == (2, 1)
    assert "churn: a model of the earlier vectors scores" in refused.err
    assert "(--allow-probe-drop publishes it anyway)" in refused.err
    live = shop.publish().live_version()
    assert live == shop.artifact.manifest.version
    allowed = command("publish", "--repo", shop.repo.path, "--allow-probe-drop")
    assert allowed.code == 0, allowed.err
    assert "probe overruled: churn: " in allowed.out
    assert new.manifest.version in allowed.out


def test_vectors_that_stay_pass(shop: Shop, command: Command, tmp_path: Path) -> None:
    """Small moves are no drop; a gate of no tolerance still allows for noise."""
    noise = np.random.default_rng(2).standard_normal((N, DIM)).astype(np.float32)
    version(shop.repo, vectors_of(shop.artifact) + np.float32(0.05) * noise, tmp_path / "labels.csv", shop.artifact)
    answer = command("publish", "--repo", shop.repo.path, "--max-probe-drop", "0", "--dry-run")
    assert answer.code == 0, answer.err
    assert "probe passed: churn: a model of the earlier vectors scores" in answer.out


def test_labels_that_are_gone_refuse(shop: Shop, command: Command, tmp_path: Path) -> None:
    """Not to know is not to pass."""
    version(shop.repo, vectors_of(shop.artifact), tmp_path / "labels.csv", shop.artifact)
    (tmp_path / "labels.csv").unlink()
    refused = command("publish", "--repo", shop.repo.path)
    assert (refused.code, len(refused.err.splitlines())) == (2, 1)
    assert "churn: it cannot be scored: --probe churn:" in refused.err


def test_what_cannot_be_compared_passes(shop: Shop, command: Command, tmp_path: Path) -> None:
    """Another space is refused by its own gate, and no label in common is no drop."""
    version(shop.repo, vectors_of(shop.artifact), tmp_path / "labels.csv", None)
    answer = command("publish", "--repo", shop.repo.path, "--allow-new-space", "--dry-run")
    assert "probe not comparable: churn: the live version is of another space" in answer.out
    (tmp_path / "labels.csv").write_text("user_id,churned\nstranger,True\n")
    version(shop.repo, vectors_of(shop.artifact), tmp_path / "labels.csv", shop.artifact)
    answer = command("publish", "--repo", shop.repo.path, "--dry-run")
    assert answer.code == 0, answer.err
    assert "probe not comparable: churn: too few labels: 0 ids" in answer.out

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from embedding_trainers.device import use_gpu
from embedding_trainers.trainer import Device, RunOptions, find_trainer
from feast_embeddings.errors import InputError

implicit_gpu = pytest.importorskip("implicit.gpu")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a GPU, whatever this one is."""
    monkeypatch.setattr(implicit_gpu, "HAS_CUDA", False)


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_without_gpu_the_cpu(device: Device) -> None:
    """Where there is no GPU, auto is the CPU, silently."""
    assert use_gpu(RunOptions(device=device)) is False


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("name", ["als", "bpr"])
@pytest.mark.parametrize(("rmm", "why"), [(False, "pip install rmm-cu13"), (True, "no CUDA device or driver")])
def test_gpu_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, checkerboard: csr_matrix, name: str, rmm: bool, why: str
) -> None:
    """Asking for a GPU where there is none says what is missing."""
    monkeypatch.setattr(implicit_gpu, "HAS_RMM", rmm)
    trainer = find_trainer(name)
    with pytest.raises(InputError, match=rf"implicit cannot use a GPU here: .*{why}.*--device cpu"):
        trainer.train(checkerboard, trainer.config(), RunOptions(device="gpu"))


@pytest.mark.parametrize("name", ["softmax", "svd"])
def test_trainer_without_gpu(checkerboard: csr_matrix, name: str) -> None:
    """A trainer that has no GPU code says so."""
    trainer = find_trainer(name)
    with pytest.raises(InputError, match=f"{name!r} runs on the CPU only"):
        trainer.train(checkerboard, trainer.config(), RunOptions(device="gpu"))


@pytest.mark.skipif(not implicit_gpu.HAS_CUDA, reason="implicit finds no CUDA device here")
@pytest.mark.parametrize("name", ["als", "bpr"])
def test_gpu_gives_the_same_result(checkerboard: csr_matrix, name: str) -> None:
    """On a GPU the factors are of the same shapes and types, and the withheld item is first."""
    trainer = find_trainer(name)
    factors = trainer.train(checkerboard, trainer.config(factors=8), RunOptions(seed=1, device="gpu"))

    assert [a.shape for a in (factors.user_factors, factors.item_factors, factors.item_bias)] == [
        (50, 8),
        (50, 8),
        (50,),
    ]
    scores: Any = factors.user_factors @ factors.item_factors.T + factors.item_bias
    assert list(range(50)) == np.where(checkerboard.toarray() > 0, -np.inf, scores).argmax(axis=1).tolist()

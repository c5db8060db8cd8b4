from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from embedding_trainers.models.device import use_gpu
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


def test_one_thread_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread promises the same bytes, which a GPU does not give: auto takes none then, unless it is asked for."""
    monkeypatch.setattr(implicit_gpu, "HAS_CUDA", True)
    found = {
        (device, n): use_gpu(RunOptions(device=device, threads=n)) for device in get_args(Device) for n in (0, 1, 2)
    }
    assert [key for key, on_gpu in found.items() if on_gpu] == [
        ("auto", 0), ("auto", 2), ("gpu", 0), ("gpu", 1), ("gpu", 2),
    ]  # fmt: skip


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("name", ["als", "bpr"])
def test_gpu_without_rmm(monkeypatch: pytest.MonkeyPatch, checkerboard: csr_matrix, name: str) -> None:
    """Asking for a GPU without the package that implicit wants for it says what to install."""
    monkeypatch.setattr(implicit_gpu, "HAS_RMM", False)
    trainer = find_trainer(name)
    with pytest.raises(InputError, match=r"implicit cannot use a GPU here: .*feast-embeddings\[gpu\].*--device cpu"):
        trainer.train(checkerboard, trainer.config(), RunOptions(device="gpu"))


def raises(error: Exception) -> Callable[[], int]:
    def call() -> int:
        raise error

    return call


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(
    ("cuda", "why"),
    [
        (None, r"cannot be loaded \(.*_cuda.*\); it needs the libraries of CUDA 13, and rmm as in pip install"),
        (raises(RuntimeError("no CUDA-capable device")), r"no CUDA device or driver .* \(no CUDA-capable device\)"),
        (lambda: 1, "no CUDA device when it was imported"),
    ],
)
def test_gpu_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, cuda: Callable[[], int] | None, why: str) -> None:
    """What implicit puts into a warning at its first import is in the error: a library, the driver, the device."""
    monkeypatch.setattr(implicit_gpu, "HAS_RMM", True)
    module = cuda and SimpleNamespace(get_device_count=cuda)
    monkeypatch.setitem(sys.modules, "implicit.gpu._cuda", module)  # None there is an import that fails
    with pytest.raises(InputError, match=rf"implicit cannot use a GPU here: .*{why}.*--device cpu"):
        use_gpu(RunOptions(device="gpu"))


@pytest.mark.parametrize("name", ["graph", "item2vec", "softmax", "svd"])
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

"""Where implicit runs: on the CPU, or on a GPU that it can use."""

from __future__ import annotations

import warnings

from embedding_trainers.extra import import_extra
from embedding_trainers.trainer import RunOptions
from feast_embeddings.errors import InputError

__all__ = ["refuse_gpu", "use_gpu"]


def use_gpu(options: RunOptions) -> bool:
    """Whether to train on a GPU: as asked, and for ``auto`` where implicit can.

    Raises:
        InputError: a GPU is asked for, and implicit cannot use one.
        MissingExtraError: implicit is not installed.
    """
    with warnings.catch_warnings(record=True):  # it warns once where it has everything but a GPU; the error says it
        warnings.simplefilter("always")
        gpu = import_extra("implicit.gpu")
    if options.device == "gpu" and not gpu.HAS_CUDA:
        why = (
            "it found no CUDA device or driver that it can use"
            if getattr(gpu, "HAS_RMM", True)
            else "its GPU part needs the package rmm; pip install rmm-cu13, or rmm-cu12 for CUDA 12"
        )
        raise InputError(f"device gpu: implicit cannot use a GPU here: {why}. Or take --device cpu")
    return options.device != "cpu" and bool(gpu.HAS_CUDA)


def refuse_gpu(options: RunOptions, trainer: str) -> None:
    """Refuse a GPU for a trainer that cannot use one.

    Raises:
        InputError: one is asked for.
    """
    if options.device == "gpu":
        raise InputError(f"device gpu: the trainer {trainer!r} runs on the CPU only; take --device auto or cpu")

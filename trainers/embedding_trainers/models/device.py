"""Where implicit runs: on the CPU, or on a GPU that it can use."""

from __future__ import annotations

import importlib
import warnings
from types import ModuleType
from typing import Any

from embedding_trainers.extra import import_extra
from embedding_trainers.trainer import RunOptions
from feast_embeddings.errors import InputError

__all__ = ["refuse_gpu", "torch_device", "use_gpu"]


def use_gpu(options: RunOptions) -> bool:
    """Whether to train on a GPU: as asked, and for ``auto`` where implicit can and repeating exactly is not asked for.

    Raises:
        InputError: a GPU is asked for, and implicit cannot use one.
        MissingExtraError: implicit is not installed.
    """
    with warnings.catch_warnings(record=True):  # it warns once where it has everything but a GPU; the error says it
        warnings.simplefilter("always")
        gpu = import_extra("implicit.gpu")
    if options.device == "gpu" and not gpu.HAS_CUDA:
        raise InputError(f"device gpu: implicit cannot use a GPU here: {_why_not(gpu)}. Or take --device cpu")
    return _wants_gpu(options) and bool(gpu.HAS_CUDA)


def _why_not(gpu: ModuleType) -> str:
    install = "pip install 'feast-embeddings[gpu]'"
    if not getattr(gpu, "HAS_RMM", True):
        return f"its GPU part needs the package rmm; {install}"
    try:  # what implicit did, and put into a warning
        importlib.import_module("implicit.gpu._cuda").get_device_count()
    except ImportError as error:
        return f"its GPU part cannot be loaded ({error}); it needs the libraries of CUDA 13, and rmm as in {install}"
    except RuntimeError as error:
        return f"it found no CUDA device or driver that it can use ({error})"
    return "it found no CUDA device when it was imported"


def torch_device(torch: Any, options: RunOptions) -> Any:
    """Where torch trains, by the same rules as `use_gpu`.

    Raises:
        InputError: a GPU is asked for, and torch finds none.
    """
    can = torch.cuda.is_available()
    if options.device == "gpu" and not can:
        raise InputError("device gpu: torch finds no CUDA device that it can use; take --device cpu")
    return torch.device("cuda" if _wants_gpu(options) and can else "cpu")


def _wants_gpu(options: RunOptions) -> bool:
    # One thread is for the same bytes everywhere, and bpr's threads on a GPU race.
    return options.device == "gpu" or (options.device == "auto" and options.threads != 1)


def refuse_gpu(options: RunOptions, trainer: str) -> None:
    """Refuse a GPU for a trainer that cannot use one.

    Raises:
        InputError: one is asked for.
    """
    if options.device == "gpu":
        raise InputError(f"device gpu: the trainer {trainer!r} runs on the CPU only; take --device auto or cpu")

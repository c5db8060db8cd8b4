"""Find the installed trainers, and load one by name."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from embedding_trainers import AUTO
from embedding_trainers.trainer.contract import Trainer
from feast_embeddings.errors import EmbeddingsError, InputError

__all__ = ["find_trainer", "known_trainers"]

_GROUP = "embedding_trainers"


def known_trainers() -> list[str]:
    """Names of the installed trainers, sorted. None of them is imported."""
    return sorted({entry.name for entry in entry_points(group=_GROUP)})


def find_trainer(name: str) -> Trainer[Any]:
    """Load a trainer by name; other trainers are not imported, so a broken one does no harm.

    Raises:
        InputError: there is no trainer of this name, or two packages bring one.
        EmbeddingsError: it is there and cannot be loaded.
    """
    if name == AUTO:
        raise InputError(
            f"{AUTO!r} is no trainer: train and evaluate choose one by it; name one of {', '.join(known_trainers())}"
        )
    found = {entry.value: entry for entry in entry_points(group=_GROUP, name=name)}
    if not found:
        raise InputError(f"no trainer {name!r}; installed are {', '.join(known_trainers()) or 'none'}")
    if len(found) > 1:
        raise InputError(f"several packages bring a trainer {name!r} ({', '.join(found)}); uninstall all but one")
    [entry] = found.values()
    try:
        trainer = entry.load()
    except EmbeddingsError:
        raise
    except Exception as error:
        raise EmbeddingsError(
            f"the trainer {name!r} ({entry.value}) cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(trainer, Trainer):
        raise EmbeddingsError(f"{entry.value} is not a Trainer, but {type(trainer).__name__}")
    return trainer

"""What an encoder of a column is, and how to find one by name.

Other packages add theirs under the entry-point group ``embedding_encoders``::

    [project.entry-points.embedding_encoders]
    mine = "my_package:MyEncoder"
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, ClassVar

import pyarrow as pa

from embedding_trainers.content.spec import ContentColumn, Kind, with_close
from feast_embeddings.errors import EmbeddingsError, InputError

__all__ = ["Encoder", "State", "find_encoder", "known_encoders", "make_encoder", "state_hash"]

_GROUP = "embedding_encoders"
_OF_KIND: dict[str, str] = {
    "text": "tfidf",
    "category": "category",
    "list": "list",
    "number": "number",
    "vector": "precomputed",
    "image": "image",
}

State = tuple[dict[str, Any], dict[str, pa.Array]]
"""What JSON can hold, and the arrays that it cannot."""


class Encoder(ABC):
    """Turns a column into rows of numbers, no longer than about 1. A null is a value like others.

    `encode` may be called with some rows at a time: a row's numbers depend on that row and on what `fit` saw.

    Attributes:
        kind: of the columns that it encodes.
        takes_model: whether a model may be named.
        model: its name, or the empty text.
        progress: whether encoding shows a bar on standard error, if it takes long.

    Stability: provisional, see docs/compatibility.md.
    """

    kind: ClassVar[Kind]
    takes_model: ClassVar[bool] = False

    def __init__(self, model: str = "") -> None:
        """Make one that is not fitted."""
        self.model = model
        self.progress = False

    @abstractmethod
    def fit(self, column: pa.ChunkedArray) -> None:
        """Learn what the column holds."""

    @abstractmethod
    def encode(self, column: pa.ChunkedArray) -> Any:
        """Encode n rows: csr, or an array, float32 of shape (n, p), with the same p for every column."""

    @abstractmethod
    def state(self) -> State:
        """What `from_state` needs to encode as this does, to the bit."""

    def reads(self, column: pa.ChunkedArray) -> str:
        """What encoding the column depends on besides its values, such as the hash of a model's files.

        Raises:
            EmbeddingsError: it is not there.
        """
        return ""

    @classmethod
    @abstractmethod
    def from_state(cls, settings: Mapping[str, Any], arrays: Mapping[str, pa.Array]) -> Encoder:
        """Restore a fitted encoder."""


def known_encoders() -> list[str]:
    """Names of the installed encoders, sorted. None of them is imported."""
    return sorted({entry.name for entry in entry_points(group=_GROUP)})


def find_encoder(name: str) -> type[Encoder]:
    """Load an encoder's class by its name, or by the kind that it is the usual one of.

    Raises:
        InputError: there is no encoder of this name, or two packages bring one.
        EmbeddingsError: it is there and cannot be loaded.
    """
    name = _OF_KIND.get(name, name)
    found = {entry.value: entry for entry in entry_points(group=_GROUP, name=name)}
    if not found:
        known = known_encoders()
        raise InputError(f"no encoder {name!r}; installed are {', '.join(known) or 'none'}{with_close(name, known)}")
    if len(found) > 1:
        raise InputError(f"several packages bring an encoder {name!r} ({', '.join(found)}); uninstall all but one")
    [entry] = found.values()
    try:
        encoder = entry.load()
    except EmbeddingsError:
        raise
    except Exception as error:
        raise EmbeddingsError(
            f"the encoder {name!r} ({entry.value}) cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    if not (isinstance(encoder, type) and issubclass(encoder, Encoder)):
        raise EmbeddingsError(f"{entry.value} is not a class of Encoder")
    return encoder


def make_encoder(column: ContentColumn) -> Encoder:
    """The encoder that a column asks for, not fitted.

    Raises:
        InputError: there is none, or it loads no model and one is named.
        MissingExtraError: what it needs is not installed.
    """
    found = find_encoder(column.how)
    if column.model and not found.takes_model:
        raise InputError(f"--content {column}: {column.how} takes no model, got {column.model!r}")
    try:
        return found(column.model)
    except InputError as error:
        raise InputError(f"--content {column}: {error}") from None


def state_hash(state: State) -> str:
    """SHA-256, in hex: two encoders with the same encode alike."""
    settings, arrays = state
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].type}".encode())
        # The file format drops offsets and what lies outside a slice.
        sink = pa.BufferOutputStream()
        batch = pa.record_batch([pa.concat_arrays([arrays[name]])], names=[name])
        with pa.ipc.new_stream(sink, batch.schema) as stream:
            stream.write_batch(batch)
        digest.update(sink.getvalue())
    return digest.hexdigest()

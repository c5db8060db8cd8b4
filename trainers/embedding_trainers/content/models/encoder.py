"""Encoders that load a trained model: it is named by the version, not copied into it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tqdm import tqdm

from embedding_trainers.content.encoder import Encoder, State
from embedding_trainers.content.encoders.columns import unit_rows
from embedding_trainers.content.models.files import ModelFiles, find_model
from feast_embeddings.errors import ArtifactError, EmbeddingsError, InputError

__all__ = ["ModelEncoder"]

_Floats = npt.NDArray[np.float32]


class ModelEncoder(Encoder):
    """Vectors of a model, at length 1; null is zeros.

    Attributes:
        extra: what installs its library.
        example: a model, for errors.
        patterns: see `find_model`.
        batch: rows that are encoded at a time.

    Raises:
        InputError: no model is named.
    """

    takes_model = True
    extra: ClassVar[str]
    example: ClassVar[str]
    patterns: ClassVar[tuple[str, ...]]
    batch: ClassVar[int]

    def __init__(self, model: str = "") -> None:
        super().__init__(model)
        if not model:
            raise InputError(f"expected a model, such as COLUMN:ENCODER:{self.example}, or a folder with one")
        self._files: ModelFiles | None = None
        self._loaded: Any = None
        self._dim = 0

    @abstractmethod
    def load(self, files: ModelFiles) -> Any:
        """Load the model with its library."""

    @abstractmethod
    def vectors(self, loaded: Any, values: list[Any]) -> Any:
        """Encode a batch of values without null: float, shape (n, dim)."""

    @abstractmethod
    def values(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """The column in the type that `vectors` reads.

        Raises:
            InputError: it holds something else.
        """

    @property
    @abstractmethod
    def probe(self) -> Any:
        """A value, which tells the length of the vectors."""

    def find(self, revision: str = "") -> ModelFiles:
        """Find the model's files; of the hub, at a revision."""
        return find_model(self.model, self.patterns, self.extra, revision=revision)

    def reads(self, column: pa.ChunkedArray) -> str:
        """The hash of the model's files."""
        return self.find().sha256

    def fit(self, column: pa.ChunkedArray) -> None:
        """Load the model: it has learnt already."""
        self.values(column)
        self._open()

    def encode(self, column: pa.ChunkedArray) -> _Floats:
        """See `Encoder`."""
        values = self.values(column)
        there = np.flatnonzero(values.is_valid().to_numpy())
        encoded = np.zeros((len(values), self._dim), np.float32)
        with tqdm(total=len(there), desc="encode", unit=" rows", disable=not self.progress) as bar:
            for start in range(0, len(there), self.batch):
                rows = there[start : start + self.batch]
                encoded[rows] = self._vectors(values.take(pa.array(rows)).to_pylist())
                bar.update(len(rows))
        return np.asarray(unit_rows(encoded))

    def state(self) -> State:
        """The model, and the hash of its files."""
        if self._files is None:
            raise EmbeddingsError(f"the encoder of {self.model} is not fitted")
        # A folder by its full name: the process that loads it may start elsewhere.
        model = self.model if self._files.revision else str(self._files.folder)
        return {
            "model": model,
            "revision": self._files.revision,
            "weights_sha256": self._files.sha256,
            "dim": self._dim,
        }, {}

    @classmethod
    def from_state(cls, settings: Mapping[str, Any], arrays: Mapping[str, pa.Array]) -> ModelEncoder:
        """See `Encoder`.

        Raises:
            ArtifactError: the model's files differ from the training's.
        """
        restored = cls(settings["model"])
        restored._open(settings["revision"], settings["weights_sha256"])
        return restored

    def _open(self, revision: str = "", sha256: str = "") -> None:
        self._files = self.find(revision)
        if sha256 and self._files.sha256 != sha256:
            raise ArtifactError(
                f"the model {self.model} in {self._files.folder} has other weights than the version was trained with "
                f"(SHA-256 {self._files.sha256[:12]}… and {sha256[:12]}…), so that its vectors would not fit; bring "
                "those back, or train again"
            )
        try:
            self._loaded = self.load(self._files)
            self._dim = int(np.asarray(self._vectors([self.probe])).shape[1])
        except EmbeddingsError:
            raise
        # What a library says of files that it cannot read is of no one class.
        except Exception as error:
            raise InputError(
                f"the model {self.model} in {self._files.folder} cannot be loaded: {type(error).__name__}: {error}"
            ) from error

    def _vectors(self, values: list[Any]) -> _Floats:
        vectors = np.asarray(self.vectors(self._loaded, values), np.float32)
        if not np.isfinite(vectors).all():
            row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
            raise InputError(f"the model {self.model} makes no finite vector of {values[row]!r:.80}")
        return vectors

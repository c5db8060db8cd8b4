"""What a version knows of text: an index of its items' words, and the encoder that it was trained with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feast_embeddings.artifact import Artifact
from feast_embeddings.artifact.table_files import TableFiles
from feast_embeddings.errors import EmbeddingsError, OptionError, TextSearchError
from feast_embeddings.model.from_trainers import from_trainers
from feast_embeddings.query.loaded_once import LoadedOnce
from feast_embeddings.query.text.keywords import KeywordIndex

__all__ = ["Encoder", "VersionText"]

_Vector = npt.NDArray[np.float32]


class Encoder(Protocol):
    """A version's own encoder of text, see `feast_embeddings.model.from_trainers`.

    `columns` are the columns of the items' table that it reads. `vectors` returns the vectors of an item of which only
    this text is known, and of one of which nothing is, float32 (dim,); None if the encoder knows nothing of the text.
    """

    columns: Sequence[str]

    def vectors(self, text: str) -> tuple[_Vector, _Vector] | None: ...


class _Loaded(NamedTuple):
    encoder: Encoder
    ids: pa.Array
    keywords: KeywordIndex


class VersionText(LoadedOnce[_Loaded]):
    """Text of one version, whose items' words are read for the first search."""

    def matching(self, text: str) -> pa.Array:
        """Return the ids of the trained items that hold a word of the text, best first by BM25.

        Raises:
            OptionError: the version was trained without content, or without text in it, or has too much of it.
            TextSearchError: the version is not on this disk or is damaged, or its encoder is not installed.
        """
        loaded = self._load()
        return loaded.ids.take(pa.array(loaded.keywords.rank(text)))

    def vectors(self, text: str) -> tuple[_Vector, _Vector] | None:
        """Return the vectors of an item of which only this text is known, and of one of which nothing is.

        Errors as in `matching`.
        """
        try:
            return self._load().encoder.vectors(text)
        except OptionError:
            raise
        except EmbeddingsError as error:
            raise self._cannot(str(error)) from error

    def _make(self, artifact: Artifact) -> _Loaded:
        if artifact.manifest.content is None:
            raise self._has_none("without content")
        encoder: Encoder = from_trainers("text_encoder")(artifact)
        if not encoder.columns:
            raise self._has_none("without a column of text among its content")
        files = artifact.verified("item")
        ids = files.read(["item_id"])["item_id"].combine_chunks()
        return _Loaded(encoder, ids, KeywordIndex(_texts(files, encoder.columns)))

    def _has_none(self, how: str) -> OptionError:
        return OptionError(
            "text",
            f"version {self.version} of model {self._versions.model!r} was trained {how}, so that no text finds its "
            "items; train with --items, and name a column with --content, e.g. title:text",
        )

    def _cannot(self, reason: str) -> TextSearchError:
        return TextSearchError(f"the live version {self.version} cannot be searched by text: {reason}")


def _texts(files: TableFiles, columns: Sequence[str]) -> Iterator[str]:
    for batch in files.batches(columns):
        texts = [pc.fill_null(batch[name].cast(pa.large_string()), "") for name in columns]
        yield from pc.binary_join_element_wise(*texts, pa.scalar("\n", pa.large_string())).to_pylist()

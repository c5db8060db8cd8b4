"""Text as weighted counts of its words: tf-idf (Spärck Jones, J. Documentation 1972)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedding_trainers.content.encoder import Encoder, State
from embedding_trainers.content.encoders.columns import text_of, unit_rows
from embedding_trainers.extra import import_extra

__all__ = ["TfidfEncoder"]

_BUCKETS = 1 << 20  # of hashes; two of 30,000 terms meet in one with 3 %
_MOST_TERMS = 1 << 15
_LEAST_ROWS = 2  # that a term is in: what one row has says nothing of others
_BLOCK_ROWS = 1 << 14


class TfidfEncoder(Encoder):
    """scikit-learn's tf-idf of words and pairs of words, with the logarithm of counts, each row of length 1.

    Terms are hashed, so that `fit` counts in one pass and bounded memory, whatever the number of rows. The terms of
    most rows are kept, up to 32,768.
    """

    kind = "text"

    def __init__(self, model: str = "") -> None:
        super().__init__(model)
        self._terms: npt.NDArray[np.int32] = np.empty(0, np.int32)  # buckets, ascending
        self._idf: npt.NDArray[np.float32] = np.empty(0, np.float32)

    def fit(self, column: pa.ChunkedArray) -> None:
        """Count the rows of each term."""
        rows = np.zeros(_BUCKETS, np.int64)
        for counts in self._counts(column):
            rows += np.bincount(counts.indices, minlength=_BUCKETS)
        enough = np.flatnonzero(rows >= _LEAST_ROWS)
        kept = np.sort(enough[np.argsort(-rows[enough], kind="stable")[:_MOST_TERMS]])
        self._terms = kept.astype(np.int32)
        # As scikit-learn's TfidfTransformer with smooth_idf.
        self._idf = (np.log((1 + len(column)) / (1 + rows[kept])) + 1).astype(np.float32)

    def encode(self, column: pa.ChunkedArray) -> Any:
        """Weigh the terms that are kept."""
        sparse = import_extra("scipy.sparse")
        blocks = [self._weighed(counts) for counts in self._counts(column)]
        if not blocks:
            return sparse.csr_matrix((0, len(self._terms)), dtype=np.float32)
        return sparse.vstack(blocks, format="csr")

    def state(self) -> State:
        """The terms kept, by their hashes, and their weights."""
        return {}, {"terms": pa.array(self._terms), "idf": pa.array(self._idf)}

    @classmethod
    def from_state(cls, settings: Mapping[str, Any], arrays: Mapping[str, pa.Array]) -> TfidfEncoder:
        """See `Encoder`."""
        restored = cls()
        restored._terms, restored._idf = arrays["terms"].to_numpy(), arrays["idf"].to_numpy()
        return restored

    def _counts(self, column: pa.ChunkedArray) -> Iterator[Any]:
        vectorizer = import_extra("sklearn.feature_extraction.text").HashingVectorizer(
            n_features=_BUCKETS, ngram_range=(1, 2), norm=None, alternate_sign=False, dtype=np.float32
        )
        texts = text_of(column)
        for start in range(0, len(texts), _BLOCK_ROWS):
            yield vectorizer.transform(texts.slice(start, _BLOCK_ROWS).fill_null("").to_pylist())

    def _weighed(self, counts: Any) -> Any:
        places = np.full(_BUCKETS, -1, np.int32)
        places[self._terms] = np.arange(len(self._terms), dtype=np.int32)
        columns = places[counts.indices]
        is_kept = columns >= 0
        starts = np.concatenate([[0], np.cumsum(is_kept)])[counts.indptr]
        columns = columns[is_kept]
        values = (1 + np.log(counts.data[is_kept])) * self._idf[columns]
        weighed = import_extra("scipy.sparse").csr_matrix(
            (values, columns, starts), shape=(counts.shape[0], len(self._terms))
        )
        weighed.sort_indices()
        return unit_rows(weighed)

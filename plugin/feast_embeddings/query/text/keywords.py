"""An index of the words of many texts, in memory; it ranks as `feast_embeddings.online.text_search.bm25` does."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from feast_embeddings.errors import OptionError
from feast_embeddings.online.text_search import rarity, saturation, words

__all__ = ["KeywordIndex"]

# About 1 GB while the index is built, and a third of that afterwards.
_MOST_WORDS = 1 << 25


class KeywordIndex:
    """Which texts hold a word, and how often.

    Args:
        texts: read once.
        most_words: how many words they may have together.

    Raises:
        OptionError: they have more.
    """

    def __init__(self, texts: Iterable[str], most_words: int = _MOST_WORDS) -> None:
        self._terms: dict[str, int] = {}
        terms, lengths = array("i"), array("i")
        for text in texts:
            found = words(text)
            lengths.append(len(found))
            terms.extend([self._terms.setdefault(word, len(self._terms)) for word in found])
            if len(terms) > most_words:
                raise OptionError(
                    "text",
                    f"the texts of the items have more than {most_words:,} words, too many to keep in memory; train "
                    "with --content on shorter text columns",
                )
        self._lengths = np.array(lengths, np.int64)
        self._total = len(terms)
        # One entry for each pair of a word and a text that holds it: by word, then by text.
        numbers = np.array(terms, np.int32)
        order = np.argsort(numbers, kind="stable")
        numbers, rows = numbers[order], np.repeat(np.arange(len(lengths), dtype=np.int32), self._lengths)[order]
        first = np.ones(len(numbers), np.bool_)
        first[1:] = (numbers[1:] != numbers[:-1]) | (rows[1:] != rows[:-1])
        starts = np.flatnonzero(first)
        self._rows = rows[starts]
        self._counts = np.diff(starts, append=len(numbers)).astype(np.int32)
        self._bounds = np.searchsorted(numbers[starts], np.arange(len(self._terms) + 1))

    def rank(self, query: str) -> npt.NDArray[np.int64]:
        """Return the numbers of the texts that hold a word of the query, best first; ties in their order."""
        ranks, most = np.zeros(len(self._lengths)), 0.0
        for word in dict.fromkeys(words(query)):
            term = self._terms.get(word)
            held = slice(0) if term is None else slice(self._bounds[term], self._bounds[term + 1])
            rows = self._rows[held]
            weight = rarity(len(ranks), len(rows))
            most += weight
            ranks[rows] += weight * saturation(self._counts[held], self._lengths[rows], len(ranks), self._total)
        if most:
            ranks /= most
        found = np.flatnonzero(ranks)
        return found[np.argsort(-ranks[found], kind="stable")]

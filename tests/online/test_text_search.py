"""Keyword scores and fusion, without an engine."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feast_embeddings.online.text_search import bm25, reciprocal_rank_fusion, words

TEXTS = st.lists(st.lists(st.sampled_from(["a", "b", "c", "dd"]), max_size=6).map(" ".join), max_size=8)


def test_bm25_is_the_published_formula() -> None:
    """Two of three texts hold the word: the score worked out by hand from the paper's formula with Lucene's idf."""
    ranks = bm25([("x", "red red fox"), ("y", "a red and a blue bird"), ("z", "blue")], "red")
    idf = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    mean = (3 + 6 + 1) / 3

    def score(count: int, length: int) -> float:
        return idf * count / (count + 1.2 * (1 - 0.75 + 0.75 * length / mean)) / idf

    assert list(ranks) == ["x", "y"]
    assert ranks == pytest.approx({"x": score(2, 3), "y": score(1, 6)})


@given(TEXTS, st.lists(st.sampled_from(["a", "B", "x"]), max_size=3).map(" ".join))
def test_ranks_are_ordered_and_bounded(texts: list[str], query: str) -> None:
    """Exactly the texts that share a word with the query are ranked, best first, above 0 and below 1."""
    ranks = bm25(((str(i), text) for i, text in enumerate(texts)), query)
    wanted = set(words(query))
    assert set(ranks) == {str(i) for i, text in enumerate(texts) if wanted & set(words(text))}
    assert list(ranks.values()) == sorted(ranks.values(), reverse=True)
    assert all(0 < rank < 1 for rank in ranks.values())


def test_words_ignore_case_and_unicode_form() -> None:
    """Composed and decomposed letters, ligatures and ß compare as readers would; punctuation separates."""
    assert words("Cafe\u0301, STRASSE-1 ﬁn") == ["café", "strasse", "1", "fin"]
    assert words("café straße") == ["café", "strasse"]


def test_fusion_prefers_what_both_rankings_have() -> None:
    """The sum of 1 / (60 + place): second in both beats first in one."""
    fused = reciprocal_rank_fusion([["a", "b", "c"], ["d", "b"]])
    assert list(fused) == ["b", "a", "d", "c"]
    assert fused == pytest.approx({"b": 2 / 62, "a": 1 / 61, "d": 1 / 61, "c": 1 / 63})
    assert reciprocal_rank_fusion([[], []]) == {}

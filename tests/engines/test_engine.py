"""What every engine promises, tested over each of them; numpy is the oracle for search."""

from __future__ import annotations

import numpy as np
import pytest
from feast import ValueType

from feast_embeddings.codec.filter_text import parse_filter
from feast_embeddings.codec.filters import QdrantFilterTranslator
from feast_embeddings.engines.engine import Engine
from feast_embeddings.engines.testing import DIM, EngineTests, NewAlias, make_batch, make_spec, random_vectors


class TestEveryEngine(EngineTests):
    """The tests that are shipped, over each of ours."""

    @pytest.fixture
    def engine(self, engine: Engine) -> Engine:
        """Each in turn."""
        return engine


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("new = TRUE", {0, 3, 6, 9}),
        ("new != TRUE", {1, 2, 4, 5, 7, 8}),
        ("price < 2.5", {0, 1, 2}),
        ("n IN (1, 4, 99)", {1, 4}),
        ("category NOT IN ('odd')", {0, 2, 4, 6, 8}),
        ("\"a.b é\" = 'x' OR n >= 9", {5, 9}),
    ],
)
def test_conditions_mean_the_same_on_every_engine(
    engine: Engine, new_alias: NewAlias, rng: np.random.Generator, condition: str, expected: set[int]
) -> None:
    """The translation of a condition selects the same points, with payload indexes of each type."""
    types = {
        "new": ValueType.BOOL,
        "price": ValueType.DOUBLE,
        "n": ValueType.INT64,
        "category": ValueType.STRING,
        "a.b é": ValueType.STRING,
    }
    alias = new_alias()
    batch = make_batch(random_vectors(rng, 10))
    for n, payload in enumerate(batch.payloads):
        payload |= {"new": n % 3 == 0, "price": float(n)} | ({"a.b é": "x"} if n == 5 else {})
    spec = make_spec(alias)
    spec = spec.model_copy(update={"payload_indexes": {**spec.payload_indexes, "a.b é": "keyword", "n": "lookup"}})
    engine.create(alias + "__c", spec, [batch])
    translated = QdrantFilterTranslator(types).translate(parse_filter(condition))
    hits = engine.query(alias + "__c", "v", np.ones(DIM, dtype=np.float32), limit=10, filter=translated)
    assert {hit.payload["n"] for hit in hits} == expected

"""Convert Qdrant's filter model to the filter of the embedded engine.

Both describe the same filters; the embedded engine only has its own classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import qdrant_edge as edge
from qdrant_client import models

from feast_embeddings.errors import EngineError

__all__ = ["filter_keys", "to_edge"]


def to_edge(filter: models.Filter) -> edge.Filter:
    """Convert a filter for the embedded engine.

    Raises:
        EngineError: a kind of condition that this package does not use, or a malformed payload key.
    """
    if filter.min_should is not None:
        raise _unsupported("min_should")
    return edge.Filter(
        must=_conditions(filter.must),
        should=_conditions(filter.should),
        must_not=_conditions(filter.must_not),
    )


def filter_keys(filter: models.Filter) -> set[str]:
    """Return the names of the join keys and features that the filter reads."""
    names: set[str] = set()
    for part in (filter.must, filter.should, filter.must_not):
        for condition in part if isinstance(part, list) else [part]:
            match condition:
                case models.Filter():
                    names |= filter_keys(condition)
                case models.FieldCondition():
                    names.add(condition.key.strip('"'))
                case models.IsEmptyCondition():
                    names.add(condition.is_empty.key.strip('"'))
    return names


def _conditions(conditions: Any) -> list[Any] | None:
    # Qdrant's model also accepts a single condition for a list of one.
    if conditions is None:
        return None
    return [_condition(c) for c in (conditions if isinstance(conditions, list) else [conditions])]


def _condition(condition: Any) -> edge.ConditionType:
    try:
        match condition:
            case models.Filter():
                return to_edge(condition)
            case models.FieldCondition():
                return _field(condition)
            case models.IsEmptyCondition():
                return edge.IsEmptyCondition(condition.is_empty.key)
            case models.IsNullCondition():
                return edge.IsNullCondition(condition.is_null.key)
            case models.HasIdCondition():
                return edge.HasIdCondition(set(condition.has_id))
    except ValueError as error:
        raise EngineError(f"Qdrant refused a filter: {error}") from None
    raise _unsupported(type(condition).__name__)


def _field(condition: models.FieldCondition) -> edge.FieldCondition:
    tests = {name: test for name, test in condition if name != "key" and test is not None}
    match tests:
        case {"match": test, **rest} if not rest:
            return edge.FieldCondition(condition.key, match=_match(test))
        case {"range": models.Range() as test, **rest} if not rest:
            return edge.FieldCondition(
                condition.key, range=edge.RangeFloat(gte=test.gte, gt=test.gt, lte=test.lte, lt=test.lt)
            )
        case {"is_empty": test, **rest} if not rest:
            return edge.FieldCondition(condition.key, is_empty=test)
        case {"is_null": test, **rest} if not rest:
            return edge.FieldCondition(condition.key, is_null=test)
    raise _unsupported("FieldCondition with " + (", ".join(tests) or "nothing"))


def _match(match: Any) -> edge.MatchType:
    match match:
        case models.MatchValue(value=bool(value)):
            # Edge reads a Python bool as the integer 0 or 1, which matches nothing; NumPy's is read as a boolean.
            boolean: Any = np.bool_(value)
            return edge.MatchValue(boolean)
        case models.MatchValue(value=value):
            return edge.MatchValue(value)
        case models.MatchAny(any=values):
            return edge.MatchAny(values)
        case models.MatchExcept(except_=values):
            return edge.MatchExcept(values)
        case models.MatchPrefix(prefix=text):
            return edge.MatchPrefix(text)
        case models.MatchSubstring(substring=text):
            return edge.MatchSubstring(text)
    raise _unsupported(type(match).__name__)


def _unsupported(what: str) -> EngineError:
    return EngineError(f"the embedded engine's filters do not support {what}")

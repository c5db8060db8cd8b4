from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_trainers.commands.times import parse_time
from feast_embeddings.errors import InputError
from feast_embeddings.times import from_microseconds, to_microseconds

NOON = datetime(2024, 2, 29, 12, 0, 0, 123456, UTC)


@given(st.datetimes(timezones=st.just(UTC)))
def test_round_trip(instant: datetime) -> None:
    """An instant of the years 1 to 9999 goes to microseconds and back."""
    assert instant == from_microseconds(to_microseconds(instant))


def test_parse_time() -> None:
    """ISO 8601 with or without a zone, or a date; anything else is an error with an example."""
    assert parse_time("2024-02-29T12:00:00.123456") == NOON
    assert parse_time("2024-02-29T12:00:00.123456Z") == NOON
    assert parse_time(NOON.astimezone(timezone(timedelta(hours=9))).isoformat()) == NOON
    assert datetime(2024, 2, 29, tzinfo=UTC) == parse_time("2024-02-29")
    with pytest.raises(InputError, match=r"'soon' is not a time; expected e\.g\. 2026-01-31"):
        parse_time("soon")
    with pytest.raises(InputError, match="'0001-01-01T00:00:00\\+05:00' is not a time"):
        parse_time("0001-01-01T00:00:00+05:00")

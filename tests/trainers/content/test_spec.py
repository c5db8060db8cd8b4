"""What `--content` says, and what is guessed where it says nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from embedding_trainers.content.guess import guess_content
from embedding_trainers.content.spec import ContentColumn, parse_content
from feast_embeddings.demo import generate_shop
from feast_embeddings.errors import InputError

COLUMNS = ["title", "category", "price"]


def test_parse() -> None:
    """Columns come with their kinds or encoders in the order given; blanks around them do not count."""
    found = parse_content(" title : text,price:number , category:model2vec:owner/name:v1", COLUMNS, ["model2vec"])

    assert found == (
        ContentColumn("title", "text"),
        ContentColumn("price", "number"),
        ContentColumn("category", "model2vec", "owner/name:v1"),
    )
    assert parse_content(",".join(map(str, found)), COLUMNS, ["model2vec"]) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected COLUMN:KIND"),
        ("title", "with a kind of text, category, list, number, vector, image; got 'title'"),
        ("title:text,", "got ''"),
        (":text", "got ':text'"),
        ("titles:text", "no column 'titles'; the columns are title, category, price; did you mean 'title'?"),
        ("x:text", "no column 'x'; the columns are title, category, price$"),
        ("title:txt", "no kind or encoder 'txt'; there are .*, mine; did you mean 'text'?"),
        ("title:text,title:category", "the column 'title' comes twice, as title:text and title:category"),
    ],
)
def test_parse_refuses(text: str, message: str) -> None:
    """What cannot be used is named, with what there is."""
    with pytest.raises(InputError, match=message):
        parse_content(text, COLUMNS, ["mine"])


N = 200
TIMES = [datetime(2026, 1, 1, tzinfo=UTC)] * N
LENGTHS = [[1.0] * (1 + n % 2) for n in range(N)]
GUESSED: dict[str, tuple[Any, str]] = {
    "titles": (pa.array([f"Red lamp number {n}" for n in range(N)]), "text"),
    "few texts": (pa.array([f"Garden and home {n % 5}" for n in range(N)]), "category"),
    "some words": (pa.array([f"w{n % 60}" for n in range(N)]), "category"),
    "codes": (pa.array([f"B00{n}" for n in range(N)]), "a different value"),
    "urls": (pa.array([f"https://example.org/{n % 3}" for n in range(N)]), "URLs"),
    "dictionary": (pa.array([f"c{n % 4}" for n in range(N)]).dictionary_encode(), "category"),
    "flags": (pa.array([n % 2 == 0 for n in range(N)]), "category"),
    "prices": (pa.array([n * 1.5 for n in range(N)]), "number"),
    "years": (pa.array([1990 + n % 30 for n in range(N)]), "number"),
    "numbers of rows": (pa.array(range(N)), "no two rows have the same number"),
    "times": (pa.array(TIMES), "times are not content"),
    "tags": (pa.array([["a", "b"][: n % 3] for n in range(N)]), "list"),
    "codes of tags": (pa.array([[n % 5] for n in range(N)]), "list"),
    "photos": (pa.array([[1.0, 2.0]] * N, pa.list_(pa.float32(), 2)), "vector"),
    "photos, some": (pa.array([[1.0, 2.0], None] * (N // 2)), "vector"),
    "ragged": (pa.array(LENGTHS), "vectors of 1 to 2 numbers"),
    "nulls": (pa.nulls(N, pa.string()), "no row has a value"),
    "one value": (pa.array(["x"] * N), "all rows have the same value"),
    "one value or none": (pa.array(["x", None] * (N // 2)), "category"),
    "bytes": (pa.array([b"x", b"y"] * (N // 2)), "values of type binary"),
    "structs": (pa.array([{"a": n} for n in range(N)]), "values of type struct"),
}


@pytest.mark.parametrize("name", GUESSED)
def test_guess(name: str) -> None:
    """Each kind of column is guessed by its type and values, or left out with a reason."""
    column, expected = GUESSED[name]

    guess = guess_content(pa.table({name: column}))

    if guess.content:
        assert guess.content == (ContentColumn(name, expected),)
        assert guess.left_out == {}
    else:
        assert expected in guess.left_out[name]


def test_guess_of_the_shop() -> None:
    """The generated shop is guessed as a person would."""
    shop = generate_shop()

    items = guess_content(shop.items.drop_columns(["item_id"]))
    users = guess_content(shop.users.drop_columns(["user_id"]))

    assert ",".join(map(str, items.content)) == "title:text,category:category,price:number,tags:list"
    assert items.left_out == {}
    assert ",".join(map(str, users.content)) == "country:category"
    assert users.left_out == {"joined_at": "times are not content"}


def test_guess_needs_few_rows() -> None:
    """A table without rows has no content, and says so."""
    guess = guess_content(pa.table({"title": pa.array([], pa.string())}))

    assert (guess.content, guess.left_out) == ((), {"title": "no row has a value"})

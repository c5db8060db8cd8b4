"""Attributes that the training did not have: filters know them at once, publishes and pushes keep them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.changes import test_set_attributes
from tests.changes.test_set_attributes import ITEMS, NOON, rows, served, store_of, version, views
from tests.conftest import Command
from tests.support.job import Job
from tests.support.publishing import publish_any
from tests.support.shop import Shop, apply, new_repo, qdrant

from feast_embeddings.errors import FilterError, InputError
from feast_embeddings.publish.versions import roll_back
from feast_embeddings.query.store import EmbeddingStore

shop = test_set_attributes.shop
common_shop_here = test_set_attributes.common_shop_here

NEW = {"segment": "int", "note": "text", "rank": "float", "is_new": "bool", "seen_at": "time", "words": "texts"}
LATER = datetime.now(UTC) + timedelta(days=1)


def added(store: EmbeddingStore) -> dict[str, Any]:
    """What listings say of the added attributes, without nulls."""
    page = store.page("item", 100)
    found = {
        str(id): {n: row[n] for n in NEW if row.get(n) is not None}
        for id, row in zip(page.ids, page.attributes, strict=True)
    }
    return {id: row for id, row in found.items() if row}


def test_a_dictionary_is_what_is_served(shop: Shop) -> None:
    """Whatever is set, published, rolled back, and by whom it is read; also after trainings with newer data."""
    store, reader, rng = store_of(shop), store_of(shop), np.random.default_rng(0)
    with pytest.raises(FilterError, match="no feature 'segment'"):
        reader.page("item", filter="segment = 1")
    model: dict[str, dict[str, Any]] = {}
    for step in range(4):
        numbers = {
            id: int(n) for id, n in zip(ITEMS, rng.integers(1, 4, len(ITEMS)), strict=True) if rng.random() < 0.6
        }
        done = store.set_attributes({id: {"segment": n} for id, n in numbers.items()}, add={"segment": "int"})
        assert done.items == len(numbers)
        for id, number in numbers.items():
            model.setdefault(id, {})["segment"] = number
        if step == 1:
            values = {"note": "Füß", "rank": 0.1 + 0.2, "is_new": True, "seen_at": "2026-03-01", "words": ["a", "b"]}
            store.set_attributes({"sku-1": values}, add=NEW)
            model.setdefault("sku-1", {}).update(values | {"seen_at": datetime(2026, 3, 1, tzinfo=UTC)})
        if step == 2:
            # The data of its training are newer than the values, which are in no training.
            publish_any(shop.feature_store, version(shop.repo.data, step, as_of=LATER + timedelta(days=step)))
        assert added(store) == added(reader) == model
        for number in (1, 2, 3):
            expected = {id for id, row in model.items() if row.get("segment") == number}
            for asked in (store, reader):
                assert set(asked.page("item", 100, filter=f"segment = {number}").ids) == expected
            near = reader.similar_items("sku-0", k=20, filter=f"segment = {number}")
            assert set(near.ids) == expected - {"sku-0"}
            ranked = reader.rank("u-0", k=20, filter=f"segment IN ({number})", attributes=["segment"])
            assert set(ranked.ids) == expected
            assert all(row == {"segment": number} for row in ranked.attributes)
    assert reader.page("item", filter="note = 'Füß' AND rank < 1 AND is_new = TRUE AND words = 'b'").ids == ["sku-1"]
    exported = reader.export("item").read_all()
    assert exported.schema.field("segment").type == pa.int64()
    assert dict(zip(exported["item_id"].to_pylist(), exported["segment"].to_pylist(), strict=True)) == {
        id: model.get(id, {}).get("segment") for id in ITEMS
    }
    roll_back(shop.feature_store, shop.repo.data, "shop")
    assert added(reader) == model
    store.set_attributes({id: {"segment": None} for id in ITEMS})
    assert reader.page("item", filter="segment IS NOT NULL").ids == []


def test_a_pushed_row_keeps_them(shop: Shop) -> None:
    store = store_of(shop)
    store.set_attributes({id: {"segment": 3} for id in ITEMS}, add={"segment": "int"})
    exported = store.export("item").read_all().drop_columns(["segment"]).to_pandas().head(2)
    exported["event_timestamp"] = LATER
    exported["created_timestamp"] = LATER
    exported["since"] = NOON
    exported["stock"] = 77
    shop.feature_store.write_to_online_store("shop_item_embeddings", exported)
    assert len(store.page("item", filter="stock = 77 AND segment = 3").ids) == 2
    publish_any(shop.feature_store, version(shop.repo.data, 1))  # carries the late rows over
    assert len(store.page("item", filter="stock = 77 AND segment = 3").ids) == 2
    assert len(store.page("item", filter="segment = 3").ids) == len(ITEMS)


def test_a_training_that_has_it_takes_over(shop: Shop) -> None:
    store, given = store_of(shop), {"sku-1": {"stock": 5}}
    without = version(shop.repo.data, 1, leave_out="stock")
    shop.feature_store.apply(list(views(shop)))
    publish_any(shop.feature_store, without)
    with pytest.raises(InputError, match="no attribute 'stock' to set"):
        store.set_attributes(given)
    store.set_attributes(given, add={"stock": "int"})
    assert store.page("item", filter="stock = 5").ids == ["sku-1"]
    having = version(shop.repo.data, 2)
    shop.feature_store.apply(list(views(shop)))
    publish_any(shop.feature_store, having)
    model = rows(2)
    model["sku-1"]["stock"] = 5  # set after the data of the training
    assert served(shop) == model
    newer = version(shop.repo.data, 3, as_of=LATER)
    publish_any(shop.feature_store, newer)
    assert served(shop) == rows(3)


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ({"embedding": "text"}, "'embedding' is in use"),
        ({"Price": "float"}, "'price' is in use"),
        ({"item_id": "text"}, "'item_id' is in use"),
        ({"version": "text"}, "'version' is in use"),
        ({"source": "text"}, "'source' is in use"),
        ({"Score": "float"}, "'score' is in use"),
        ({"because": "text"}, "'because' is in use"),
        ({"_event_timestamp": "int"}, "expected letters, digits and _"),
        ({"a b": "int"}, "expected letters, digits and _"),
        ({"": "int"}, "expected letters, digits and _"),
        ({"segment": "integer"}, "the type must be one of text, int, float, bool, time, texts, ints, got 'integer'"),
        ({"price": "int"}, "there is one, which is a number; choose another name"),
    ],
)
def test_what_cannot_be_added(common_shop_here: Shop, new: dict[str, str], message: str) -> None:
    shop = common_shop_here
    (name,) = new
    with pytest.raises(InputError, match=message):
        store_of(shop).set_attributes({"sku-1": {name: 1}}, add=new)
    with pytest.raises(InputError, match="add takes a dictionary of names with the name of a type each, got list"):
        store_of(shop).set_attributes({"sku-1": {name: 1}}, add=[f"{name}:int"])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="has to be a whole number"):
        store_of(shop).set_attributes({"sku-1": {"segment": "one"}}, add={"segment": "int"})
    assert served(shop) == rows(0)
    assert not (shop.repo.data / "shop.attributes.json").exists()


def add_and_die(_: Any, repo: str, id: str, number: int) -> None:
    """Add an attribute, and die with SIGKILL when it is on disk and not in Qdrant."""
    from feast import FeatureStore

    from feast_embeddings.engines.embedded.engine import EmbeddedEngine

    EmbeddedEngine.set_payload = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
    EmbeddingStore(FeatureStore(repo), "shop").set_attributes({id: {"segment": number}}, add={"segment": "int"})


@pytest.mark.parametrize("request_param", ["embedded"])
def test_killed_between_the_file_and_qdrant(
    request: pytest.FixtureRequest, request_param: str, tmp_path: Path, start: Callable[..., Job]
) -> None:
    """The next call writes the value too, and so does the next publish."""
    request.param = request_param
    repo = new_repo(request, tmp_path / "repo")
    shop = Shop(repo, version(repo.data, 0), apply(repo))
    store = shop.publish()
    assert start(add_and_die, str(repo.path), "sku-1", 1).exit_code() == -signal.SIGKILL
    assert added(store) == {}
    store.set_attributes({"sku-2": {"segment": 2}})
    assert added(store) == {"sku-1": {"segment": 1}, "sku-2": {"segment": 2}}
    assert start(add_and_die, str(repo.path), "sku-3", 3).exit_code() == -signal.SIGKILL
    publish_any(shop.feature_store, version(repo.data, 1))
    assert added(store) == {f"sku-{n}": {"segment": n} for n in (1, 2, 3)}
    qdrant(shop.feature_store).engine(shop.feature_store.config).close()


def test_the_command(shop: Shop, command: Command, tmp_path: Path) -> None:
    if not (shop.repo.path / "qdrant_storage").exists():
        pytest.skip("the command opens the repo's own store")
    table = tmp_path / "new.csv"
    table.write_text('item_id,segment,words\nsku-1,3,"[""a""]"\nsku-2,,\n')
    asked = "set-attributes", "--repo", shop.repo.path, "--items", table
    refused = command(*asked)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "items have no attribute 'segment' to set" in refused.err
    assert "NAME:TYPE" in command(*asked, "--add", "segment").err
    twice = command(*asked, "--add", "segment:int", "--add", "words:texts", "--add", "segment:float")
    assert (twice.code, "names 'segment' with two types, int and float" in twice.err) == (2, True)
    absent = command(*asked, "--add", "segment:int", "--add", "words:texts", "--add", "typo:int")
    assert (absent.code, absent.err.count("\n")) == (2, 1)
    assert "FILE has no column 'typo'; there are segment, words" in absent.err
    assert not (shop.repo.data / "shop.attributes.json").exists()
    assert command(*asked, "--add", "segment:int", "--add", "words:texts").code == 0
    assert added(store_of(shop)) == {"sku-1": {"segment": 3, "words": ["a"]}}
    assert served(shop) == rows(0)
    assert command("doctor", "--repo", shop.repo.path, "--max-age", 100_000).code == 0

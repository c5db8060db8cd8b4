"""Tests that an engine of another package can run on itself, with pytest::

    from feast_embeddings.engines.testing import EngineTests
    from my_package import MyEngine


    class TestMyEngine(EngineTests):
        def make_engine(self, folder):
            return MyEngine(folder)

NumPy is the oracle for search. Needs pytest.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from qdrant_client import models

from feast_embeddings.engines.engine import TIMESTAMP_KEY, CollectionSpec, Engine, PointBatch, PointId, VectorSpec
from feast_embeddings.errors import EngineError

__all__ = ["EngineTests", "NewAlias", "ids", "make_batch", "make_spec", "new_aliases", "random_vectors"]

NewAlias = Callable[[], str]
DIM = 8


def make_spec(alias: str, **more: Any) -> CollectionSpec:
    """Return the spec of a collection with one vector that is scanned and one with a graph."""
    return CollectionSpec(
        alias=alias,
        vectors={
            "v": VectorSpec(size=DIM, distance="Dot", indexed=False),
            "v__cosine": VectorSpec(size=DIM, distance="Cosine", indexed=True),
        },
        payload_indexes={"category": "keyword", "price": "float", "n": "integer", "new": "bool"},
        **more,
    )


def make_batch(
    vectors: npt.NDArray[np.float32], *, first: int = 0, timestamp: int | npt.NDArray[np.int64] = 1_000
) -> PointBatch:
    """Make points with these vectors, float32 (n, 8), numbered from `first`; timestamps in microseconds."""
    n = len(vectors)
    timestamps = np.broadcast_to(np.asarray(timestamp, dtype=np.int64), (n,))
    present = np.ones(n, dtype=np.bool_)
    return PointBatch(
        ids=ids(first, n),
        vectors={"v": (vectors, present), "v__cosine": (vectors, present)},
        payloads=[
            {TIMESTAMP_KEY: int(t), "n": first + i, "category": "odd" if (first + i) % 2 else "even"}
            for i, t in enumerate(timestamps)
        ],
        timestamps=timestamps,
    )


def ids(first: int, n: int) -> list[PointId]:
    """Return UUIDs and 64-bit integers in turn."""
    return [2**64 - 1 - i if i % 2 else str(uuid.uuid5(uuid.NAMESPACE_OID, str(i))) for i in range(first, first + n)]


def random_vectors(rng: np.random.Generator, n: int) -> npt.NDArray[np.float32]:
    """Float32, shape (n, 8)."""
    return rng.standard_normal((n, DIM)).astype(np.float32)


def new_aliases(engine: Engine) -> Iterator[NewAlias]:
    """Make alias names that are not in use, and remove what was stored under them at the end; for a fixture."""
    made: list[str] = []

    def make() -> str:
        made.append(f"test_{uuid.uuid4().hex}")
        return made[-1]

    yield make
    engine.switch(dict.fromkeys(made))
    for alias in made:
        engine.drop(engine.collections(alias))


class EngineTests:
    """Tests of the guarantees of every engine. Subclass it, and define `make_engine`.

    Stability: provisional, see docs/compatibility.md.
    """

    def make_engine(self, folder: Path) -> Engine:
        """Make an engine for one test, which closes it; `folder` is empty."""
        raise NotImplementedError

    @pytest.fixture
    def engine(self, tmp_path: Path) -> Iterator[Engine]:
        """The engine under test."""
        with closing(self.make_engine(tmp_path)) as made:
            yield made

    @pytest.fixture
    def rng(self) -> np.random.Generator:
        """Seeded randomness."""
        return np.random.default_rng(0)

    @pytest.fixture
    def new_alias(self, engine: Engine) -> Iterator[NewAlias]:
        """Make unused alias names, and remove what was stored under them."""
        yield from new_aliases(engine)

    def test_vectors_come_back_bit_for_bit(self, engine: Engine, new_alias: NewAlias, rng: np.random.Generator) -> None:
        """A Dot vector is read back exactly as it was written, subnormal and large numbers included."""
        vectors = random_vectors(rng, 50)
        vectors[0, :4] = [1e-42, -0.0, 1e18, 1.0000001]
        alias = new_alias()
        engine.create(alias + "__c", make_spec(alias), [make_batch(vectors)])
        points = engine.retrieve(alias + "__c", ids(0, 50), vectors=["v"])
        stored = np.stack([point.vectors["v"] for point in points if point is not None])
        assert stored.dtype == np.float32
        assert stored.tobytes() == vectors.tobytes()

    def test_retrieve_keeps_the_order_and_marks_what_is_missing(
        self, engine: Engine, new_alias: NewAlias, rng: np.random.Generator
    ) -> None:
        """Points come in the order of the ids; unknown ids give None; an id requested twice is returned twice."""
        alias = new_alias()
        engine.create(alias + "__c", make_spec(alias), [make_batch(random_vectors(rng, 20))])
        asked = [*ids(7, 1), *ids(99, 1), *ids(3, 1), *ids(7, 1)]
        points = engine.retrieve(alias + "__c", asked, vectors=[])
        assert [None if point is None else point.payload["n"] for point in points] == [7, None, 3, 7]

    @pytest.mark.parametrize("name", ["v", "v__cosine"])
    def test_search_equals_brute_force(
        self, engine: Engine, new_alias: NewAlias, rng: np.random.Generator, name: str
    ) -> None:
        """The ten best by dot product and by cosine are those that numpy finds, with the same scores."""
        vectors = random_vectors(rng, 300)
        alias = new_alias()
        engine.create(
            alias + "__c", make_spec(alias), [make_batch(vectors[:200]), make_batch(vectors[200:], first=200)]
        )
        query = random_vectors(rng, 1)[0]
        scores = vectors @ query
        if name == "v__cosine":
            scores /= np.linalg.norm(vectors, axis=1) * np.linalg.norm(query)
        best = np.argsort(-scores)[:10]
        hits = engine.query(alias + "__c", name, query, limit=10)
        assert [hit.payload["n"] for hit in hits] == best.tolist()
        np.testing.assert_allclose([hit.score for hit in hits], scores[best], rtol=1e-5)

    def test_search_under_a_filter_equals_brute_force(
        self, engine: Engine, new_alias: NewAlias, rng: np.random.Generator
    ) -> None:
        """A filter removes points from the search, not from its result: as many hits as match are returned."""
        vectors = random_vectors(rng, 200)
        alias = new_alias()
        engine.create(alias + "__c", make_spec(alias), [make_batch(vectors)])
        query = random_vectors(rng, 1)[0]
        only_odd = models.Filter(
            must=[models.FieldCondition(key="category", match=models.MatchValue(value="odd"))],
            must_not=[models.HasIdCondition(has_id=list(ids(1, 1)))],
        )
        hits = engine.query(alias + "__c", "v", query, limit=300, filter=only_odd)
        expected = [n for n in np.argsort(-(vectors @ query)) if n % 2 and n != 1]
        assert [hit.payload["n"] for hit in hits] == expected

    def test_an_older_row_never_overwrites_a_newer_one(
        self, engine: Engine, new_alias: NewAlias, rng: np.random.Generator
    ) -> None:
        """Point by point the newest event timestamp wins, in whatever order the writes come; equal ones overwrite."""
        alias = new_alias()
        old, new, newer = (random_vectors(rng, 3) for _ in range(3))
        engine.create(alias + "__c", make_spec(alias), [make_batch(old, timestamp=1_000)])
        engine.upsert(alias + "__c", [make_batch(new, timestamp=np.array([999, 1_000, 2**52]))])
        engine.upsert(alias + "__c", [make_batch(newer, timestamp=2**52 - 1)])
        points = engine.retrieve(alias + "__c", ids(0, 3), vectors=["v"])
        stored = np.stack([point.vectors["v"] for point in points if point is not None])
        assert stored.tobytes() == np.stack([newer[0], newer[1], new[2]]).tobytes()
        assert engine.count(alias + "__c") == 3

    def test_upsert_adds_new_points(self, engine: Engine, new_alias: NewAlias, rng: np.random.Generator) -> None:
        """New points are added, and existing ones are not duplicated."""
        alias = new_alias()
        engine.create(alias + "__c", make_spec(alias), [make_batch(random_vectors(rng, 10))])
        engine.upsert(alias + "__c", [make_batch(random_vectors(rng, 4), first=first) for first in (5, 9, 13)])
        assert engine.count(alias + "__c") == 17

    def test_a_point_may_lack_a_vector(self, engine: Engine, new_alias: NewAlias, rng: np.random.Generator) -> None:
        """A point without a vector is stored and read, and never found by a search."""
        alias = new_alias()
        batch = make_batch(random_vectors(rng, 3))
        mask = np.array([True, False, True])
        batch = PointBatch(batch.ids, {"v": (batch.vectors["v"][0], mask)}, batch.payloads, batch.timestamps)
        engine.create(alias + "__c", make_spec(alias), [batch])
        points = engine.retrieve(alias + "__c", ids(0, 3), vectors=["v"])
        assert [point is not None and "v" in point.vectors for point in points] == [True, False, True]
        hits = engine.query(alias + "__c", "v", np.ones(DIM, dtype=np.float32), limit=10)
        assert sorted(hit.payload["n"] for hit in hits) == [0, 2]

    def test_aliases_switch_together(self, engine: Engine, new_alias: NewAlias, rng: np.random.Generator) -> None:
        """Several aliases move, appear and go in one step; all others stay."""
        first, second, gone = new_alias(), new_alias(), new_alias()
        for alias in (first, second):
            for version in ("1", "2"):
                spec = make_spec(alias, version=version, space=version)
                engine.create(alias + version, spec, [make_batch(random_vectors(rng, 2))])
        engine.switch({first: first + "1", second: second + "1", gone: first + "1"})
        engine.switch({first: first + "2", second: second + "2", gone: None})
        mine = {alias: name for alias, name in engine.aliases().items() if alias in (first, second, gone)}
        assert mine == {first: first + "2", second: second + "2"}
        assert engine.describe(first + "2") == make_spec(first, version="2", space="2")
        assert set(engine.collections(first)) == {first + "1", first + "2"}

    def test_create_replaces_a_collection_of_the_same_name(
        self, engine: Engine, new_alias: NewAlias, rng: np.random.Generator
    ) -> None:
        """A half-built collection of an earlier run is built again from the start."""
        alias = new_alias()
        engine.create(alias + "__c", make_spec(alias), [make_batch(random_vectors(rng, 30))])
        engine.create(alias + "__c", make_spec(alias), [make_batch(random_vectors(rng, 4))])
        assert engine.count(alias + "__c") == 4

    def test_drop_removes_and_may_be_repeated(
        self, engine: Engine, new_alias: NewAlias, rng: np.random.Generator
    ) -> None:
        """A dropped collection is gone, and dropping it again is not an error."""
        alias = new_alias()
        engine.create(alias + "__c", make_spec(alias), [make_batch(random_vectors(rng, 2))])
        engine.drop([alias + "__c"])
        engine.drop([alias + "__c"])
        assert engine.collections(alias) == {}
        with pytest.raises(EngineError, match=alias + "__c"):
            engine.count(alias + "__c")

    def test_scroll_gives_every_point_once(self, engine: Engine, new_alias: NewAlias, rng: np.random.Generator) -> None:
        """All points that pass the filter, over several pages, with only the requested payload and vectors."""
        alias, vectors = new_alias(), random_vectors(rng, 2_500)
        # Small batches, which go one after another: the stand-in cannot handle several at a time.
        batches = [make_batch(vectors[first : first + 250], first=first) for first in range(0, 2_500, 250)]
        engine.create(alias + "__c", make_spec(alias), batches)
        pages = list(engine.scroll(alias + "__c", payload=["n"], vectors=["v"]))
        assert len(pages) > 1
        points = sorted((point for page in pages for point in page), key=lambda point: point.payload["n"])
        assert [(point.id, point.payload, set(point.vectors)) for point in points] == [
            (id, {"n": n}, {"v"}) for n, id in enumerate(ids(0, 2_500))
        ]
        assert np.stack([point.vectors["v"] for point in points]).tobytes() == vectors.tobytes()
        few = models.Filter(must=[models.FieldCondition(key="n", range=models.Range(lt=3))])
        found = [point for page in engine.scroll(alias + "__c", payload=[], vectors=[], filter=few) for point in page]
        assert {point.id for point in found} == set(ids(0, 3))
        assert all((point.payload, point.vectors) == ({}, {}) for point in found)

    @pytest.mark.parametrize("indexed", [True, False])
    def test_the_highest_come_first(
        self, engine: Engine, new_alias: NewAlias, rng: np.random.Generator, indexed: bool
    ) -> None:
        """With an index or before it is built, under a filter or not; without those that have no number."""
        batch = make_batch(random_vectors(rng, 50))
        numbers = rng.permutation(50).tolist()
        for payload, number in zip(batch.payloads, numbers, strict=True):
            del payload["n"]
            if number >= 5:
                payload["n"] = number
        alias = new_alias()
        engine.create(alias + "_a", make_spec(alias), [batch], wait_for_indexes=indexed)
        even = models.Filter(must=[models.FieldCondition(key="category", match=models.MatchValue(value="even"))])
        order = sorted((i for i in range(50) if numbers[i] >= 5), key=lambda i: -numbers[i])
        for filter, allowed in [(None, order), (even, [i for i in order if not i % 2])]:
            for limit in (7, 50):
                found = engine.highest(alias + "_a", "n", limit=limit, filter=filter, payload=["n"])
                assert [point.id for point in found] == [batch.ids[i] for i in allowed[:limit]]
                assert [point.payload for point in found] == [{"n": numbers[i]} for i in allowed[:limit]]

    def test_a_collection_without_vectors(self, engine: Engine, new_alias: NewAlias) -> None:
        """Rows of a view without vectors are written, overwritten and read."""
        alias = new_alias()
        spec = make_spec(alias).model_copy(update={"vectors": {}})
        batch = make_batch(np.zeros((3, DIM), dtype=np.float32))
        batch = PointBatch(batch.ids, {}, batch.payloads, batch.timestamps)
        engine.create(alias + "__c", spec, [batch])
        engine.upsert(alias + "__c", [batch])
        points = engine.retrieve(alias + "__c", ids(0, 4), vectors=[])
        assert [None if point is None else point.payload["n"] for point in points] == [0, 1, 2, None]

    def test_what_an_alias_names_is_not_dropped(
        self, engine: Engine, new_alias: NewAlias, rng: np.random.Generator
    ) -> None:
        """Drop keeps a live collection, so that clearing old versions cannot delete one that just went live."""
        alias = new_alias()
        for name in (alias + "__c", alias + "__d"):
            engine.create(name, make_spec(alias), [make_batch(random_vectors(rng, 2))])
        engine.switch({alias: alias + "__c"})
        engine.drop([alias + "__c", alias + "__d"])
        assert engine.aliases()[alias] == alias + "__c"
        assert set(engine.collections(alias)) == {alias + "__c"}
        assert engine.count(alias + "__c") == 2

    def test_a_failure_of_the_source_is_told_as_it_is(
        self, engine: Engine, new_alias: NewAlias, rng: np.random.Generator
    ) -> None:
        """The source of the rows may fail during a write; that is not the engine's failure."""
        alias = new_alias()
        name, batch = alias + "__c", make_batch(random_vectors(rng, 5))

        def batches() -> Iterator[PointBatch]:
            yield batch
            raise OSError("the source is gone")

        with pytest.raises(OSError, match=r"^the source is gone$"):
            engine.create(name, make_spec(alias), batches())
        engine.create(name, make_spec(alias), [batch])
        with pytest.raises(OSError, match=r"^the source is gone$"):
            engine.upsert(name, batches())
        assert engine.count(name) == 5

    def test_an_empty_collection_answers_with_nothing(self, engine: Engine, new_alias: NewAlias) -> None:
        """A collection without points can be made, searched and read."""
        alias = new_alias()
        engine.create(alias + "__c", make_spec(alias), [])
        assert engine.count(alias + "__c") == 0
        assert engine.query(alias + "__c", "v", np.ones(DIM, dtype=np.float32), limit=3) == []
        assert engine.retrieve(alias + "__c", ids(0, 1), vectors=["v"]) == [None]

    def test_what_is_forgotten_is_gone_and_the_rest_is_unchanged(
        self, engine: Engine, new_alias: NewAlias, rng: np.random.Generator
    ) -> None:
        """Points by id, keys of payloads set and removed; vectors, the spec and the alias stay bit for bit."""
        alias = new_alias()
        name, spec, batch = f"{alias}__1", make_spec(alias), make_batch(random_vectors(rng, 30))
        engine.create(name, spec, [batch])
        engine.switch({alias: name})
        before = {p.id: p for page in engine.scroll(name, payload=None, vectors=["v", "v__cosine"]) for p in page}
        (changed,), gone, unknown = batch.ids[2:3], batch.ids[:2], ids(900, 2)
        engine.forget(name, [*gone, unknown[0]], {changed: {"n": 77, "category": None}, unknown[1]: {"n": 1}})
        after = {p.id: p for page in engine.scroll(name, payload=None, vectors=["v", "v__cosine"]) for p in page}
        assert after.keys() == before.keys() - set(gone)
        for id, point in after.items():
            assert {n: v.tobytes() for n, v in point.vectors.items()} == {
                n: v.tobytes() for n, v in before[id].vectors.items()
            }
            wanted = {TIMESTAMP_KEY: 1_000, "n": 77} if id == changed else before[id].payload
            assert point.payload == wanted
        assert (engine.aliases()[alias], engine.describe(name), engine.count(name)) == (name, spec, 28)
        seventy_seven = models.Filter(must=[models.FieldCondition(key="n", match=models.MatchValue(value=77))])
        (found,) = [p.id for page in engine.scroll(name, payload=[], vectors=[], filter=seventy_seven) for p in page]
        assert found == changed

    def test_set_keys_change_nothing_else(self, engine: Engine, new_alias: NewAlias, rng: np.random.Generator) -> None:
        """Keys set and removed, seen by filters; vectors, timestamps, other keys and points stay bit for bit."""
        alias = new_alias()
        name, spec, batch = f"{alias}__1", make_spec(alias), make_batch(random_vectors(rng, 30))
        engine.create(name, spec, [batch])
        before = {p.id: p for page in engine.scroll(name, payload=None, vectors=["v", "v__cosine"]) for p in page}
        first, second, unknown = batch.ids[2], batch.ids[3], ids(900, 1)[0]
        engine.set_payload(name, {first: {"n": 77, "category": None}, second: {"category": "new"}, unknown: {"n": 1}})
        after = {p.id: p for page in engine.scroll(name, payload=None, vectors=["v", "v__cosine"]) for p in page}
        assert after.keys() == before.keys()
        for id, point in after.items():
            assert {n: v.tobytes() for n, v in point.vectors.items()} == {
                n: v.tobytes() for n, v in before[id].vectors.items()
            }
        assert after[first].payload == {TIMESTAMP_KEY: 1_000, "n": 77}
        assert after[second].payload == before[second].payload | {"category": "new"}
        assert {id: after[id].payload for id in after if id not in (first, second)} == {
            id: before[id].payload for id in before if id not in (first, second)
        }
        assert (engine.describe(name), engine.count(name)) == (spec, 30)
        for match, expected in [
            (models.FieldCondition(key="n", match=models.MatchValue(value=77)), first),
            (models.FieldCondition(key="category", match=models.MatchValue(value="new")), second),
        ]:
            only = models.Filter(must=[match])
            (found,) = [p.id for page in engine.scroll(name, payload=[], vectors=[], filter=only) for p in page]
            assert found == expected

    def test_an_added_index_changes_no_answer(
        self, engine: Engine, new_alias: NewAlias, rng: np.random.Generator
    ) -> None:
        """A key that the collection was made without is in the spec, and filters on it find what they found."""
        alias = new_alias()
        name, spec, batch = f"{alias}__1", make_spec(alias), make_batch(random_vectors(rng, 30))
        engine.create(name, spec, [batch])
        engine.set_payload(name, {id: {"segment": i % 3} for i, id in enumerate(batch.ids)})
        only = models.Filter(must=[models.FieldCondition(key="segment", match=models.MatchValue(value=2))])

        def found() -> set[PointId]:
            return {p.id for page in engine.scroll(name, payload=[], vectors=[], filter=only) for p in page}

        assert found() == set(batch.ids[2::3])
        for _ in range(2):
            engine.add_indexes(name, {"segment": "unlinked"})
            indexes = {**spec.payload_indexes, "segment": "unlinked"}
            assert engine.describe(name) == spec.model_copy(update={"payload_indexes": indexes})
            assert (found(), engine.count(name)) == (set(batch.ids[2::3]), 30)
        hits = engine.query(name, "v__cosine", batch.vectors["v__cosine"][0][0], limit=30, filter=only)
        assert {hit.id for hit in hits} == set(batch.ids[2::3])

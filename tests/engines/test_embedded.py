"""What only the embedded engine does: payload indexes on demand, and a graph that finds what a scan finds."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from feast import ValueType

from feast_embeddings.codec.filter_text import parse_filter
from feast_embeddings.codec.filters import QdrantFilterTranslator
from feast_embeddings.engines.embedded.engine import EmbeddedEngine
from feast_embeddings.engines.embedded.folder import Pointer
from feast_embeddings.engines.engine import CollectionSpec, Hnsw, VectorSpec
from feast_embeddings.engines.testing import make_batch, make_spec, random_vectors
from feast_embeddings.errors import EngineError, WriterLockedError
from feast_embeddings.files import writer_lock

TYPES = {"n": ValueType.INT64, "category": ValueType.STRING}
MANY = 10_500  # more than a filter scans without an index


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EmbeddedEngine]:
    engine = EmbeddedEngine(tmp_path / "store", lock_timeout=1)
    yield engine
    engine.close()


def load(engine: EmbeddedEngine, rng: np.random.Generator, n: int) -> None:
    engine.create("many", make_spec("alias"), [make_batch(random_vectors(rng, n))], wait_for_indexes=False)


def indexed(tmp_path: Path) -> frozenset[str]:
    pointer = Pointer.model_validate_json((tmp_path / "store" / "pointer.json").read_bytes())
    return pointer.collections["many"].indexed


def found(engine: EmbeddedEngine, text: str) -> list[int]:
    filter = QdrantFilterTranslator(TYPES).translate(parse_filter(text))
    pages = engine.scroll("many", payload=["n"], vectors=[], filter=filter)
    return sorted(point.payload["n"] for page in pages for point in page)


def test_the_first_filter_builds_the_index_that_it_needs(
    engine: EmbeddedEngine, tmp_path: Path, rng: np.random.Generator
) -> None:
    """That one and no other, once; later rows are in it, and the answers are those of a scan throughout."""
    load(engine, rng, MANY)
    assert indexed(tmp_path) == frozenset()
    assert found(engine, "n >= 10490") == list(range(10_490, MANY))
    assert indexed(tmp_path) == {"n"}
    shards = set((tmp_path / "store" / "shards").iterdir())
    assert found(engine, "n < 3 OR n = 7") == [0, 1, 2, 7]
    assert set((tmp_path / "store" / "shards").iterdir()) == shards
    engine.upsert("many", [make_batch(random_vectors(rng, 5), first=MANY)], wait_for_indexes=False)
    assert found(engine, "n >= 10498 AND category = 'even'") == [10_498, 10_500, 10_502, 10_504]
    assert indexed(tmp_path) == {"n", "category"}


def test_few_points_are_scanned(engine: EmbeddedEngine, tmp_path: Path, rng: np.random.Generator) -> None:
    """Nothing is written for a filter over a small collection."""
    load(engine, rng, 100)
    assert found(engine, "n >= 98") == [98, 99]
    assert indexed(tmp_path) == frozenset()


def test_a_filter_does_not_wait_for_a_writer(engine: EmbeddedEngine, tmp_path: Path, rng: np.random.Generator) -> None:
    """While somebody writes it scans; the index comes with a later filter."""
    load(engine, rng, MANY)
    with writer_lock(tmp_path / "store" / "writer.lock", timeout=0):
        assert found(engine, "n < 2") == [0, 1]
        assert indexed(tmp_path) == frozenset()
    assert found(engine, "n < 2") == [0, 1]
    assert indexed(tmp_path) == {"n"}


def test_an_index_that_cannot_be_built_is_no_error(
    engine: EmbeddedEngine,
    tmp_path: Path,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """On a full disk the filter answers all the same; it says so once, and does not try again."""

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    load(engine, rng, MANY)
    monkeypatch.setattr("feast_embeddings.engines.embedded.folder.shutil.copytree", full)
    with caplog.at_level(logging.WARNING):
        assert found(engine, "n < 2") == [0, 1]
        assert found(engine, "n < 3") == [0, 1, 2]
    assert [record.message for record in caplog.records].count(
        "filters on 'many' stay slow: the embedded store could not write to 'many': No space left on device"
    ) == 1
    assert indexed(tmp_path) == frozenset()


def test_a_copied_shard_takes_no_more_disk(engine: EmbeddedEngine, tmp_path: Path, rng: np.random.Generator) -> None:
    """Each write copies the files, but not the holes in them, which are most of a small shard."""

    def used() -> tuple[int, int]:
        files = [path.stat() for path in (tmp_path / "store" / "shards").rglob("*") if path.is_file()]
        return sum(file.st_blocks * 512 for file in files), sum(file.st_size for file in files)

    load(engine, rng, 1_000)
    disk, size = used()
    for first in range(1_000, 1_004):
        engine.upsert("many", [make_batch(random_vectors(rng, 1), first=first)], wait_for_indexes=False)
    assert engine.count("many") == 1_004
    assert used()[0] < 1.1 * disk + 100_000 < size / 2


def test_a_write_clears_all_that_dead_writers_left(
    engine: EmbeddedEngine, tmp_path: Path, rng: np.random.Generator
) -> None:
    """Folders and their locks go together, in whatever order the folder lists them."""
    load(engine, rng, 5)
    shards = tmp_path / "store" / "shards"
    (live,) = shards.iterdir()
    for number in range(20):
        left = shards / f"{number:016x}-{number:012x}"
        left.mkdir()
        left.with_suffix(".building").touch()
    engine.upsert("many", [make_batch(random_vectors(rng, 5), first=5)])
    assert len(list(shards.iterdir())) == 1
    assert not live.exists()
    assert engine.count("many") == 10


def test_a_damaged_pointer_says_what_to_do(engine: EmbeddedEngine, tmp_path: Path, rng: np.random.Generator) -> None:
    """Reads and writes are refused with the file and the next step; a pointer that is restored is read again."""
    load(engine, rng, 5)
    file = tmp_path / "store" / "pointer.json"
    kept = file.read_bytes()
    file.write_bytes(kept[:-9])
    for ask in (engine.aliases, lambda: engine.count("many"), lambda: engine.drop(["many"])):
        with pytest.raises(EngineError, match=r"pointer\.json is damaged.*feast-embeddings doctor"):
            ask()
    file.write_bytes(kept)
    assert engine.count("many") == 5


@pytest.mark.parametrize(
    ("hnsw", "least", "most"), [(Hnsw(), 0.99, 1.0), (Hnsw(m=4, ef_construct=8, search_ef=10), 0.0, 0.9)]
)
def test_the_graph_finds_what_a_scan_finds(
    tmp_path: Path, rng: np.random.Generator, hnsw: Hnsw, least: float, most: float
) -> None:
    """Recall@10 of at least 0.99 against numpy, on enough vectors for a graph; less with a sparser one."""
    n, dim = 45_000, 64
    vectors = (rng.standard_normal((n, dim)) * np.arange(1, dim + 1) ** -0.25).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    spec = CollectionSpec(
        alias="alias", vectors={"v": VectorSpec(size=dim, distance="Cosine", indexed=True)}, payload_indexes={}
    )
    points = make_batch(vectors)
    del points.vectors["v__cosine"]
    engine = EmbeddedEngine(tmp_path / "graph", hnsw=hnsw)
    engine.create("many", spec, [points])
    sample = rng.choice(n, 200, replace=False)
    scores = vectors[sample] @ vectors.T
    tenth = np.partition(scores, -10, axis=1)[:, -10]
    right = 0
    for row, one in enumerate(sample):
        hits = engine.query("many", "v", vectors[one], limit=10)
        right += sum(scores[row, hit.payload["n"]] >= tenth[row] - 1e-6 for hit in hits)
    engine.close()
    assert least <= right / (10 * len(sample)) <= most


@pytest.mark.parametrize("how", ["useless", "unsupported"])
def test_a_file_system_without_locks_is_refused(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If two writers get the lock, or none can, nothing is written, and no writer waits for another."""

    def flock(*_: object) -> None:
        if how == "unsupported":
            raise OSError(errno.ENOTSUP, "Operation not supported")

    # No file system whose locks do nothing can be had in a test.
    monkeypatch.setattr("portalocker.portalocker.LOCKER", flock)
    engine = EmbeddedEngine(tmp_path / "store")
    with pytest.raises(WriterLockedError, match="has no working file locks"):
        engine.switch({"a": None})
    assert engine.aliases() == {}
    assert not (tmp_path / "store" / "pointer.json").exists()

"""New shards that several processes write together; real processes, and a dictionary is the oracle."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdrant_edge as edge

from feast_embeddings.engines.embedded import filler as shard_filler
from feast_embeddings.engines.embedded import shards as edge_shards
from feast_embeddings.engines.embedded.engine import EmbeddedEngine
from feast_embeddings.engines.engine import TIMESTAMP_KEY, PointBatch, PointId, StoredPoint
from feast_embeddings.engines.testing import ids, make_batch, make_spec, random_vectors
from feast_embeddings.errors import EngineError

PROCESSES = 3


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EmbeddedEngine]:
    engine = EmbeddedEngine(tmp_path / "store", processes=PROCESSES)
    yield engine
    engine.close()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The processes that were started; from 100 points on they are."""
    processes: list[subprocess.Popen[bytes]] = []

    class Recorded(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            processes.append(self)

    monkeypatch.setattr("feast_embeddings.engines.embedded.filler.subprocess.Popen", Recorded)
    monkeypatch.setattr(shard_filler, "_MANY", 100)
    monkeypatch.setattr(shard_filler, "_MESSAGE", 70)
    return processes


def create(engine: EmbeddedEngine, batches: Any) -> None:
    engine.create("many", make_spec("alias"), batches, wait_for_indexes=False)


def random_batch(rng: np.random.Generator, timestamp: int, n: int = 150, among: int = 400) -> PointBatch:
    """Points of some entities out of many, an entity at most once."""
    return make_batch(random_vectors(rng, among), timestamp=timestamp).take(rng.permutation(among)[:n])


def apply(model: dict[PointId, tuple[Any, bytes]], batch: PointBatch) -> None:
    for id, payload, row in zip(batch.ids, batch.payloads, batch.vectors["v"][0], strict=True):
        model[id] = payload, row.tobytes()


def content(engine: EmbeddedEngine) -> dict[PointId, tuple[Any, bytes]]:
    points: list[StoredPoint] = []
    for page in engine.scroll("many", payload=[TIMESTAMP_KEY, "n", "category"], vectors=["v"]):
        points += page
    assert engine.count("many") == len(points)
    return {point.id: (point.payload, point.vectors["v"].tobytes()) for point in points}


def test_as_if_one_process_had_written(
    engine: EmbeddedEngine, started: list[subprocess.Popen[bytes]], tmp_path: Path, rng: np.random.Generator
) -> None:
    """Of points with one id the last stays; later writes and filters meet the points of each process."""
    model: dict[PointId, tuple[Any, bytes]] = {}
    batches = [random_batch(rng, 1_000 + i) for i in range(8)]
    for batch in batches:
        apply(model, batch)
    create(engine, iter(batches))
    assert len(started) == PROCESSES
    assert all(process.returncode == 0 for process in started)
    assert content(engine) == model

    for timestamp in (2_000, 3_000):
        newer = random_batch(rng, timestamp, n=80, among=500)
        engine.upsert("many", [newer], wait_for_indexes=timestamp == 3_000)
        apply(model, newer)
    older = random_batch(rng, 1, n=400)
    engine.upsert("many", [older], wait_for_indexes=False)
    apply(model, older.take(np.flatnonzero([id not in model for id in older.ids])))
    assert content(engine) == model
    again = EmbeddedEngine(tmp_path / "store")
    assert content(again) == model
    again.close()

    matrix = np.stack([np.frombuffer(vector, dtype=np.float32) for _, vector in model.values()])
    query = random_vectors(rng, 1)[0]
    best = np.argsort(-(matrix @ query))[:10]
    numbers = [payload["n"] for payload, _ in model.values()]
    assert [hit.payload["n"] for hit in engine.query("many", "v", query, limit=10)] == [numbers[i] for i in best]


def test_one_batch_of_many_points(engine: EmbeddedEngine, started: list[subprocess.Popen[bytes]]) -> None:
    """All of it arrives, though the processes started after the last batch had come."""
    batch = make_batch(np.ones((1_000, 8), dtype=np.float32))
    create(engine, [batch])
    assert len(started) == PROCESSES
    assert content(engine).keys() == set(batch.ids)


def test_few_points_need_no_other_process(
    engine: EmbeddedEngine, started: list[subprocess.Popen[bytes]], rng: np.random.Generator
) -> None:
    """They are written before others have started."""
    create(engine, [make_batch(random_vectors(rng, 99))])
    assert engine.count("many") == 99
    assert started == []


def test_one_graph_over_what_all_processes_have_written(
    engine: EmbeddedEngine,
    started: list[subprocess.Popen[bytes]],
    tmp_path: Path,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where indexes are waited for, there is one segment with them all, and of points with one id the last is in it."""
    monkeypatch.setattr(edge_shards, "_GRAPH_KB", 1)
    model: dict[PointId, tuple[Any, bytes]] = {}
    batches = [random_batch(rng, 1_000 + i) for i in range(8)]
    for batch in batches:
        apply(model, batch)
    engine.create("many", make_spec("alias"), iter(batches))
    assert len(started) == PROCESSES
    assert content(engine) == model
    (path,) = (tmp_path / "store" / "shards").iterdir()
    shard = edge.EdgeShard.load(str(path))
    info = shard.info()
    # The other segment is empty, for what will be written.
    assert (info.segments_count, info.points_count, info.indexed_vectors_count) == (2, len(model), 2 * len(model))
    has_price = {"category": len(model), "n": len(model), "price": 0, "new": 0}
    assert {name: index.points for name, index in info.payload_schema.items()} == has_price
    shard.close()
    newer = random_batch(rng, 2_000)
    engine.upsert("many", [newer], wait_for_indexes=False)
    apply(model, newer)
    assert content(engine) == model


@pytest.mark.parametrize("problem", ["no such file", "ends at once", "another program"])
def test_processes_that_cannot_be_started(
    problem: str,
    started: list[subprocess.Popen[bytes]],
    tmp_path: Path,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """This one writes alone, and says why at debug level."""
    program = tmp_path / ("web-server" if problem == "another program" else "python")
    if problem == "ends at once":
        program.write_text("#!/bin/sh\necho no memory >&2\nexit 3\n")
        program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    engine = EmbeddedEngine(tmp_path / "store", processes=None if problem == "another program" else PROCESSES)
    batches = [make_batch(random_vectors(rng, 120), first=first) for first in (0, 120, 240)]
    with caplog.at_level(logging.DEBUG, logger="feast_embeddings"):
        create(engine, batches)
    assert content(engine).keys() == set(ids(0, 360))
    engine.close()
    said = [record.getMessage() for record in caplog.records if "no other process" in record.getMessage()]
    reason = {"no such file": "No such file", "ends at once": "no memory", "another program": None}[problem]
    assert len(said) == (reason is not None)
    assert reason is None or reason in said[0]
    (shard,) = (tmp_path / "store" / "shards").iterdir()
    assert {path.name for path in shard.iterdir()} == {"edge_config.json", "segments"}


def assert_nothing_is_left(tmp_path: Path, started: list[subprocess.Popen[bytes]]) -> None:
    assert list((tmp_path / "store" / "shards").iterdir()) == []
    assert len(started) == PROCESSES
    assert all(process.returncode is not None for process in started)


def test_a_process_that_is_killed(
    engine: EmbeddedEngine, started: list[subprocess.Popen[bytes]], tmp_path: Path, rng: np.random.Generator
) -> None:
    """The write fails and says so; nothing of it stays, and it can be repeated."""

    def batches(kill: bool) -> Iterator[PointBatch]:
        for first in range(0, 3_000, 150):
            yield make_batch(random_vectors(rng, 150), first=first)
            if kill and first == 600:
                os.kill(started[1].pid, signal.SIGKILL)

    with pytest.raises(EngineError, match="ended with status -9"):
        create(engine, batches(kill=True))
    assert_nothing_is_left(tmp_path, started)
    create(engine, batches(kill=False))
    assert engine.count("many") == 3_000


def test_a_point_that_the_engine_refuses(
    engine: EmbeddedEngine, started: list[subprocess.Popen[bytes]], tmp_path: Path, rng: np.random.Generator
) -> None:
    """The error carries the reason of the process that met it."""
    bad = make_batch(random_vectors(rng, 200))
    bad.payloads[77]["n"] = float("inf")
    with pytest.raises(EngineError, match="payload number"):
        create(engine, [make_batch(random_vectors(rng, 200)), bad])
    assert_nothing_is_left(tmp_path, started)


@pytest.mark.parametrize("error", [ValueError("of the source"), KeyboardInterrupt()])
def test_an_error_of_the_source(
    error: BaseException,
    engine: EmbeddedEngine,
    started: list[subprocess.Popen[bytes]],
    tmp_path: Path,
    rng: np.random.Generator,
) -> None:
    """It comes out as it is, and the processes are ended."""

    def batches() -> Iterator[PointBatch]:
        for first in range(0, 900, 150):
            yield make_batch(random_vectors(rng, 150), first=first)
        raise error

    with pytest.raises(type(error)) as caught:
        create(engine, batches())
    assert caught.value is error
    assert_nothing_is_left(tmp_path, started)

"""Any order of writes, switches, drops, kills and reopenings leaves an engine as a dictionary says."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from qdrant_client import QdrantClient
from tests.conftest import QdrantServer
from tests.support.job import CONTEXT, PRELOADED, Job

from feast_embeddings.engines.embedded.engine import EmbeddedEngine
from feast_embeddings.engines.engine import Engine, PointBatch
from feast_embeddings.engines.server.engine import ServerEngine
from feast_embeddings.engines.testing import DIM, ids, make_batch, make_spec

# Number of a point -> its timestamp and vector.
Points = dict[int, tuple[int, npt.NDArray[np.float32]]]

NAMES = st.integers(0, 2)
FIRST, SIZE, TIME, SEED = st.integers(0, 12), st.integers(0, 6), st.integers(1, 5), st.integers(0, 2**16)


def batch_of(first: int, n: int, timestamp: int, seed: int) -> tuple[PointBatch, Points]:
    """Random points, for an engine and for the dictionary."""
    vectors = np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)
    points = {first + i: (timestamp, vector) for i, vector in enumerate(vectors)}
    return make_batch(vectors, first=first, timestamp=timestamp), points


def written(old: Points, new: Points) -> Points:
    """A stored point with a newer timestamp stays."""
    return old | {n: point for n, point in new.items() if n not in old or point[0] >= old[n][0]}


def write_slowly(pipe: Connection, folder: Path, name: str, batches: list[tuple[int, int, int, int]]) -> None:
    """Write, and say so before each step that a kill may hit."""
    engine = EmbeddedEngine(folder)

    def told() -> Any:
        for each in batches:
            pipe.send("batch")
            yield batch_of(*each)[0]

    engine.upsert(name, told())
    pipe.send("written")
    engine.close()


class Machine(RuleBasedStateMachine):
    """Some collections under two aliases."""

    open: Callable[[Path], Engine]
    can_be_killed = False

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="engine-machine-"))
        self.engine = type(self).open(self.folder)
        self.alias = f"machine_{uuid.uuid4().hex}"
        self.collections: dict[str, Points] = {}
        self.live: dict[str, str] = {}

    def teardown(self) -> None:
        self.engine.switch(dict.fromkeys(self.live))
        self.engine.drop(self.collections)
        self.engine.close()
        shutil.rmtree(self.folder)

    def name(self, number: int) -> str:
        return f"{self.alias}__{number}"

    @rule(number=NAMES, first=FIRST, n=SIZE, timestamp=TIME, seed=SEED)
    def create(self, number: int, first: int, n: int, timestamp: int, seed: int) -> None:
        name = self.name(number)
        if name in self.live.values():
            return  # a live one is never made again
        batch, points = batch_of(first, n, timestamp, seed)
        self.engine.create(name, make_spec(self.alias), [batch])
        self.collections[name] = points

    @precondition(lambda self: self.collections)
    @rule(data=st.data(), first=FIRST, n=SIZE, timestamp=TIME, seed=SEED)
    def upsert(self, data: st.DataObject, first: int, n: int, timestamp: int, seed: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.collections)))
        batch, points = batch_of(first, n, timestamp, seed)
        self.engine.upsert(name, [batch])
        self.collections[name] = written(self.collections[name], points)

    @rule(data=st.data(), ending=st.sampled_from("ab"))
    def switch(self, data: st.DataObject, ending: str) -> None:
        alias = f"{self.alias}_{ending}"
        name = data.draw(st.sampled_from([None, *sorted(self.collections)]))
        self.engine.switch({alias: name})
        self.live.pop(alias, None)
        if name is not None:
            self.live[alias] = name

    @rule(number=NAMES)
    def drop(self, number: int) -> None:
        name = self.name(number)
        self.engine.drop([name])
        if name not in self.live.values():
            self.collections.pop(name, None)

    @precondition(lambda self: self.can_be_killed)
    @rule()
    def reopen(self) -> None:
        self.engine.close()
        self.engine = type(self).open(self.folder)

    @precondition(lambda self: self.can_be_killed and self.collections)
    @rule(
        data=st.data(),
        batches=st.lists(st.tuples(FIRST, st.integers(1, 6), TIME, SEED), min_size=1, max_size=3),
        heard=st.integers(0, 4),
    )
    def kill(self, data: st.DataObject, batches: list[tuple[int, int, int, int]], heard: int) -> None:
        """A writer is killed after it has said so much; all its batches are there or none."""
        name = data.draw(st.sampled_from(sorted(self.collections)))
        job = Job(write_slowly, self.folder, name, batches)
        said = [job.receive() for _ in range(min(heard, len(batches) + 1))]
        said += job.kill()
        job.process.close()
        after = before = self.collections[name]
        for each in batches:
            after = written(after, batch_of(*each)[1])
        stored = self.stored(name)
        assert same(stored, after) or ("written" not in said and same(stored, before))
        self.collections[name] = after if same(stored, after) else before

    @invariant()
    def all_is_as_the_dictionary_says(self) -> None:
        """Aliases, collections, counts, points by id, and the nearest by brute force."""
        mine = {alias: name for alias, name in self.engine.aliases().items() if alias.startswith(self.alias)}
        assert mine == self.live
        assert self.engine.collections(self.alias).keys() == self.collections.keys()
        query = np.ones(DIM, np.float32)
        for name, points in self.collections.items():
            assert self.engine.count(name) == len(points)
            assert same(self.stored(name), points)
            hits = self.engine.query(name, "v", query, limit=3)
            best = sorted((float(vector @ query) for _, vector in points.values()), reverse=True)[:3]
            np.testing.assert_allclose([hit.score for hit in hits], best, rtol=1e-4, atol=1e-5)

    def stored(self, name: str) -> Points:
        """The points by id, of all ids that there can be."""
        found = self.engine.retrieve(name, ids(0, 20), vectors=["v"])
        return {
            n: (point.payload["_event_timestamp"], point.vectors["v"])
            for n, point in enumerate(found)
            if point is not None
        }


def same(points: Points, others: Points) -> bool:
    """Whether they are equal, bit for bit."""
    return {n: (t, v.tobytes()) for n, (t, v) in points.items()} == {
        n: (t, v.tobytes()) for n, (t, v) in others.items()
    }


def run(machine: type[Machine], rounds: int, steps: int) -> None:
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=rounds, stateful_step_count=steps, deadline=None, suppress_health_check=checks),
    )


@pytest.fixture
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[Machine]:
    """Over the engine that `request.param` names."""
    if request.param == "embedded":
        monkeypatch.syspath_prepend(Path(__file__).parents[2])
        CONTEXT.set_forkserver_preload(PRELOADED)
        return type("EmbeddedMachine", (Machine,), {"open": staticmethod(EmbeddedEngine), "can_be_killed": True})
    if request.param == "server-stand-in":

        def imitation(_: Path) -> Engine:
            return ServerEngine(QdrantClient(":memory:"), streams=1)

        return type("ImitationMachine", (Machine,), {"open": staticmethod(imitation)})
    server: QdrantServer = request.getfixturevalue("qdrant_server")

    def connected(_: Path) -> Engine:
        client = QdrantClient(url=server.url, prefer_grpc=True, grpc_port=server.grpc_port, check_compatibility=False)
        return ServerEngine(client)

    return type("ServerMachine", (Machine,), {"open": staticmethod(connected)})


EVERY = pytest.mark.parametrize("machine", ["embedded", "server-stand-in", "server"], indirect=True)


@EVERY
def test_an_engine_is_what_a_dictionary_says(machine: type[Machine]) -> None:
    """A few histories."""
    run(machine, 6, 12)


@pytest.mark.slow
@EVERY
def test_an_engine_is_what_a_dictionary_says_for_long(machine: type[Machine]) -> None:
    """Many histories, and longer ones."""
    run(machine, 60, 30)

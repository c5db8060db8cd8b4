"""The real `feast serve` with two workers answers while the real `feast materialize` writes in another process."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureStore

BIN = Path(sys.executable).parent
START = datetime(2026, 1, 1, tzinfo=UTC)
ROWS, DIM = 20_000, 8
TIMEOUT = 120

# As in the template: a worker that reads the registry meanwhile would refuse to serve the view.
CONFIG = """
project: serving
provider: local
registry: {path: registry.db, serve_features_while_materializing: true}
offline_store: {type: duckdb}
online_store: {type: feast_embeddings.QdrantEmbeddingOnlineStore}
batch_engine: {type: feast_embeddings.ArrowComputeEngine}
entity_key_serialization_version: 3
"""
VIEWS = """
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Float32, Int64

item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64)
items = FeatureView(
    name="items",
    entities=[item],
    schema=[
        Field(name="item_id", dtype=Int64),
        Field(name="round", dtype=Int64),
        Field(name="vector", dtype=Array(Float32), vector_index=True, vector_length=8),
    ],
    source=FileSource(path="items.parquet", timestamp_field="event_timestamp"),
)
"""


def write_round(repo: Path, number: int) -> None:
    """The source after so many rounds: in every row the number, alone and eight times in the vector."""
    table = pa.table(
        {
            "item_id": np.arange(ROWS),
            "round": np.full(ROWS, number),
            "vector": pa.array([[float(number)] * DIM] * ROWS, pa.list_(pa.float32())),
            "event_timestamp": pa.array([START + timedelta(hours=number)] * ROWS, pa.timestamp("us", tz="UTC")),
        }
    )
    pq.write_table(table, repo / "new.parquet")
    (repo / "new.parquet").replace(repo / "items.parquet")


def feast(repo: Path, *arguments: str) -> None:
    done = subprocess.run(
        [str(BIN / "feast"), *arguments], cwd=repo, capture_output=True, text=True, check=False, timeout=TIMEOUT
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """An applied repo with round 0 materialized."""
    (tmp_path / "feature_store.yaml").write_text(CONFIG)
    (tmp_path / "views.py").write_text(VIEWS)
    write_round(tmp_path, 0)
    feast(tmp_path, "apply")
    FeatureStore(repo_path=str(tmp_path)).materialize(START, START)
    return tmp_path


@pytest.fixture
def address(repo: Path) -> Iterator[str]:
    """Where `feast serve` listens with two workers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = repo / "serve.log"
    with log.open("w") as output:
        serve = subprocess.Popen(
            # A worker that is replaced after so many requests drops connections, with every online store.
            [str(BIN / "feast"), "serve", "-h", "127.0.0.1", "-p", str(port), "-w", "2", "--max-requests", "0"],
            cwd=repo,
            stdout=output,
            stderr=output,
        )
    try:
        address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + TIMEOUT
        while len(set(re.findall(r"Booting worker with pid: (\d+)", log.read_text()))) < 2 or not healthy(address):
            assert serve.poll() is None, log.read_text()[-4000:]
            assert time.monotonic() < deadline, log.read_text()[-4000:]
            time.sleep(0.1)
        yield address
    finally:
        serve.send_signal(signal.SIGTERM)
        try:
            serve.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            serve.kill()
            raise


def healthy(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health").status_code == 200
    except httpx.TransportError:
        return False


def served_round(client: httpx.Client, address: str, ids: list[int]) -> int:
    """The round that all these rows are of; an answer that mixes rounds, or lacks a row, fails."""
    answer = client.post(
        f"{address}/get-online-features",
        json={"features": ["items:round", "items:vector"], "entities": {"item_id": ids}},
        timeout=TIMEOUT,
    )
    assert answer.status_code == 200, answer.text
    body = answer.json()
    columns = dict(zip(body["metadata"]["feature_names"], body["results"], strict=True))
    assert columns["item_id"]["values"] == ids
    (number,) = set(columns["round"]["values"])
    assert columns["vector"]["values"] == [[float(number)] * DIM] * len(ids)
    return int(number)


def test_workers_serve_while_another_process_materializes(repo: Path, address: str) -> None:
    """Every answer is of one round, none is older than the one before, and the end of the command is the new round."""
    stop = threading.Event()
    seen: list[list[int]] = [[], []]
    errors: list[BaseException] = []

    def ask(rounds: list[int], seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            with httpx.Client() as client:
                while not stop.is_set():
                    rounds.append(served_round(client, address, rng.choice(ROWS, 50, replace=False).tolist()))
        except BaseException as error:
            errors.append(error)

    readers = [threading.Thread(target=ask, args=(rounds, seed)) for seed, rounds in enumerate(seen)]
    for reader in readers:
        reader.start()
    try:
        for number in (1, 2):
            write_round(repo, number)
            end = (START + timedelta(hours=number)).replace(tzinfo=None).isoformat()
            feast(repo, "materialize", START.replace(tzinfo=None).isoformat(), end)
            # New connections, which either worker may take.
            for _ in range(10):
                with httpx.Client() as client:
                    assert served_round(client, address, [0, ROWS - 1]) == number
    finally:
        stop.set()
        for reader in readers:
            reader.join(TIMEOUT)
    assert not errors, errors
    for rounds in seen:
        assert rounds == sorted(rounds)
        assert set(rounds) >= {0, 1}

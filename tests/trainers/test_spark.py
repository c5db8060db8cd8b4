"""Training on Spark gives what training on one machine gives: the same artifact, as good, in the same space."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.sparse import csr_matrix
from tests.conftest import Command

from embedding_trainers.evaluation import evaluate
from embedding_trainers.fold_in import fold_in
from embedding_trainers.interactions import Columns, Preparation, Reading
from embedding_trainers.spark import train_on_spark
from embedding_trainers.spark.rows import prepared_rows
from embedding_trainers.train import train_model
from embedding_trainers.trainer import Factors
from embedding_trainers.training import Training
from feast_embeddings.artifact import ENTITIES, Artifact, embedding_matrix
from feast_embeddings.errors import EmbeddingsError, InputError

needs_spark = pytest.mark.skipif(
    importlib.util.find_spec("pyspark") is None or shutil.which("java") is None,
    reason="needs the extra spark (pip install 'feast-embeddings[spark]') and Java 17 or later",
)
pytestmark = [
    needs_spark,
    # PySpark leaves sockets to its JVM open.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

PARAMETERS = {"factors": 16, "iterations": 6}
START = datetime(2026, 1, 1, tzinfo=UTC)
# Quicker for little data.
CONF = {
    "spark.sql.shuffle.partitions": "2",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.adaptive.enabled": "false",
}


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    """Spark in this process, with two threads."""
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    for host in ("spark.driver.host", "spark.driver.bindAddress"):
        builder = builder.config(host, "127.0.0.1")
    # A time zone with a summer time, which must not matter.
    for key, value in (CONF | {"spark.sql.session.timeZone": "America/New_York", "spark.log.level": "ERROR"}).items():
        builder = builder.config(key, value)
    # Compiling well takes longer than these tests.
    builder = builder.config("spark.driver.extraJavaOptions", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
    made = builder.getOrCreate()
    made.sparkContext.pythonExec = sys.executable
    yield made
    made.stop()


@dataclass(frozen=True)
class Log:
    """A log of tastes, the pairs held back from it, and what was trained on it."""

    repo: Path
    path: Path
    held: csr_matrix


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Log:
    """2,000 users and 300 items of 10 tastes, a quarter of the pairs held back; users are text, items whole numbers."""
    folder = tmp_path_factory.mktemp("spark")
    rng = np.random.default_rng(0)
    popularity = 1 / np.arange(1, 301) ** 0.8
    rng.shuffle(popularity)
    of_user, of_item = rng.integers(10, size=2000), rng.integers(10, size=300)
    chance = popularity * np.where(of_user[:, None] == of_item, 60, 1)
    met = rng.random(chance.shape) < 1 - np.exp(-chance / chance.sum(axis=1, keepdims=True) * 20)
    held = met & (rng.random(met.shape) < 0.25)
    kept = met & ~held
    kept[0], kept[:, 0] = True, True  # no empty row or column
    users, items = kept.nonzero()
    seconds = rng.permutation(len(users))
    table = pa.table(
        {
            "user_id": [f"u{n:04}" for n in users],
            "item_id": items,
            "timestamp": pa.array([START + timedelta(seconds=int(s)) for s in seconds], pa.timestamp("us", "UTC")),
        }
    )
    path = folder / "log.parquet"
    pq.write_table(table, path)
    repo = folder / "repo"
    repo.mkdir()
    (repo / "feature_store.yaml").touch()
    return Log(repo, path, csr_matrix((held & ~kept).astype(np.float32)))


@pytest.fixture(scope="module")
def local(log: Log) -> Training:
    return train_model(log.repo, "m", log.path, trainer="als", parameters=PARAMETERS)


@pytest.fixture(scope="module")
def trained(log: Log, local: Training, session: Any) -> Training:
    """Trained on Spark, aligned to the local version."""
    return train_on_spark(log.repo, "m", log.path, session=session, parameters=PARAMETERS)


def vectors(artifact: Artifact, entity: Any) -> npt.NDArray[np.float32]:
    return embedding_matrix(artifact.table(entity))


def recall(log: Log, artifact: Artifact) -> float:
    """Recall@20 of the pairs that were held back from the log."""
    users, items = (artifact.table(entity) for entity in ENTITIES)
    numbers = {id: number for number, id in enumerate(items["item_id"].to_pylist())}
    seen = users["seen_items"].to_pylist()
    rows = np.repeat(np.arange(len(seen)), [len(each) for each in seen])
    columns = [numbers[item] for each in seen for item in each]
    train = csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=log.held.shape)
    factors = Factors(embedding_matrix(users), embedding_matrix(items), items["bias"].to_numpy())
    return evaluate(factors, train, log.held)["recall@20"]


def test_ranks_as_well(log: Log, local: Training, trained: Training) -> None:
    """Recall@20 is within .01 of the local trainer's, on pairs that neither saw and in the manifest."""
    assert recall(log, trained.artifact) == pytest.approx(recall(log, local.artifact), abs=0.01)
    assert local.evaluation is not None
    assert trained.evaluation is not None
    assert (trained.evaluation.method, trained.evaluation.n_users) == (
        local.evaluation.method,
        local.evaluation.n_users,
    )
    for name, value in local.evaluation.metrics.items():
        # Popularity has ties, which both break by number.
        assert trained.evaluation.metrics[name] == pytest.approx(value, abs=0 if "popular" in name else 0.02)


def test_same_artifact(local: Training, trained: Training) -> None:
    """The tables have the same columns and, but for the vectors, the same values; the manifest the same keys."""
    for entity in ENTITIES:
        here, there = local.artifact.table(entity), trained.artifact.table(entity)
        assert here.schema == there.schema
        for name in ("event_timestamp", f"{entity}_id", "n_interactions"):
            assert here[name].equals(there[name])
    for name in ("seen_items", "seen_times"):
        assert local.artifact.table("user")[name].to_pylist() == trained.artifact.table("user")[name].to_pylist()
    one, other = local.artifact.manifest.model_dump(), trained.artifact.manifest.model_dump()
    assert one.keys() == other.keys()
    # The second version is read with the types of the first.
    for manifest in (one, other):
        manifest["interactions"]["reading"] |= {"user_ids": "text", "item_ids": "int"}
        manifest["interactions"].pop("request")  # for --if-changed, which Spark does not have
    same = ("trainer", "as_of", "n_users", "n_items", "n_interactions", "dim", "interactions", "evaluated_on")
    assert {name: one[name] for name in same} == {name: other[name] for name in same}
    assert trained.log == local.log


@pytest.mark.parametrize("timed", [True, False])
def test_what_users_have_seen(log: Log, session: Any, tmp_path: Path, timed: bool) -> None:
    """Weights, times and the newest of it, as a local training keeps them."""
    (tmp_path / "feature_store.yaml").touch()
    rng = np.random.default_rng(1)
    table = pq.read_table(log.path).slice(0, 3000)
    table = table.append_column("weight", pa.array(rng.choice([0.5, 1, 4], len(table)), pa.float32()))
    pq.write_table(table if timed else table.drop_columns("timestamp"), path := tmp_path / "log.parquet")
    same: Any = {"columns": Columns(weight="weight"), "parameters": {"factors": 4}, "evaluation": False}
    history = 3 if timed else None
    here = train_model(tmp_path, "m", path, trainer="als", history=history, **same).artifact
    there = train_on_spark(tmp_path, "m", path, session=session, history=history, **same).artifact
    names = ["user_id", "seen_items", "seen_weights", *(["seen_times"] if timed else [])]
    assert here.table("user", names).to_pylist() == there.table("user", names).to_pylist()
    assert here.manifest.history == there.manifest.history == history
    if not timed:
        with pytest.raises(
            InputError, match="--history 3 keeps the newest items of each user, but the log has no column"
        ):
            train_on_spark(tmp_path, "m", path, session=session, history=3, **same)


def test_users_are_what_fold_in_gives(log: Log, trained: Training) -> None:
    """A user's vector is the solution for its history but for the ridge, which `als` rounds to steps of 1.6."""
    folded = fold_in(trained.artifact, "user", log.path)
    kept = vectors(trained.artifact, "user")
    lengths = np.linalg.norm(kept, axis=1), np.linalg.norm(folded.vectors, axis=1)
    cosine = (kept * folded.vectors).sum(axis=1) / (lengths[0] * lengths[1])

    assert cosine.min() > 0.98
    assert np.abs(lengths[0] / lengths[1] - 1).max() < 0.3


def test_keeps_the_space(local: Training, trained: Training) -> None:
    """The version is in the space of the local one before it: vectors of the same users and items agree."""
    manifest = trained.artifact.manifest
    assert (manifest.aligned_to, manifest.space_id) == (
        local.artifact.manifest.version,
        local.artifact.manifest.space_id,
    )
    assert (manifest.alignment_shared_users, manifest.alignment_shared_items) == log_size(local)
    weights, cosines = [], []
    for entity in ENTITIES:
        one, other = vectors(local.artifact, entity), vectors(trained.artifact, entity)
        cosines.append((one * other).sum(axis=1) / (np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)))
        weights.append(local.artifact.table(entity)["n_interactions"].to_numpy())
    # The sums of the workers are those of the tables.
    assert manifest.alignment_cosine == pytest.approx(
        np.average(np.concatenate(cosines), weights=np.concatenate(weights)), abs=1e-5
    )
    assert manifest.alignment_cosine is not None
    assert manifest.alignment_cosine_before is not None
    assert manifest.alignment_cosine > 0.85
    assert manifest.alignment_cosine_before < 0.5


def log_size(training: Training) -> tuple[int, int]:
    return training.artifact.manifest.n_users, training.artifact.manifest.n_items


@pytest.mark.parametrize(
    ("kind", "preparation"),
    [
        ("zoned", Preparation(since=START + timedelta(seconds=3), until=START + timedelta(seconds=9))),
        ("naive", Preparation(event_weights={"view": 1, "buy": 2.5, "spam": 0}, half_life=timedelta(seconds=4))),
        ("seconds", Preparation(drop_duplicates=True, max_user_interactions=3)),
        ("nanoseconds", Preparation()),
    ],
)
def test_prepares_as_locally(session: Any, tmp_path: Path, kind: str, preparation: Preparation) -> None:
    """The same rows count, with the same weights and times, and the same are counted as left out."""
    from embedding_trainers.interactions import read_log

    rng = np.random.default_rng(1)
    n = 60
    seconds = rng.integers(0, 12, n)
    times = [START + timedelta(seconds=int(s)) for s in seconds]
    columns = {
        "zoned": pa.array(times, pa.timestamp("us", "UTC")),
        "naive": pa.array([each.replace(tzinfo=None) for each in times], pa.timestamp("us")),
        "seconds": pa.array([int(each.timestamp()) for each in times]),
        "nanoseconds": pa.array([int(each.timestamp()) * 10**9 + 1500 for each in times]),
    }
    table = pa.table(
        {
            "user_id": rng.integers(0, 12, n),
            "item_id": [f"é{k}" for k in rng.integers(0, 4, n)],
            "timestamp": columns[kind],
            "weight": rng.integers(0, 3, n).astype(np.float32),
            "event": rng.choice(["view", "buy", "spam"], n),
        }
    )
    names = Columns(weight="weight", event="event" if preparation.event_weights else None)
    here, report = read_log(table, names, preparation)
    pq.write_table(table, tmp_path / "log.parquet")
    frame = session.read.parquet(str(tmp_path / "log.parquet"))
    rows, counted = prepared_rows(frame, "log", names, preparation, Reading())

    assert here.weights is not None
    assert here.timestamps is not None
    expected = zip(
        here.users.take(pa.array(here.user_numbers)).to_pylist(),
        here.items.take(pa.array(here.item_numbers)).to_pylist(),
        here.timestamps.tolist(),
        here.weights.tolist(),
        strict=True,
    )
    found = [(row["user"], row["item"], row["time"], row["weight"]) for row in rows.collect()]
    wanted = sorted(expected)
    assert [row[:3] for row in sorted(found)] == [row[:3] for row in wanted]
    np.testing.assert_allclose([row[3] for row in sorted(found)], [row[3] for row in wanted], rtol=1e-6)
    assert counted == report


def test_bad_rows(session: Any) -> None:
    """Rows that cannot be used are an error with kinds and counts in the words of the local reader, or dropped."""
    future = datetime.now(UTC) + timedelta(days=30)
    table = pa.table(
        {
            "user_id": ["a", None, "", "b", "c", "d", "e"],
            "item_id": ["x"] * 7,
            "timestamp": pa.array([START, START, START, None, future, START, START], pa.timestamp("us", "UTC")),
            "weight": [1.0, 1, 1, 1, 1, -1, float("nan")],
        }
    )
    frame, columns = session.createDataFrame(table), Columns(weight="weight")
    with pytest.raises(InputError) as refused:
        prepared_rows(frame, "log", columns, Preparation(), Reading())
    said = str(refused.value)
    assert said.startswith("log: 6 of 7 rows cannot be used: 1 without user_id; 1 whose user_id is empty; ")
    for kind in (
        "1 without timestamp",
        "1 whose timestamp is in the future (--allow-future keeps them) (e.g. ",
        "1 whose weight is negative (e.g. '-1.0')",
        "1 whose weight is not a finite number (e.g. 'NaN')",
    ):
        assert kind in said
    rows, report = prepared_rows(frame, "log", columns, Preparation(), Reading(on_bad_rows="drop"))
    assert [row["user"] for row in rows.collect()] == ["a"]
    assert (report.rows, report.n_bad) == (7, 6)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"trainer": "bpr"}, r"^trainer 'bpr': on Spark there is only als"),
        ({"trainer": "ayls"}, r"^trainer 'ayls': on Spark there is only als"),
        ({"master": "mars"}, r"^--master 'mars': expected local\[N\], spark://HOST:PORT, yarn"),
        ({"master": "local[2]"}, r"^a Spark session already runs on local\[2\], which would ignore --master"),
        ({"preparation": Preparation(min_user_interactions=2)}, r"^--min-user-interactions does not work on Spark"),
        ({"reading": Reading(time_format="%Y")}, r"^--time-format does not work on Spark"),
        ({"interactions": "nowhere.parquet"}, r"^Spark: \[PATH_NOT_FOUND\] Path does not exist: .*nowhere.parquet"),
        ({"columns": Columns(user="who")}, r"has no column 'who'"),
        (
            {"columns": Columns(user="timestamp", timestamp="user_id")},
            r"^column 'timestamp': ids must be text",
        ),
        ({"columns": Columns(user="item_id")}, r"^the column 'item_id' is named for two purposes"),
        ({"preparation": Preparation(since=START + timedelta(days=9))}, r"has no interactions since 2026-01-10"),
    ],
)
def test_refused(log: Log, session: Any, arguments: dict[str, Any], said: str) -> None:
    """What Spark cannot do, and input that cannot be used, is said in one line; nothing is written."""
    with pytest.raises(InputError, match=said) as refused:
        train_on_spark(log.repo, "refused", **{"interactions": log.path, "trainer": "als", **arguments})
    assert "\n" not in str(refused.value)
    assert not (log.repo / "data" / "refused").exists()


def test_no_master(log: Log) -> None:
    """A master that does not answer is said at once."""
    with pytest.raises(EmbeddingsError, match=r"^no Spark master answers at spark://127.0.0.1:1 \(.*\); start it"):
        train_on_spark(log.repo, "m", log.path, master="spark://127.0.0.1:1")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--engine", "spark", "--tune", "3"), "--tune has no effect with --engine spark"),
        (("--engine", "spark", "--threads", "3"), "--threads has no effect with --engine spark"),
        (("--master", "local[2]"), "--master has no effect with --engine local"),
        (("--engine", "spark", "--spark-conf", "a"), "--spark-conf 'a': expected KEY=VALUE"),
        (("--engine", "spark", "--trainer", "svd"), "trainer 'svd': on Spark there is only als"),
    ],
)
def test_command_refuses(log: Log, command: Command, options: tuple[str, ...], said: str) -> None:
    """One line on standard error and exit code 2."""
    answer = command("train", "--repo", log.repo, "--model", "x", "--interactions", log.path, *options)
    assert answer.code == 2
    assert said in answer.err
    assert answer.err.count("\n") == 1


class Cluster:
    """A standalone master with two workers on loopback, each a process of its own."""

    def __init__(self, folder: Path) -> None:
        import pyspark

        home = Path(pyspark.__path__[0])
        self._environment = {
            **os.environ,
            "SPARK_HOME": str(home),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_NO_DAEMONIZE": "1",
        }
        self._program, self._folder = home / "bin" / "spark-class", folder
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        self.url = f"spark://127.0.0.1:{port}"
        self.processes = [self._start("master.Master", "--port", port)]
        wait(lambda: answers(int(port)), "the master to answer")
        self.processes += [
            self._start("worker.Worker", "--cores", "1", "--memory", "1g", "-d", str(folder / f"work{n}"), self.url)
            for n in (0, 1)
        ]
        wait(lambda: (folder / "master.Master.log").read_text().count("Registering worker") == 2, "both workers")

    def _start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self._folder / f"{name}.log").open("a") as output:
            return subprocess.Popen(
                [
                    self._program,
                    f"org.apache.spark.deploy.{name}",
                    "--host",
                    "127.0.0.1",
                    "--webui-port",
                    "0",
                    *arguments,
                ],
                env=self._environment,
                stdout=output,
                stderr=output,
            )

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """With the executors that it started."""
        for each in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
            each.kill()
        process.wait(timeout=60)

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                self.kill(process)


def answers(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait(until: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 600
    while not until():
        if time.monotonic() > deadline:
            pytest.fail(f"waited too long for {what}")
        time.sleep(0.05)


@pytest.mark.slow
def test_a_worker_dies(log: Log, local: Training, tmp_path: Path) -> None:
    """On a cluster of two workers, of which one is killed while ALS runs, training ends with as good vectors."""
    cluster = Cluster(tmp_path)
    try:
        settings = CONF | {
            "spark.eventLog.enabled": "true",
            "spark.eventLog.dir": str(tmp_path),
            "spark.eventLog.compress": "false",
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.pyspark.python": sys.executable,
            "spark.executor.memory": "900m",
        }
        options = [part for key, value in settings.items() for part in ("--spark-conf", f"{key}={value}")]
        options += [part for key, value in PARAMETERS.items() for part in ("--param", f"{key}={value}")]
        place = ["--repo", str(log.repo), "--model", "m", "--interactions", str(log.path), "--master", cluster.url]
        command = [sys.executable, "-c", "from feast_embeddings.cli import run; run()", "train", "--engine", "spark"]
        with (tmp_path / "err").open("w") as err, (tmp_path / "out").open("w") as out:
            training = subprocess.Popen(
                [*command, *place, "--trainer", "als", "--no-evaluate", *options], stdout=out, stderr=err
            )

        def events() -> str:
            return "".join(path.read_text() for path in tmp_path.glob("eventlog*/events*"))

        wait(lambda: "ALS.scala" in events() or training.poll() is not None, "ALS to begin")
        assert training.poll() is None, (tmp_path / "err").read_text()
        cluster.kill(cluster.processes[1])
        assert training.wait(timeout=600) == 0, (tmp_path / "err").read_text()
        assert "SparkListenerExecutorRemoved" in events()
    finally:
        cluster.close()
    from feast_embeddings.artifact import load_artifact

    artifact = load_artifact(log.repo / "data", "m")
    assert f"trained m version {artifact.manifest.version}" in (tmp_path / "out").read_text()
    assert (artifact.manifest.n_users, artifact.manifest.n_items) == log_size(local)
    assert recall(log, artifact) == pytest.approx(recall(log, local.artifact), abs=0.01)

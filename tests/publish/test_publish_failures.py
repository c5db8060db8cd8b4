"""A publish that cannot succeed: an error that says why, the live version answers as before, nothing is left behind."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from qdrant_client import QdrantClient
from tests.conftest import Command
from tests.support.publishing import publish_any
from tests.support.shop import Shop, apply, qdrant, write_version

from feast_embeddings.artifact import Artifact, load_artifact
from feast_embeddings.engines.server.engine import ServerEngine
from feast_embeddings.errors import ArtifactError, EmbeddingsError, EngineError
from feast_embeddings.publish.run import publish_artifact
from feast_embeddings.query.store import EmbeddingStore


def everything(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# Damaged artifacts.


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for position in np.random.default_rng(len(content)).integers(0, len(content), 3):
        content[position] ^= 1 << int(position) % 8
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def swap(path: Path) -> None:
    users, items = path.parent / "users.parquet", path.parent / "items.parquet"
    kept = users.read_bytes()
    users.write_bytes(items.read_bytes())
    items.write_bytes(kept)


def edit(**changes: object) -> Callable[[Path], None]:
    def rewrite(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | changes, indent=2) + "\n")

    return rewrite


DAMAGES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "bits of the users": ("users.parquet", flip),
    "bits of the items": ("items.parquet", flip),
    "bits of the manifest": ("manifest.json", flip),
    "users cut off": ("users.parquet", truncate),
    "manifest cut off": ("manifest.json", truncate),
    "users empty": ("users.parquet", lambda path: os.truncate(path, 0)),
    "items gone": ("items.parquet", Path.unlink),
    "manifest gone": ("manifest.json", Path.unlink),
    "users and items swapped": ("users.parquet", swap),
    "another dimension": ("manifest.json", edit(dim=4)),
    "another space": ("manifest.json", edit(space_id="shop-20260101T000000000Z")),
    "better metrics": ("manifest.json", edit(metrics={"recall@20": 0.99})),
    "no checksum": ("manifest.json", edit(checksum="")),
    "other checksums": ("manifest.json", edit(files={})),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_artifact_is_refused_before_anything_is_written(shop: Shop, damage: str, command: Command) -> None:
    """On the command line one line and exit code 1; files of the engine and of Feast's registry are as before."""
    name, harm = DAMAGES[damage]
    harm(shop.artifact.path / name)
    before = everything(shop.repo.path)
    answer = command("publish", "--repo", shop.repo.path)
    assert answer.code == 1, answer.err
    assert answer.err.count("\n") == 1
    assert str(shop.artifact.path) in answer.err
    assert everything(shop.repo.path) == before


def rewritten(artifact: Artifact, column: str, values: pa.Array) -> Artifact:
    """The version with other values in a column of its items, or with one more, its checksums made good."""
    path = artifact.path / "items.parquet"
    table = pq.read_table(path, partitioning=None)
    path.unlink()
    others = [name for name in table.column_names if name != column]
    pq.write_table(table.select(others).append_column(column, values), path)
    info = artifact.manifest.files[path.name].model_copy(
        update={"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    )
    files = {**artifact.manifest.files, path.name: info}
    manifest = artifact.manifest.model_copy(update={"files": files, "checksum": ""}).signed()
    (artifact.path / "manifest.json").write_bytes(manifest.to_bytes())
    return Artifact(artifact.path, manifest)


def vectors(matrix: npt.NDArray[np.floating]) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.astype(np.float32).reshape(-1)), matrix.shape[1])


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        (
            "embedding",
            vectors(np.where(np.eye(40, 8) > 0, np.nan, 1)),
            "NaN, infinity or numbers out of range in 8 rows",
        ),
        ("embedding", vectors(np.full((40, 8), 1e30)), "NaN, infinity or numbers out of range in 40 rows"),
        ("embedding", vectors(np.zeros((40, 8))), "median norm 0 and the largest norm 0"),
        ("embedding", vectors(np.where(np.arange(40)[:, None] == 3, 1e5, np.ones((40, 8)))), "at most 1000 times"),
        ("embedding", vectors(np.ones((40, 4))), "expected 40 items of dimension 8"),
        ("bias", pa.array([np.inf] + [0.0] * 39, pa.float32()), "NaN, infinity or numbers out of range in 1 rows"),
    ],
)
def test_vectors_that_cannot_be_served_are_refused(shop: Shop, column: str, values: pa.Array, message: str) -> None:
    """Whatever the checksums say."""
    broken = rewritten(shop.artifact, column, values)
    with pytest.raises(ArtifactError, match=message):
        publish_artifact(shop.feature_store, broken)
    assert not (shop.repo.path / "qdrant_storage").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (vectors(np.where(np.arange(40)[:, None] < 3, 0.6, 8**-0.5) * np.ones((40, 8))), "the length 1 in 3 rows"),
        (vectors(np.full((40, 8), np.nan)), "the length 1 in 40 rows"),
        (vectors(np.full((40, 4), 0.5)), "have 4 numbers, expected 8 as the embeddings"),
    ],
)
def test_content_vectors_that_cannot_be_served_are_refused(shop: Shop, values: pa.Array, message: str) -> None:
    """Of another program that writes versions."""
    broken = rewritten(shop.artifact, "content_embedding", values)
    with pytest.raises(ArtifactError, match=message):
        publish_artifact(apply(shop.repo), broken)


# A file system that takes no more.


@pytest.fixture
def remount(shop: Shop) -> Iterator[Callable[[str], None]]:
    """A shop published into a small file system of its own, and what mounts that again with other options."""
    folder = shop.repo.path / "qdrant_storage"
    folder.mkdir()

    def mount(*options: str) -> None:
        subprocess.run(["mount", *options, str(folder)], check=True, capture_output=True)

    try:
        mount("-t", "tmpfs", "-o", "size=1g", "tmpfs")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this account may not mount a file system ({error})")
    engine = qdrant(shop.feature_store).engine(shop.feature_store.config)
    try:
        shop.publish()
        yield lambda options: mount("-o", f"remount,{options}")
    finally:
        engine.close()
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_disk_full(shop: Shop, remount: Callable[[str], None], command: Command) -> None:
    """Too little room: an error of ours that says how much is needed; nothing is written, and queries go on."""
    store, folder = EmbeddingStore(shop.feature_store, "shop"), shop.repo.path / "qdrant_storage"
    newer = write_version(shop.repo.data, seed=1)
    free = os.statvfs(folder)
    (folder / "ballast").write_bytes(bytes(free.f_bavail * free.f_frsize - 32 * 2**20))
    before = sorted(path.name for path in (folder / "shards").iterdir())
    with pytest.raises(EmbeddingsError) as error:
        publish_any(shop.feature_store, newer)
    assert "no space left for this version: it may take " in str(error.value)
    dry = command("publish", "--repo", shop.repo.path, "--allow-new-space", "--dry-run")
    assert (dry.code, dry.err) == (1, f"error: {error.value}\n")
    assert store.rank("u-1").version == shop.artifact.manifest.version
    assert sorted(path.name for path in (folder / "shards").iterdir()) == before
    (folder / "ballast").unlink()
    remount("size=1100m")
    assert publish_any(shop.feature_store, newer).changed
    assert store.rank("u-1").version == newer.manifest.version


def test_read_only_folder(shop: Shop, remount: Callable[[str], None], command: Command) -> None:
    """A folder that cannot be written: one line that names it, exit code 1, and queries go on."""
    store, folder = EmbeddingStore(shop.feature_store, "shop"), shop.repo.path / "qdrant_storage"
    assert store.rank("u-1").version == shop.artifact.manifest.version
    write_version(shop.repo.data, seed=1)
    qdrant(shop.feature_store).engine(shop.feature_store.config).close()
    remount("ro")
    before = everything(folder)
    for dry in ((), ("--dry-run",)):
        answer = command("publish", "--repo", shop.repo.path, "--allow-new-space", *dry)
        assert answer.code == 1
        assert answer.err.count("\n") == 1
        assert "Read-only file system" in answer.err
    assert everything(folder) == before


# A server that fails.


class Server(ThreadingHTTPServer):
    """Answers every request with one status, or never."""

    daemon_threads = True

    def __init__(self, status: int | None) -> None:
        self.status = status
        self.ended = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        if self.server.status is None:
            self.server.ended.wait(30)
            self.close_connection = True
            return
        self.send_response(self.server.status)
        self.end_headers()

    do_PUT = do_POST = do_DELETE = do_PATCH = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "HTTP 401"), (403, "HTTP 403"), (500, "HTTP 500"), (None, "timed out"), (0, "Connection refused")],
    ids=["wrong key", "forbidden", "broken", "slow", "gone"],
)
def test_a_server_that_fails(shop: Shop, command: Command, status: int | None, message: str) -> None:
    """One line that says what failed and how, without the key; exit code 1; nothing is written here either."""
    config = yaml.safe_load((shop.repo.path / "feature_store.yaml").read_text())
    config["online_store"] = {"type": config["online_store"]["type"], "prefer_grpc": False, "timeout": 1, "retries": 0}
    config["online_store"] |= {"api_key": "secret-key"}
    with Server(status) as server:
        config["online_store"]["url"] = f"http://127.0.0.1:{server.server_port}"
        if status == 0:
            with closing(socket.socket()) as free:
                free.bind(("127.0.0.1", 0))
                config["online_store"]["url"] = f"http://127.0.0.1:{free.getsockname()[1]}"
        (shop.repo.path / "feature_store.yaml").write_text(yaml.safe_dump(config))
        before = everything(shop.repo.path)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        answer = command("publish", "--repo", shop.repo.path)
        server.ended.set()
        server.shutdown()
        thread.join()
    assert (answer.code, answer.err.count("\n")) == (1, 1), answer.err
    assert message in answer.err
    assert "secret-key" not in answer.err + answer.out
    assert everything(shop.repo.path) == before


class Dying:
    """A client whose server is gone after so many upserts; it counts the points that are sent."""

    def __init__(self, client: QdrantClient) -> None:
        self._client = client
        self.left = 10**9
        self.sent = 0

    def upsert(self, collection: str, points: list[object]) -> object:
        if self.left <= 0:
            raise ConnectionError("gone")
        self.left -= 1
        self.sent += len(points)
        return self._client.upsert(collection, points)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> object:
        return getattr(self._client, name)


@pytest.mark.parametrize("where", ["server-stand-in", "server"])
def test_a_load_that_stopped_is_continued(
    shop: Shop, where: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server goes at 60 % of the load: the live version stays; the next publish sends only what is missing."""
    if where == "server":
        server = request.getfixturevalue("qdrant_server")
        real = QdrantClient(url=server.url, prefer_grpc=True, grpc_port=server.grpc_port, check_compatibility=False)
    else:
        real = QdrantClient(":memory:")
    client = Dying(real)
    monkeypatch.setattr("feast_embeddings.engines.server.requests._BATCH", 10)
    engine = ServerEngine(client, streams=1)  # type: ignore[arg-type]
    qdrant(shop.feature_store)._engine = engine
    store = shop.publish()
    n_users, n_items = 400, 600
    newer = write_version(shop.repo.data, seed=1, n_users=n_users, n_items=n_items)
    client.left, client.sent = 60, 0
    with pytest.raises(EngineError, match="gone"):
        publish_any(shop.feature_store, newer)
    assert client.sent == 600
    assert store.rank("u-1").version == shop.artifact.manifest.version
    client.left, client.sent = 10**9, 0
    reported: list[int] = []
    assert publish_any(shop.feature_store, newer, progress=reported.append).changed
    assert client.sent == n_users + n_items - 600
    assert store.rank("u-1").version == newer.manifest.version
    everyone = [f"u-{i}" for i in range(n_users)]
    expected = load_artifact(shop.repo.data, "shop").table("user")["embedding"].to_pylist()
    assert store.user_embeddings(everyone).vectors.tolist() == expected
    shop.feature_store.teardown()  # type: ignore[no-untyped-call]
    engine.close()


class Gone(Dying):
    """A client whose server is gone with the first upsert: what is asked after that fails in another way."""

    has_failed = False

    def upsert(self, collection: str, points: list[object]) -> object:
        self.has_failed = self.left <= 0
        return super().upsert(collection, points)

    def __getattr__(self, name: str) -> object:
        return self._fail if self.has_failed and name != "close" else super().__getattr__(name)

    def _fail(self, *_: object, **__: object) -> object:
        raise ConnectionError("the second failure")


def test_the_first_failure_is_told(shop: Shop) -> None:
    """Not that of the look whether another publish was the reason."""
    client = Gone(QdrantClient(":memory:"))
    engine = ServerEngine(client, streams=1)  # type: ignore[arg-type]
    qdrant(shop.feature_store)._engine = engine
    client.left = 1
    with pytest.raises(EngineError, match=r"write to .*: gone"):
        publish_any(shop.feature_store, shop.artifact)
    engine.close()


def test_what_stopped_of_another_table_is_not_continued(shop: Shop) -> None:
    """A half-loaded collection of the same name with another fingerprint is built again from the start."""
    client = Dying(QdrantClient(":memory:"))
    engine = ServerEngine(client, streams=1)  # type: ignore[arg-type]
    qdrant(shop.feature_store)._engine = engine
    client.left = 1
    with pytest.raises(EngineError):
        publish_any(shop.feature_store, shop.artifact)
    title = pa.array([f"Other {i}" for i in range(40)])
    other = rewritten(shop.artifact, "title", title)
    (users, items) = (f"embeddings_shop_{side}_embeddings__{other.manifest.version}" for side in ("user", "item"))
    assert (engine.count(users), engine.count(items)) == (20, 0)
    client.left, client.sent = 2, 0
    publish_any(shop.feature_store, other)
    assert client.sent == 40
    assert EmbeddingStore(shop.feature_store, "shop").similar_items("sku-1", 1).attributes[0]["title"][:5] == "Other"
    engine.close()

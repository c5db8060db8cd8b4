"""TLS, REST and gRPC, with a certificate of an authority that no system knows; over real sockets."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import trustme
from pydantic import SecretStr
from tests.conftest import QdrantServer, run_program
from tests.engines.test_server_client import Failing, grpc_node, server

from feast_embeddings.engines.server.engine import ServerEngine
from feast_embeddings.engines.testing import ids, make_batch, make_spec
from feast_embeddings.errors import EmbeddingsError, EngineError, InputError
from feast_embeddings.online.open_engine import open_engine
from feast_embeddings.online.store import QdrantEmbeddingOnlineStoreConfig

__all__ = ["server"]

KEY = "a-very-secret-key"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def repo(tmp_path: Path, authority: trustme.CA) -> Path:
    """The folder of a Feast repo, with the certificate of the authority in it, and that of another one."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    return tmp_path


def connect(repo: Path, url: str, **more: Any) -> ServerEngine:
    settings = QdrantEmbeddingOnlineStoreConfig(url=url, api_key=SecretStr(KEY), retries=0, timeout=5, **more)
    assert KEY not in repr(settings)
    engine = open_engine(settings, repo)
    assert isinstance(engine, ServerEngine)
    return engine


def on_loop(engine: ServerEngine) -> dict[str, str]:
    """The aliases, by the client of an event loop."""
    assert engine.on_loop is not None
    return asyncio.run(engine.on_loop.aliases())


@pytest.fixture
def https(server: Failing, authority: trustme.CA) -> str:
    """The address of a server that speaks REST."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    return f"https://localhost:{server.server_port}"


def test_rest(repo: Path, https: str, server: Failing) -> None:
    """The server is believed with the authority's certificate, and with no other one."""
    engine = connect(repo, https, prefer_grpc=False, ca_certificate="ca.pem")
    assert engine.aliases() == on_loop(engine) == {"a": "c"}
    engine.close()
    for more in ({}, {"ca_certificate": "other.pem"}):
        for ask in (ServerEngine.aliases, on_loop):
            engine = connect(repo, https, prefer_grpc=False, **more)
            with pytest.raises(EngineError, match="CERTIFICATE_VERIFY_FAILED") as caught:
                ask(engine)
            assert KEY not in str(caught.value)
    assert server.requests == ["GET /aliases"] * 2


def test_grpc(repo: Path, https: str, authority: trustme.CA) -> None:
    """The same for gRPC, and the key is sent."""
    certificate = authority.issue_cert("localhost")
    pair = (certificate.private_key_pem.bytes(), b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    calls: list[str] = []
    with grpc_node(calls, grpc.StatusCode.OK, 0, grpc.ssl_server_credentials([pair])) as port:
        engine = connect(repo, https, grpc_port=port, ca_certificate="ca.pem")
        assert engine.aliases() == on_loop(engine) == {"a": "c"}
        engine.close()
        for more in ({}, {"ca_certificate": "other.pem"}):
            for ask in (ServerEngine.aliases, on_loop):
                engine = connect(repo, https, grpc_port=port, **more)
                with pytest.raises(EngineError, match="UNAVAILABLE") as caught:
                    ask(engine)
                assert KEY not in str(caught.value)
    assert calls == [KEY] * 2


@pytest.mark.parametrize(
    ("name", "reason"),
    [("missing.pem", "No such file"), ("empty.pem", "NO_CERTIFICATE"), ("text.pem", "NO_CERTIFICATE")],
)
def test_a_file_that_holds_no_certificate(repo: Path, name: str, reason: str) -> None:
    """It is bad input, named, before anything is sent."""
    (repo / "empty.pem").write_text("")
    (repo / "text.pem").write_text("not a certificate")
    with pytest.raises(InputError, match=f"ca_certificate .*{name} cannot be used: .*{reason}"):
        connect(repo, "https://localhost:1", ca_certificate=name)


@pytest.mark.parametrize("url", ["http://localhost:6333", None])
def test_without_tls_it_would_have_no_effect(url: str | None) -> None:
    """So it is refused."""
    with pytest.raises(EmbeddingsError, match=r"ca_certificate needs .*url"):
        QdrantEmbeddingOnlineStoreConfig(url=url, ca_certificate="ca.pem")


@pytest.fixture
def real(repo: Path, authority: trustme.CA) -> Iterator[QdrantServer]:
    program = shutil.which("qdrant")
    if program is None:
        pytest.skip("no qdrant on the PATH, to be started with a certificate")
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(str(repo / "key.pem"))
    certificate.private_key_and_cert_chain_pem.write_to_path(str(repo / "cert.pem"))
    yield from run_program(
        program,
        repo,
        QDRANT__SERVICE__ENABLE_TLS="true",
        QDRANT__SERVICE__API_KEY=KEY,
        QDRANT__TLS__CERT=str(repo / "cert.pem"),
        QDRANT__TLS__KEY=str(repo / "key.pem"),
        QDRANT__TLS__CA_CERT=str(repo / "ca.pem"),
    )


def test_a_real_server(real: QdrantServer, repo: Path, rng: np.random.Generator) -> None:
    """It takes points and gives them back, over both."""
    for prefer_grpc in (True, False):
        more = {"grpc_port": real.grpc_port} if prefer_grpc else {}
        engine = connect(repo, real.url, prefer_grpc=prefer_grpc, ca_certificate="ca.pem", **more)
        batch = make_batch(rng.standard_normal((20, 8)).astype(np.float32))
        engine.create("c", make_spec("a"), [batch])
        points = engine.retrieve("c", ids(0, 20), vectors=["v"])
        vectors = np.stack([point.vectors["v"] for point in points if point is not None])
        assert vectors.tobytes() == batch.vectors["v"][0].tobytes()
        assert on_loop(engine) == engine.aliases()
        engine.close()
        with pytest.raises(EngineError):
            connect(repo, real.url, prefer_grpc=prefer_grpc, **more).aliases()

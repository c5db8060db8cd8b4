"""What is wrong in the vector store, or with what is live in it, is found, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime

import numpy as np
import pytest
from tests.conftest import QdrantServer
from tests.support.publishing import publish_any
from tests.support.shop import Shop, write_version

from feast_embeddings.artifact import Entity
from feast_embeddings.codec.columns import encode_table
from feast_embeddings.engines.engine import CollectionSpec, Engine
from feast_embeddings.files import writer_lock
from feast_embeddings.model.sides import model_view, qdrant_store
from feast_embeddings.repo import Repo

from .conftest import AFTER_STORE, Doctor, Fix, Found, fixing, rewrite

Change = Callable[[Engine, dict[Entity, str], dict[str, str]], None]


def engine_of(repo: Repo, change: Change) -> None:
    """Change what is in the vector store: by alias of each side, and with what is live."""
    feature_store = repo.feature_store()
    store, config = qdrant_store(feature_store), feature_store.config
    with closing(store.engine(config)) as engine:
        aliases: dict[Entity, str] = {
            "user": "embeddings_shop_user_embeddings",
            "item": "embeddings_shop_item_embeddings",
        }
        change(engine, aliases, engine.aliases())


def unfinished(version: str) -> Change:
    """What a publish leaves that was killed while it loaded a version."""

    def change(engine: Engine, aliases: dict[Entity, str], live: dict[str, str]) -> None:
        spec: CollectionSpec = engine.describe(live[aliases["item"]])
        half = spec.model_copy(update={"version": version, "verified": False, "fingerprint": ""})
        engine.create(f"{aliases['item']}__{version}", half, [])

    return change


def test_missing_vectors(doctor: Doctor, repo: Repo, fix: Fix) -> None:
    """The folder of the engine; a publish makes it again."""
    shutil.rmtree(repo.path / "qdrant_storage")
    _, bad, report = doctor()
    assert bad == [("live", "warning")]
    fix(fixing(report, "live"))
    assert doctor()[1] == []


@pytest.mark.parametrize("broken", ["pointer", "shard"])
def test_a_store_that_cannot_be_read(doctor: Doctor, repo: Repo, broken: str, fix: Fix) -> None:
    """Its pointer, or a shard; it is put aside and filled again."""
    folder = repo.path / "qdrant_storage"
    if broken == "pointer":
        (folder / "pointer.json").write_text('{"aliases": ')
    else:
        for shard in (folder / "shards").iterdir():
            shutil.rmtree(shard)
    _, bad, report = doctor()
    check = "store" if broken == "pointer" else "live"
    assert bad == [(check, "problem")]
    fix(fixing(report, check))
    assert doctor()[1] == []


def test_a_server_that_does_not_answer(doctor: Doctor, repo: Repo) -> None:
    """Is one finding, and what needs it is not looked at."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        store = {"type": "feast_embeddings.QdrantEmbeddingOnlineStore", "url": url, "api_key": "SECRET"}
        store["grpc_port"] = unused.getsockname()[1]  # the default one may be that of a server that does answer
        rewrite(repo, lambda config: config.update(online_store=store))
        _, bad, report = doctor()
    assert bad == [("store", "problem")]
    assert set(report["skipped"]) == {"cluster", *AFTER_STORE}
    assert "SECRET" not in json.dumps(report)


def test_a_server(
    doctor: Doctor,
    repo: Repo,
    qdrant_server: QdrantServer,
    fix: Fix,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Answers; its version counts; a publish that died in it is a leftover."""
    store = {"type": "feast_embeddings.QdrantEmbeddingOnlineStore", "url": qdrant_server.url}
    rewrite(repo, lambda config: config.update(online_store=store | {"grpc_port": qdrant_server.grpc_port}))
    try:
        assert doctor()[1] == [("live", "warning")]
        fix(fixing(doctor()[2], "live"))
        _, bad, report = doctor()
        assert bad == []
        assert any(row["message"].startswith("Qdrant 1.") for row in report["findings"])
        engine_of(repo, unfinished("20990101T000000000Z"))
        _, bad, report = doctor()
        assert bad == [("leftovers", "warning")]
        with monkeypatch.context() as patch:
            patch.setattr("feast_embeddings.engines.server.engine.ServerEngine.server_version", lambda _: "1.15.5")
            assert doctor()[1] == [("store", "problem"), ("leftovers", "warning")]
    finally:
        repo.feature_store().teardown()  # type: ignore[no-untyped-call]


def test_who_writes(doctor: Doctor, repo: Repo) -> None:
    """Is said; only a writer that is at it for long is worth a look."""
    file = repo.path / "qdrant_storage" / "writer.lock"
    with writer_lock(file, timeout=1):
        _, bad, report = doctor()
        assert bad == []
        assert any(f"pid {os.getpid()}" in row["message"] for row in report["findings"])
        holder = json.loads(file.read_text()) | {"since": "2026-01-01T00:00:00+00:00"}
        file.write_text(json.dumps(holder))
        _, bad, report = doctor()
        assert bad == [("writer", "warning")]
        fix = fixing(report, "writer").split()
        assert (fix[0], str(os.getpid()) in fix) == ("ps", True)
        if shutil.which("ps"):  # a slim image has none
            subprocess.run(fix, check=True, capture_output=True)
        file.write_text("")
        assert doctor()[1] == [("writer", "warning")]
    assert doctor()[1] == []


def only_items(engine: Engine, aliases: dict[Entity, str], live: dict[str, str]) -> None:
    engine.switch({aliases["user"]: None})


def nothing(engine: Engine, aliases: dict[Entity, str], live: dict[str, str]) -> None:
    engine.switch(dict.fromkeys(aliases.values()))


def older_users(engine: Engine, aliases: dict[Entity, str], live: dict[str, str]) -> None:
    engine.switch({aliases["user"]: min(engine.collections(aliases["user"]))})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (only_items, [("live", "problem")]),
        (nothing, [("live", "warning")]),
        (older_users, [("spaces", "problem")]),
    ],
)
def test_sides_that_are_not_live_together(
    doctor: Doctor, repo: Repo, change: Change, expected: Found, fix: Fix
) -> None:
    """One of them, neither, or of different spaces: a publish switches both."""
    engine_of(repo, change)
    _, bad, report = doctor()
    assert bad == expected
    fix(fixing(report, expected[0][0]))
    assert doctor()[1] == []


@pytest.mark.parametrize("how", ["fewer", "other", "newer"])
def test_vectors_that_are_not_those_of_the_files(doctor: Doctor, repo: Repo, healthy: Shop, how: str, fix: Fix) -> None:
    """Points lost, or one changed, and materializing brings them back; one that is newer is an update."""

    def change(engine: Engine, aliases: dict[Entity, str], live: dict[str, str]) -> None:
        view = model_view(healthy.feature_store, "shop", "item")
        codec = qdrant_store(healthy.feature_store).codec(healthy.feature_store.config, view)
        (batch,) = encode_table(codec, healthy.artifact.table("item"))
        collection = live[aliases["item"]]
        if how == "fewer":
            engine.create(collection, engine.describe(collection), [batch.take(np.arange(30))])
            return
        for matrix, _ in batch.vectors.values():
            matrix[7] += 1
        if how == "newer":
            batch.timestamps[7] += 1
            batch.payloads[7]["_event_timestamp"] += 1
        engine.upsert(collection, [batch])

    engine_of(repo, change)
    _, bad, report = doctor()
    messages = " ".join(row["message"] for row in report["findings"])
    if how == "newer":
        assert bad == []
        assert "59 sampled vectors equal the files bit for bit, 1 updated since" in messages
        return
    if how == "fewer":
        assert bad == [("live", "problem"), ("drift", "problem")]
        assert "the live version has only 30 of 40 items" in messages
        assert "10 items missing online" in messages
    else:
        assert bad == [("drift", "problem")]
        assert "1 items different online" in messages
    fix(fixing(report, "drift"))
    assert doctor()[1] == []


def test_publishes_that_did_not_finish(doctor: Doctor, repo: Repo, fix: Fix) -> None:
    """Of an older version it is cleared; of a newer one it is finished."""
    engine_of(repo, unfinished("20200101T000000000Z"))
    _, bad, report = doctor()
    assert bad == [("leftovers", "warning")]
    fix(fixing(report, "leftovers"))
    assert doctor()[1] == []
    newer = write_version(repo.data, seed=5, as_of=datetime.now(UTC)).manifest.version
    engine_of(repo, unfinished(newer))
    _, bad, report = doctor()
    assert bad == [("leftovers", "warning"), ("freshness", "warning")]
    assert newer in fixing(report, "leftovers")
    fix(fixing(report, "leftovers"))
    assert doctor()[1] == []


def test_what_is_served_is_of_the_future(doctor: Doctor, repo: Repo) -> None:
    """It is no fresh version: a row of its log had a wrong time."""
    future = write_version(repo.data, seed=5, as_of=datetime(9999, 1, 2, tzinfo=UTC))
    publish_any(repo.feature_store(), future)
    _, bad, report = doctor()
    assert bad == [("freshness", "problem")]
    messages = " ".join(row["message"] for row in report["findings"])
    assert "interactions up to 9999-01-02, which is in the future" in messages
    assert fixing(report, "freshness").endswith("--model shop --interactions LOG")


def test_what_is_served_is_old(doctor: Doctor) -> None:
    """By the limit that is given."""
    _, bad, report = doctor("--max-age", "0.000001")
    assert bad == [("freshness", "warning")]
    assert fixing(report, "freshness").endswith("--model shop --interactions LOG")

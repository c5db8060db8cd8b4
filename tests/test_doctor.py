"""The doctor: one thing of a real repo is broken at a time, is found and nothing else is, and goes with its mending."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from feast_embeddings.artifact import Entity, load_artifact
from feast_embeddings.doctor import findings, setup_checks
from feast_embeddings.engine import CollectionSpec, Engine
from feast_embeddings.model_view import model_view, qdrant_store
from feast_embeddings.repo import Repo, init_repo
from feast_embeddings.service.keys import new_key
from feast_embeddings.table_points import encode_table
from feast_embeddings.writer_lock import writer_lock

from .conftest import Command, QdrantServer
from .plugin.conftest import Shop, apply, write_version
from .plugin.publishing import publish_any

Found = list[tuple[str, str]]
AFTER_STORE = ("live", "leftovers", "spaces", "drift", "freshness")


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A repo with a version that is live, and an older one of another space that is kept."""
    repo = init_repo(tmp_path_factory.mktemp("doctor") / "repo")
    for seed in range(2):
        artifact = write_version(repo.data, seed=seed, as_of=datetime.now(UTC))
        feature_store = apply(repo)
        publish_any(feature_store, artifact)
    qdrant_store(feature_store).engine(feature_store.config).close()
    copy(repo.path, repo.path.with_name("kept"))
    return Shop(repo, artifact, feature_store)


def copy(source: Path, target: Path) -> None:
    """A copy with its times, and with holes where the source has them."""
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run(["cp", "-a", source, target], check=True)


@pytest.fixture
def repo(healthy: Shop) -> Repo:
    """That repo as it was at first, at the same place: Feast's registry holds absolute paths."""
    copy(healthy.repo.path.with_name("kept"), healthy.repo.path)
    return healthy.repo


Mend = Callable[[str], None]
Doctor = Callable[..., tuple[int, Found, dict[str, Any]]]


@pytest.fixture
def doctor(repo: Repo, command: Command) -> Doctor:
    """Ask the doctor: the exit code, what is not ok, and all that it says."""

    def ask(*arguments: object) -> tuple[int, Found, dict[str, Any]]:
        answer = command("doctor", "--repo", repo.path, "--json", *arguments)
        report = json.loads(answer.out)
        bad = [(found["check"], found["level"]) for found in report["findings"] if found["level"] != "ok"]
        assert all(bool(found["mend"]) == (found["level"] != "ok") for found in report["findings"])
        assert answer.code == ("problem" in {level for _, level in bad})
        return answer.code, bad, report

    return ask


def mending(report: dict[str, Any], check: str) -> str:
    """What a check that found something proposes."""
    (mend,) = {found["mend"] for found in report["findings"] if found["check"] == check and found["mend"]}
    return str(mend)


@pytest.fixture
def mend(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Mend:
    """Run a proposed command as it stands; our own commands and Feast's run in this process, which is quicker."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")

    def run(line: str) -> None:
        if "$" in line:
            subprocess.run(line, shell=True, check=True, capture_output=True)  # noqa: S602 (made by our own code)
            return
        for part in line.split(" && "):
            program, *arguments = part.split()
            if program == "feast-embeddings":
                gates = ["--allow-new-space"] if arguments[0] == "publish" else []
                answer = command(*arguments, *gates)
                assert answer.code == 0, answer.err
            elif program == "feast":
                feast(*arguments)
            else:
                subprocess.run([program, *arguments], check=True)

    def feast(*arguments: str) -> None:
        from feast.cli.cli import cli

        with monkeypatch.context() as patch:
            # It sets the level of every logger that there is.
            for logger in logging.root.manager.loggerDict.values():
                if isinstance(logger, logging.Logger):
                    patch.setattr(logger, "level", logger.level)
            patch.setattr(sys, "path", list(sys.path))
            patch.setattr(sys, "modules", dict(sys.modules))
            cli.main(list(arguments), standalone_mode=False)
        logging.root.setLevel(logging.root.level)  # forgets the levels that loggers have worked out meanwhile

    return run


def engine_of(repo: Repo, change: Callable[[Engine, dict[Entity, str], dict[str, str]], None]) -> None:
    """Change what is in the vector store: by alias of each side, and with what is live."""
    feature_store = repo.feature_store()
    store, config = qdrant_store(feature_store), feature_store.config
    with closing(store.engine(config)) as engine:
        aliases: dict[Entity, str] = {
            "user": "embeddings_shop_user_embeddings",
            "item": "embeddings_shop_item_embeddings",
        }
        change(engine, aliases, engine.aliases())


def rewrite(repo: Repo, change: Callable[[dict[str, Any]], None]) -> None:
    """Change feature_store.yaml."""
    file = repo.path / "feature_store.yaml"
    config = yaml.safe_load(file.read_text())
    change(config)
    file.write_text(yaml.safe_dump(config))


def test_a_healthy_repo(doctor: Doctor, command: Command, repo: Repo) -> None:
    """Everything is looked at and found well; for people it is a line each."""
    code, bad, report = doctor()
    assert (code, bad, report["worst"], report["skipped"]) == (0, [], "ok", {})
    checks = {found["check"]: found["message"] for found in report["findings"]}
    assert list(checks) == [
        *("installation", "configuration", "definitions", "registry", "artifacts", "history", "store", "writer"),
        *AFTER_STORE,
    ]
    assert "Python 3." in checks["installation"]
    assert "feast 0.67" in checks["installation"]
    assert checks["drift"] == "60 sampled vectors are bit for bit those of the files"
    assert checks["live"].endswith(": 20 users, 40 items")
    printed = command("doctor", "--repo", repo.path).out.splitlines()
    assert len(printed) == len(report["findings"])
    assert all(line.startswith("ok       ") for line in printed)


def test_nothing_is_changed(doctor: Doctor, repo: Repo) -> None:
    """Not a byte and not a time, but for what Qdrant's engine itself notes in shards that are read."""

    def state() -> dict[str, tuple[int, str]]:
        files = [path for path in repo.path.rglob("*") if path.is_file() and "shards" not in path.parts]
        return {str(path): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files}

    before = state()
    assert len(before) > 10
    doctor()
    assert state() == before
    (repo.data / "registry.db").unlink()
    (repo.path / "qdrant_storage" / "pointer.json").write_text("{")
    before = state()
    doctor()
    assert state() == before


def test_a_folder_that_is_no_repo(command: Command, tmp_path: Path) -> None:
    """Is bad input."""
    answer = command("doctor", "--repo", tmp_path / "nowhere")
    assert answer.code == 2
    assert "is not a Feast repo" in answer.err


def test_packages_of_other_versions(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against what this package says that it needs, of its extras too; one that is not installed at all."""
    found = setup_checks._installed
    others = {"feast": "0.66.0", "implicit": "0.6.0", "tqdm": None}
    monkeypatch.setattr(setup_checks, "_installed", lambda name: others.get(name, found(name)))
    code, bad, report = doctor()
    assert (code, bad) == (1, [("installation", "problem")] * 3)
    mends = {row["message"]: row["mend"] for row in report["findings"] if row["mend"]}
    assert mends == {
        "feast<0.68,>=0.67 is needed, found: 0.66.0": f"{sys.executable} -m pip install 'feast[duckdb]<0.68,>=0.67'",
        "tqdm>=4.66 is needed, found: none": f"{sys.executable} -m pip install 'tqdm>=4.66'",
        "implicit>=0.7.2 is needed, found: 0.6.0": f"{sys.executable} -m pip install 'implicit>=0.7.2'",
    }


def test_a_configuration_that_cannot_be_read(doctor: Doctor, repo: Repo, mend: Mend) -> None:
    """Is named by line, without what is written there; what needs it is not looked at, the files are."""
    file = repo.path / "feature_store.yaml"
    file.write_text(file.read_text() + "  api_key: [SECRET\n")
    code, bad, report = doctor()
    assert (code, bad) == (1, [("configuration", "problem")])
    assert "SECRET" not in json.dumps(report)
    assert "line " in next(row["message"] for row in report["findings"] if row["mend"])
    assert set(report["skipped"]) == {
        "registry",
        "store",
        "writer",
        "live",
        "leftovers",
        "spaces",
        "drift",
        "freshness",
    }
    assert {"artifacts", "history", "definitions"} <= {row["check"] for row in report["findings"]}
    with pytest.raises(subprocess.CalledProcessError) as error:  # diff has found something
        mend(mending(report, "configuration"))
    assert b"api_key: [SECRET" in error.value.stdout


@pytest.mark.parametrize(
    ("change", "level", "message"),
    [
        ({"online_store": {"type": "sqlite"}}, "problem", "no query can be answered"),
        ({"online_store": {"type": "feast_embeddings.QdrantEmbeddingOnlineStore", "hnsw_m": 0}}, "problem", "hnsw_m"),
        ({"batch_engine": {"type": "local"}}, "warning", "batch_engine.type is local"),
        ({"offline_store": {"type": "file"}}, "warning", "tested with duckdb"),
    ],
)
def test_settings(doctor: Doctor, repo: Repo, change: dict[str, Any], level: str, message: str) -> None:
    """Those without which nothing works, and those which this package is not tested with."""
    rewrite(repo, lambda config: config.update(change))
    _, bad, report = doctor()
    assert bad == [("configuration", level)]
    assert message in next(row["message"] for row in report["findings"] if row["mend"])


@pytest.mark.parametrize("broken", ["", "import feast\n", "def (\n"])
def test_definitions_that_make_no_views(doctor: Doctor, repo: Repo, broken: str, mend: Mend) -> None:
    """Gone, of something else, or no Python; the template's take their place."""
    file = repo.path / "definitions.py"
    file.unlink() if not broken else file.write_text(broken)
    _, bad, report = doctor()
    assert bad == [("definitions", "problem")]
    mend(mending(report, "definitions"))
    assert doctor()[1] == []


@pytest.mark.parametrize("broken", ["gone", "cut"])
def test_a_registry_that_is_gone_or_cut(doctor: Doctor, repo: Repo, broken: str, mend: Mend) -> None:
    """What needs it is not looked at; applying makes it again."""
    file = repo.data / "registry.db"
    if broken == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    _, bad, report = doctor()
    assert bad == [("registry", "problem")]
    assert set(report["skipped"].values()) == {"registry"}
    assert file.exists() == (broken == "cut")
    mend(mending(report, "registry"))
    assert doctor()[1] == []


def test_views_of_another_dimension(doctor: Doctor, repo: Repo, mend: Mend) -> None:
    """A version that was trained since with another one: first it is applied, then published."""
    write_version(repo.data, seed=9, as_of=datetime.now(UTC), dim=4)
    _, bad, report = doctor()
    assert bad == [("registry", "problem"), ("freshness", "warning")]
    assert any("registered dimension 8, artifact 4" in row["message"] for row in report["findings"])
    mend(mending(report, "registry"))
    _, bad, report = doctor()
    assert bad == [("freshness", "warning")]
    mend(mending(report, "freshness"))
    assert doctor()[1] == []


@pytest.mark.parametrize("broken", ["users.parquet", "manifest.json", "items.parquet"])
def test_a_damaged_version(doctor: Doctor, repo: Repo, broken: str, mend: Mend) -> None:
    """A bit flipped, a file gone; it can be taken out of the history without harm to the others."""
    older, live = sorted(path for path in (repo.data / "shop").iterdir() if path.name.startswith("2"))
    file = older / broken
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.unlink()  # the history has a link to it
    if broken != "items.parquet":
        file.write_bytes(raw)
    _, bad, report = doctor()
    assert bad == [("artifacts", "problem")]
    assert older.name in next(row["message"] for row in report["findings"] if row["mend"])
    mend(mending(report, "artifacts"))
    assert doctor()[1] == []
    assert load_artifact(repo.data, "shop").path == live
    assert not older.exists()


def test_missing_folders(doctor: Doctor, repo: Repo) -> None:
    """The versions of a model; the whole data folder, with the registry in it; the vectors."""
    shutil.rmtree(repo.data / "shop")
    _, bad, report = doctor()
    assert bad == [("artifacts", "problem")]
    assert mending(report, "artifacts").endswith("--model shop --interactions LOG")
    shutil.rmtree(repo.data)
    _, bad, _ = doctor()
    assert bad == [("registry", "problem"), ("artifacts", "warning")]
    shutil.rmtree(repo.path / "qdrant_storage")
    assert doctor()[1] == bad


def test_missing_vectors(doctor: Doctor, repo: Repo, mend: Mend) -> None:
    """The folder of the engine; a publish makes it again."""
    shutil.rmtree(repo.path / "qdrant_storage")
    _, bad, report = doctor()
    assert bad == [("live", "warning")]
    mend(mending(report, "live"))
    assert doctor()[1] == []


def test_what_a_killed_training_left(doctor: Doctor, repo: Repo, mend: Mend) -> None:
    """Counts once no training can be at it any more."""
    left = repo.data / "shop" / ".20260101T000000000Z.abc"
    left.mkdir()
    assert doctor()[1] == []
    long_ago = (datetime.now() - timedelta(days=2)).timestamp()
    os.utime(left, (long_ago, long_ago))
    _, bad, report = doctor()
    assert bad == [("artifacts", "warning")]
    mend(mending(report, "artifacts"))
    assert doctor()[1] == []


def test_a_history_that_is_not_in_line(doctor: Doctor, repo: Repo, mend: Mend) -> None:
    """A version lost, and one that is gone."""
    folder = repo.data / "shop" / "history" / "items"
    first = min(folder.iterdir())
    first.rename(folder / "20200101T000000000Z.parquet")
    _, bad, report = doctor()
    assert bad == [("history", "problem")]
    assert first.stem in next(row["message"] for row in report["findings"] if row["mend"])
    mend(mending(report, "history"))
    assert doctor()[1] == []


@pytest.mark.parametrize("broken", ["pointer", "shard"])
def test_a_store_that_cannot_be_read(doctor: Doctor, repo: Repo, broken: str, mend: Mend) -> None:
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
    mend(mending(report, check))
    assert doctor()[1] == []


def test_a_server_that_does_not_answer(doctor: Doctor, repo: Repo) -> None:
    """Is one finding, and what needs it is not looked at."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        store = {"type": "feast_embeddings.QdrantEmbeddingOnlineStore", "url": url, "api_key": "SECRET"}
        rewrite(repo, lambda config: config.update(online_store=store))
        _, bad, report = doctor()
    assert bad == [("store", "problem")]
    assert set(report["skipped"]) == set(AFTER_STORE)
    assert "SECRET" not in json.dumps(report)


def test_a_server(
    doctor: Doctor,
    repo: Repo,
    qdrant_server: QdrantServer,
    mend: Mend,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Answers; its version counts; a publish that died in it is a leftover."""
    store = {"type": "feast_embeddings.QdrantEmbeddingOnlineStore", "url": qdrant_server.url}
    rewrite(repo, lambda config: config.update(online_store=store | {"grpc_port": qdrant_server.grpc_port}))
    try:
        assert doctor()[1] == [("live", "warning")]
        mend(mending(doctor()[2], "live"))
        _, bad, report = doctor()
        assert bad == []
        assert any(row["message"].startswith("Qdrant 1.") for row in report["findings"])
        engine_of(repo, unfinished("20990101T000000000Z"))
        _, bad, report = doctor()
        assert bad == [("leftovers", "warning")]
        with monkeypatch.context() as patch:
            patch.setattr("feast_embeddings.server.ServerEngine.server_version", lambda _: "1.15.5")
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
        subprocess.run(mending(report, "writer").split(), check=True, capture_output=True)
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
def test_sides_that_are_not_live_together(doctor: Doctor, repo: Repo, change: Any, expected: Found, mend: Mend) -> None:
    """One of them, neither, or of different spaces: a publish switches both."""
    engine_of(repo, change)
    _, bad, report = doctor()
    assert bad == expected
    mend(mending(report, expected[0][0]))
    assert doctor()[1] == []


@pytest.mark.parametrize("how", ["fewer", "other", "newer"])
def test_vectors_that_are_not_those_of_the_files(
    doctor: Doctor, repo: Repo, healthy: Shop, how: str, mend: Mend
) -> None:
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
        assert "59 sampled vectors are bit for bit those of the files, 1 updated since" in messages
        return
    if how == "fewer":
        assert bad == [("live", "problem"), ("drift", "problem")]
        assert "what is live has 30 of 40 items" in messages
        assert "10 items missing online" in messages
    else:
        assert bad == [("drift", "problem")]
        assert "1 items different online" in messages
    mend(mending(report, "drift"))
    assert doctor()[1] == []


def unfinished(version: str) -> Callable[[Engine, dict[Entity, str], dict[str, str]], None]:
    """What a publish leaves that was killed while it loaded a version."""

    def change(engine: Engine, aliases: dict[Entity, str], live: dict[str, str]) -> None:
        spec: CollectionSpec = engine.describe(live[aliases["item"]])
        half = spec.model_copy(update={"version": version, "verified": False, "fingerprint": ""})
        engine.create(f"{aliases['item']}__{version}", half, [])

    return change


def test_publishes_that_did_not_finish(doctor: Doctor, repo: Repo, mend: Mend) -> None:
    """Of an older version it is cleared; of a newer one it is finished."""
    engine_of(repo, unfinished("20200101T000000000Z"))
    _, bad, report = doctor()
    assert bad == [("leftovers", "warning")]
    mend(mending(report, "leftovers"))
    assert doctor()[1] == []
    newer = write_version(repo.data, seed=5, as_of=datetime.now(UTC)).manifest.version
    engine_of(repo, unfinished(newer))
    _, bad, report = doctor()
    assert bad == [("leftovers", "warning"), ("freshness", "warning")]
    assert newer in mending(report, "leftovers")
    mend(mending(report, "leftovers"))
    assert doctor()[1] == []


def test_what_is_served_is_old(doctor: Doctor) -> None:
    """By the limit that is given."""
    _, bad, report = doctor("--max-age", "0.000001")
    assert bad == [("freshness", "warning")]
    assert mending(report, "freshness").endswith("--model shop --interactions LOG")


@pytest.mark.parametrize(("mode", "level"), [(0o600, "ok"), (0o640, "ok"), (0o644, "warning"), (0o660, "problem")])
def test_who_may_read_the_keys(doctor: Doctor, tmp_path: Path, mode: int, level: str, mend: Mend) -> None:
    """Others may not write them, nor everybody read them."""
    file = tmp_path / "keys"
    file.write_text(new_key("web", "read")[1].line)
    file.chmod(mode)
    _, bad, report = doctor("--key-file", file)
    assert bad == ([] if level == "ok" else [("keys", level)])
    if bad:
        mend(mending(report, "keys"))
        assert doctor("--key-file", file)[1] == []


def test_keys_that_cannot_be_read(doctor: Doctor, tmp_path: Path) -> None:
    """Are not shown."""
    file = tmp_path / "keys"
    file.write_text("fe_SECRET")
    _, bad, report = doctor("--key-file", file)
    assert bad == [("keys", "problem")]
    assert "SECRET" not in json.dumps(report)
    assert doctor("--key-file", tmp_path / "none")[1] == [("keys", "problem")]


def test_a_check_that_fails_is_a_finding(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are made all the same."""

    def fail(*_: object) -> Iterator[findings.Finding]:
        raise RuntimeError("a bug")

    monkeypatch.setattr("feast_embeddings.doctor.live_checks._sample", fail)
    _, bad, report = doctor()
    assert bad == [("drift", "problem")]
    assert any("this check failed: RuntimeError: a bug" in row["message"] for row in report["findings"])
    assert report["findings"][-1]["check"] == "freshness"

"""The report as a whole; what is not installed, configured or registered as it should be is found, and nothing else."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Command
from tests.support.shop import write_version

from feast_embeddings.doctor import findings, setup_checks
from feast_embeddings.repo import Repo
from feast_embeddings.service.api_keys import new_key

from .conftest import AFTER_STORE, Doctor, Fix, fixing, rewrite


def test_a_healthy_repo(doctor: Doctor, command: Command, repo: Repo) -> None:
    """Everything is looked at and found well; for people it is a line each."""
    code, bad, report = doctor()
    assert (code, bad, report["worst"], report["skipped"]) == (0, [], "ok", {})
    checks = {found["check"]: found["message"] for found in report["findings"]}
    assert list(checks) == [
        *("installation", "configuration", "definitions", "registry", "artifacts", "history", "store", "writer"),
        *(check for check in AFTER_STORE if check != "stored"),  # says nothing without a store
    ]
    assert "Python 3." in checks["installation"]
    assert "feast 0.67" in checks["installation"]
    assert checks["drift"] == "60 sampled vectors equal the files bit for bit"
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
    fixes = {row["message"]: row["fix"] for row in report["findings"] if row["fix"]}
    assert fixes == {
        "feast<0.68,>=0.67 is needed, found: 0.66.0": f"{sys.executable} -m pip install 'feast[duckdb]<0.68,>=0.67'",
        "tqdm>=4.66 is needed, found: none": f"{sys.executable} -m pip install 'tqdm>=4.66'",
        "implicit>=0.7.2 is needed, found: 0.6.0": f"{sys.executable} -m pip install 'implicit>=0.7.2'",
    }


def test_a_package_that_cannot_be_loaded(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is installed, but not what it needs of the system."""
    monkeypatch.setitem(sys.modules, "implicit.cpu.als", None)  # an import that fails
    code, bad, report = doctor()
    assert (code, bad) == (1, [("installation", "problem")])
    assert "'implicit', which cannot be loaded: import of implicit.cpu.als halted" in report["findings"][0]["message"]
    assert fixing(report, "installation") == "apt-get install libgomp1"


def test_a_configuration_that_cannot_be_read(doctor: Doctor, repo: Repo, fix: Fix) -> None:
    """Is named by line, without what is written there; what needs it is not looked at, the files are."""
    file = repo.path / "feature_store.yaml"
    file.write_text(file.read_text() + "  api_key: [SECRET\n")
    code, bad, report = doctor()
    assert (code, bad) == (1, [("configuration", "problem")])
    assert "SECRET" not in json.dumps(report)
    assert "line " in next(row["message"] for row in report["findings"] if row["fix"])
    assert set(report["skipped"]) == {
        "registry",
        "store",
        "cluster",
        "writer",
        "live",
        "stored",
        "leftovers",
        "spaces",
        "drift",
        "freshness",
    }
    assert {"artifacts", "history", "definitions"} <= {row["check"] for row in report["findings"]}
    with pytest.raises(subprocess.CalledProcessError) as error:  # diff has found something
        fix(fixing(report, "configuration"))
    assert b"api_key: [SECRET" in error.value.stdout


@pytest.mark.parametrize(
    ("change", "level", "message"),
    [
        ({"online_store": {"type": "sqlite"}}, "problem", "queries do not work"),
        ({"online_store": {"type": "feast_embeddings.QdrantEmbeddingOnlineStore", "hnsw_m": -1}}, "problem", "hnsw_m"),
        ({"batch_engine": {"type": "local"}}, "warning", "batch_engine.type is local"),
        ({"offline_store": {"type": "file"}}, "warning", "drops label rows that are older than the first version"),
        ({"offline_store": {"type": "dask"}}, "warning", "offline_store.type is dask: Feast's get_historical"),
        ({"offline_store": {"type": "remote", "host": "h"}}, "warning", "tested with duckdb"),
    ],
)
def test_settings(doctor: Doctor, repo: Repo, change: dict[str, Any], level: str, message: str) -> None:
    """Those without which nothing works, and those which this package is not tested with."""
    rewrite(repo, lambda config: config.update(change))
    _, bad, report = doctor()
    assert bad == [("configuration", level)]
    assert message in next(row["message"] for row in report["findings"] if row["fix"])


@pytest.mark.parametrize("broken", ["", "import feast\n", "def (\n"])
def test_definitions_that_make_no_views(doctor: Doctor, repo: Repo, broken: str, fix: Fix) -> None:
    """Gone, of something else, or no Python; the template's take their place."""
    file = repo.path / "definitions.py"
    file.unlink() if not broken else file.write_text(broken)
    _, bad, report = doctor()
    assert bad == [("definitions", "problem")]
    fix(fixing(report, "definitions"))
    assert doctor()[1] == []


@pytest.mark.parametrize("broken", ["gone", "cut"])
def test_a_registry_that_is_gone_or_cut(doctor: Doctor, repo: Repo, broken: str, fix: Fix) -> None:
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
    fix(fixing(report, "registry"))
    assert doctor()[1] == []


def test_views_of_another_dimension(doctor: Doctor, repo: Repo, fix: Fix) -> None:
    """A version that was trained since with another one: first it is applied, then published."""
    write_version(repo.data, seed=9, as_of=datetime.now(UTC), dim=4)
    _, bad, report = doctor()
    assert bad == [("registry", "problem"), ("freshness", "warning")]
    assert any("registered dimension 8, artifact 4" in row["message"] for row in report["findings"])
    fix(fixing(report, "registry"))
    _, bad, report = doctor()
    assert bad == [("freshness", "warning")]
    fix(fixing(report, "freshness"))
    assert doctor()[1] == []


@pytest.mark.parametrize(("mode", "level"), [(0o600, "ok"), (0o640, "ok"), (0o644, "warning"), (0o660, "problem")])
def test_who_may_read_the_keys(doctor: Doctor, tmp_path: Path, mode: int, level: str, fix: Fix) -> None:
    """Others may not write them, nor everybody read them."""
    file = tmp_path / "keys"
    file.write_text(new_key("web", "read")[1].line)
    file.chmod(mode)
    _, bad, report = doctor("--key-file", file)
    assert bad == ([] if level == "ok" else [("keys", level)])
    if bad:
        fix(fixing(report, "keys"))
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

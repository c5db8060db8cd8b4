"""A real repo in which one thing is broken at a time; the doctor, and what it proposes."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.conftest import Command
from tests.support.publishing import publish_any
from tests.support.shop import Shop, apply, write_version

from feast_embeddings.model.sides import qdrant_store
from feast_embeddings.repo import Repo, init_repo

Found = list[tuple[str, str]]
Fix = Callable[[str], None]
Doctor = Callable[..., tuple[int, Found, dict[str, Any]]]
AFTER_STORE = ("live", "stored", "leftovers", "spaces", "drift", "freshness")


@pytest.fixture(scope="session")
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


@pytest.fixture
def doctor(repo: Repo, command: Command) -> Doctor:
    """Ask the doctor: the exit code, what is not ok, and all that it says."""

    default = repo.path

    def ask(*arguments: object, repo: Path = default) -> tuple[int, Found, dict[str, Any]]:
        answer = command("doctor", "--repo", repo, "--json", *arguments)
        report = json.loads(answer.out)
        bad = [(found["check"], found["level"]) for found in report["findings"] if found["level"] != "ok"]
        assert all(bool(found["fix"]) == (found["level"] != "ok") for found in report["findings"])
        assert answer.code == ("problem" in {level for _, level in bad})
        return answer.code, bad, report

    return ask


def fixing(report: dict[str, Any], check: str) -> str:
    """What a check that found something proposes."""
    (fix,) = {found["fix"] for found in report["findings"] if found["check"] == check and found["fix"]}
    return str(fix)


@pytest.fixture
def fix(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fix:
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

        levels = loggers()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "path", list(sys.path))
            patch.setattr(sys, "modules", dict(sys.modules))
            cli.main(list(arguments), standalone_mode=False)
        # Feast sets the level of every name that is known, and makes a logger of each parent, such as a package.
        for name in loggers():
            logging.getLogger(name).setLevel(levels.get(name, logging.NOTSET))

    def loggers() -> dict[str, int]:
        known = logging.root.manager.loggerDict.items()
        return {name: logger.level for name, logger in known if isinstance(logger, logging.Logger)}

    return run


def rewrite(repo: Repo, change: Callable[[dict[str, Any]], None]) -> None:
    """Change feature_store.yaml."""
    file = repo.path / "feature_store.yaml"
    config = yaml.safe_load(file.read_text())
    change(config)
    file.write_text(yaml.safe_dump(config))

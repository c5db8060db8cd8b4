"""The examples of docs/refresh.md for schedulers: each is valid for its scheduler, and runs a command that exists."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.conftest import ROOT

from feast_embeddings.cli.refresh import refresh

_EXAMPLES = (ROOT / "docs" / "refresh.md").read_text().partition("## Schedulers")[2]
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", _EXAMPLES, re.DOTALL)


def example(name: str) -> str:
    (code,) = (code for _, code in BLOCKS if code.startswith(f"# {name}\n"))
    return str(code)


def options_of(words: list[str]) -> dict[str, Any]:
    """The options that click finds in a command line."""
    assert words[:2] == ["feast-embeddings", "refresh"]
    return refresh.make_context("refresh", words[2:]).params


def test_every_example_runs_refresh() -> None:
    """On the command lines, whatever surrounds them."""
    lines = re.findall(r"feast-embeddings refresh [^|\"\n]+", _EXAMPLES)
    assert len(lines) == 4  # cron, systemd, GitHub Actions, Airflow
    for line in lines:
        assert options_of(shlex.split(line))["model"] == "shop"
    words = re.search(r"subprocess.run\(\[(.*?)\]", example("refresh_job.py"))
    assert words is not None
    assert options_of(re.findall(r'"([^"]*)"', words[1]))["model"] == "shop"


def test_crontab() -> None:
    (line,) = (code for language, code in BLOCKS if language == "crontab")
    minute, hour, *days, command = line.split(maxsplit=5)
    assert (0 <= int(minute) < 60, 0 <= int(hour) < 24, days) == (True, True, ["*"] * 3)
    assert options_of(shlex.split(command))["textfile"].endswith(".prom")


def test_systemd_units(tmp_path: Path) -> None:
    """As systemd itself reads them."""
    for name in ("refresh.service", "refresh.timer"):
        (tmp_path / name).write_text(example(name))
    if (program := shutil.which("systemd-analyze")) is None:
        pytest.skip("no systemd-analyze on the PATH")
    units = [str(tmp_path / name) for name in ("refresh.service", "refresh.timer")]
    done = subprocess.run([program, "verify", *units], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_github_workflow() -> None:
    workflow = yaml.safe_load(example("refresh.yml"))
    assert workflow[True]["schedule"] == [{"cron": "15 3 * * *"}]  # YAML 1.1 reads `on` as true
    assert workflow["concurrency"]
    assert [list(step) for step in workflow["jobs"]["refresh"]["steps"]] == [["run"]]


@pytest.mark.parametrize(("name", "package"), [("refresh_dag.py", "airflow"), ("refresh_job.py", "dagster")])
def test_python_schedulers(name: str, package: str, tmp_path: Path) -> None:
    """Loaded by the scheduler itself, where it is installed."""
    (tmp_path / name).write_text(example(name))
    compile(example(name), name, "exec")
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    runpy.run_path(str(tmp_path / name))

"""`refresh` as a scheduler runs it: the first time, with nothing new, with worse data, killed, and twice at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.conftest import Command

from feast_embeddings.files import writer_lock
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.repo import Repo, init_repo

LOCKED, REFUSED = 4, 3


def write_log(path: Path, n_users: int, seed: int = 0) -> None:
    """Two groups of users, each with its own items."""
    rng = np.random.default_rng(seed)
    users = np.repeat(np.arange(n_users), 8)
    items = rng.integers(0, 20, len(users)) + 20 * (users % 2)
    times = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(rng.permutation(len(users)), "min")
    frame = pd.DataFrame({"user_id": users, "item_id": items, "timestamp": times}).astype(
        {"user_id": str, "item_id": str}
    )
    frame.drop_duplicates(["user_id", "item_id"]).to_parquet(path)


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    made = init_repo(tmp_path / "repo")
    write_log(tmp_path / "log.parquet", 60)
    pd.DataFrame({"item_id": [str(i) for i in range(40)], "price": 1.0}).to_csv(tmp_path / "items.csv", index=False)
    (made.path / "embeddings.toml").write_text(
        '[log]\ninteractions = "../log.parquet"\nitems = "../items.csv"\n'
        '[train]\ntrainer = "als"\nfactors = 8\nthreads = 1\n[train.param]\niterations = 3\n'
    )
    return made


def live(repo: Repo) -> str | None:
    return EmbeddingStore(repo.feature_store(), "shop").live_version()


def trained(repo: Repo) -> list[str]:
    return sorted(path.name for path in (repo.data / "shop").glob("2*"))


def test_night_after_night(command: Command, repo: Repo, tmp_path: Path) -> None:
    """Each night does what there is to do, and says so by its exit code, its lines and its metrics."""
    metrics = tmp_path / "refresh.prom"
    asked = ("refresh", "--repo", repo.path, "--model", "shop", "--textfile", metrics)
    ran = command(*asked)
    assert (ran.code, "run feast apply" in ran.err) == (2, True), ran.err
    assert 'refresh_exit_code{model="shop"} 2.0\n' in metrics.read_text()
    (first,) = trained(repo)
    subprocess.run([Path(sys.executable).with_name("feast"), "-c", repo.path, "apply"], check=True, capture_output=True)

    ran = command(*asked)  # goes on where it stopped
    assert ran.code == 0, ran.err
    assert [line.split(":")[0] for line in ran.out.splitlines()] == ["train", "publish", "prune", "doctor"]
    assert ran.out.startswith(f"train: nothing new since {first}, ")
    assert (trained(repo), live(repo)) == ([first], first)
    text = metrics.read_text()
    assert 'refresh_exit_code{model="shop"} 0.0\n' in text
    assert 'refresh_step_seconds{model="shop",step="publish"} ' in text
    assert all(line.startswith(("# HELP ", "# TYPE ", "feast_embeddings_refresh_")) for line in text.splitlines())

    answer = json.loads(command(*asked, "--json").out)
    assert (answer["result"], answer["live"], trained(repo)) == ("nothing new", first, [first])

    prices = tmp_path / "items.csv"  # attributes are part of a version
    prices.write_text(prices.read_text().replace("1.0", "2.5"))
    answer = json.loads(command(*asked, "--json").out)
    second = answer["live"]
    assert (answer["result"], trained(repo), live(repo)) == ("live", [first, second], second)

    write_log(tmp_path / "log.parquet", 30)
    ran = command(*asked)
    assert (ran.code, "30 users" in ran.err, len(ran.err.splitlines())) == (REFUSED, True, 1), ran.err
    assert (len(trained(repo)), live(repo)) == (3, second)
    assert command(*asked).code == REFUSED  # the same version again, not one more
    assert len(trained(repo)) == 3
    ran = command(*asked, "--allow-shrink", "--allow-worse")
    assert (ran.code, live(repo)) == (0, trained(repo)[-1]), ran.err

    before = metrics.read_text()
    with writer_lock(repo.data / ".shop.refresh.lock", timeout=0):
        ran = command(*asked)
    assert (ran.code, "is being written by" in ran.err, len(ran.err.splitlines())) == (LOCKED, True, 1)
    assert metrics.read_text() == before

    (tmp_path / "log.parquet").unlink()
    ran = command(*asked, "--json")
    assert (ran.code, json.loads(ran.out)["result"]) == (2, "failed")
    assert live(repo) == trained(repo)[-1]
    ran = command(*asked, "--", "--trainer", "nothing", "--interactions", tmp_path / "items.csv")
    assert ran.code == 2


@pytest.mark.parametrize("moments", [(0.5, 0.85), pytest.param(np.linspace(0.1, 1, 20), marks=pytest.mark.slow)])
def test_killed_at_any_moment(moments: list[float], repo: Repo, command: Command, tmp_path: Path) -> None:
    """Whatever a killed run leaves, the next one ends with the new version live, trained at most once more."""
    command("train", "--repo", repo.path, "--model", "shop", "--quiet")
    subprocess.run([Path(sys.executable).with_name("feast"), "-c", repo.path, "apply"], check=True, capture_output=True)
    start = "from feast_embeddings.cli import run; run()"
    line = [sys.executable, "-c", start, "refresh", "--repo", str(repo.path), "--model", "shop"]
    began = time.monotonic()
    assert subprocess.run(line, check=False, capture_output=True).returncode == 0
    whole = time.monotonic() - began
    for turn, share in enumerate(moments):
        write_log(tmp_path / "log.parquet", 61 + turn, seed=turn)
        quiet = subprocess.DEVNULL
        with subprocess.Popen(line, stdout=quiet, stderr=quiet, start_new_session=True) as process:
            try:
                process.wait(share * whole)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        ran = command("refresh", "--repo", repo.path, "--model", "shop", "--allow-worse", "--allow-new-space", "--json")
        assert ran.code == 0, ran.err
        assert json.loads(ran.out)["live"] == live(repo) == trained(repo)[-1]
        assert len(trained(repo)) <= 2 + turn + 1
        assert not list((repo.data / "shop").glob(".*tmp*"))

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from embedding_trainers.commands.train import train
from feast_embeddings.artifact import load_artifact
from feast_embeddings.errors import InputError


@pytest.fixture
def oracle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trainer of another package, which knows the checkerboard and says that it is cheap."""
    (tmp_path / "oracle.py").write_text(
        "import numpy as np\n"
        "from embedding_trainers.trainer import Factors, RaceEntry, Trainer, TrainerConfig\n"
        "def train(user_items, config, options):\n"
        "    sides = [np.eye(config.factors, dtype=np.float32)[np.arange(n) % 2] for n in user_items.shape]\n"
        "    return Factors(*sides, np.zeros(user_items.shape[1], np.float32))\n"
        "ORACLE = Trainer(TrainerConfig, train, race=RaceEntry(cost=0.5))\n"
    )
    info = tmp_path / "oracle-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: oracle\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[embedding_trainers]\noracle = oracle:ORACLE\n")
    monkeypatch.syspath_prepend(tmp_path)


def auto(repo: Path, log: Path, *arguments: str) -> tuple[str, str]:
    """Run the command without a trainer; what it printed, and what on standard error."""
    common = ["--repo", str(repo), "--model", "m", "--interactions", str(log), "--factors", "4", "--threads", "1"]
    done = CliRunner().invoke(train, [*common, *arguments], catch_exceptions=False, standalone_mode=False)
    if done.exception:
        raise done.exception
    return done.stdout, done.stderr


@pytest.mark.usefixtures("oracle")
def test_a_trainer_of_another_package_wins(repo: Path, log: Path) -> None:
    """It takes part, and the table, the summary, the JSON and the manifest say how it was chosen."""
    out, err = auto(repo, log)
    assert ", chosen by auto: oracle " in out.splitlines()[0]
    table = [line.split(" | ")[0] for line in err.splitlines() if line.startswith("| ")]
    assert sorted(table[2:]) == ["| als", "| bpr", "| oracle", "| softmax", "| svd"]

    out, err = auto(repo, log, "--json", "--no-align")
    assert err == ""
    found, manifest = json.loads(out), load_artifact(repo / "data", "m").manifest
    assert found["trainer"] == {"name": "oracle", "config": {"factors": 4}}
    assert found["tuning"] == manifest.tuning
    assert found["tuning"]["race"]["validation"] == "random 20% of each user's items, 50 users"
    assert {lap["trainer"] for lap in found["tuning"]["race"]["trainers"]} == {"als", "bpr", "oracle", "softmax", "svd"}
    assert set(found["seconds"]) == {"read", "race", "evaluate", "fit", "write"}
    assert auto(repo, log, "--quiet")[1] == ""


def test_auto_keeps_the_trainer_of_the_version_before(repo: Path, log: Path) -> None:
    """Equals do not replace it; --like names it, without a race; a new space starts without it."""
    auto(repo, log, "--trainer", "softmax", "--no-evaluate", "--quiet")
    kept = json.loads(auto(repo, log, "--json")[0])
    fresh = json.loads(auto(repo, log, "--json", "--no-align")[0])
    like = json.loads(auto(repo, log, "--like", kept["version"], "--json")[0])
    again = json.loads(auto(repo, log, "--like", kept["version"], "--trainer", "auto", "--json")[0])

    ndcg = {lap["trainer"]: (lap["behind"], lap["margin"]) for lap in kept["tuning"]["race"]["trainers"]}
    assert ndcg["softmax"][0] <= 1.96 * ndcg["softmax"][1]  # else the log is no test of this
    assert (kept["trainer"]["name"], kept["aligned_to"] is None) == ("softmax", False)
    assert kept["tuning"]["race"]["chosen"].startswith("softmax stays")
    assert (like["trainer"], like["tuning"]) == (kept["trainer"], None)
    assert "stays" not in fresh["tuning"]["race"]["chosen"]
    assert again["tuning"]["race"]["trainers"]


def test_auto_with_options_of_one_trainer(repo: Path, log: Path) -> None:
    """They need the trainer by name, wherever they come from; nothing is written."""
    with pytest.raises(InputError, match="no parameter 'alpha' with auto, only factors; name its trainer"):
        auto(repo, log, "--param", "alpha=3")
    (repo / "embeddings.toml").write_text("[train]\nparam = {alpha = 3}\n")
    with pytest.raises(InputError, match="no parameter 'alpha' with auto"):
        auto(repo, log)
    assert not (repo / "data").exists()
    found = json.loads(auto(repo, log, "--trainer", "als", "--json", "--no-evaluate")[0])
    assert (found["trainer"]["config"]["alpha"], found["tuning"]) == (3, None)


def test_auto_and_a_search(repo: Path, log: Path) -> None:
    """The winner is tuned; the manifest has the race and the search, and the search sees the given factors."""
    found = json.loads(auto(repo, log, "--tune", "2", "--json")[0])
    assert len(found["tuning"]["trials"]) == 2
    assert found["tuning"]["race"]["trainers"]
    assert found["trainer"]["config"]["factors"] == 4

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.conftest import Command

from embedding_trainers.train import train_model
from embedding_trainers.trainer import RunOptions
from feast_embeddings.artifact import list_artifacts
from feast_embeddings.demo import generate_shop, write_shop

ONE = ("--threads", "1", "--seed", "3")
BOTH = ("recall@20", "ndcg@20")


def as_json(command: Command, *arguments: object) -> dict[str, Any]:
    answer = command(*arguments, "--json")
    assert (answer.code, answer.err) == (0, "")
    found: dict[str, Any] = json.loads(answer.out)
    return found


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small shop's log, and a repo with two versions of its first part."""
    folder = tmp_path_factory.mktemp("shop")
    write_shop(generate_shop(n_users=300, n_items=100, n_interactions=6000), folder)
    (folder / "als.toml").write_text('trainer = "als"\nfactors = 4\niterations = 2\n')
    repo = folder / "repo"
    repo.mkdir()
    (repo / "feature_store.yaml").touch()
    log = pq.read_table(folder / "interactions.parquet").sort_by("timestamp")
    for rows in (3000, 5000):
        parameters, options = {"factors": 4}, RunOptions(threads=1)
        table = log.slice(0, rows)
        train_model(repo, "shop", table, trainer="svd", parameters=parameters, options=options, evaluation=False)
    return folder


def test_scores_are_those_of_evaluate(shop: Path, command: Command) -> None:
    """For each trainer the same means and intervals as `evaluate` gives on the same split, by defaults or by a file."""
    log = ("--interactions", shop / "interactions.parquet", "--split", "user", *ONE)
    found = as_json(command, "compare", *log, "--trainers", "svd", "--config", shop / "als.toml")

    compared = {row["name"]: row for row in found["compared"]}
    assert set(compared) == {"svd", "als"}
    for name, choice in (("svd", ("--trainer", "svd")), ("als", ("--config", shop / "als.toml"))):
        alone = as_json(command, "evaluate", *log, *choice)
        for metric in BOTH:
            assert compared[name]["scores"][metric] == pytest.approx(alone["scores"]["model"][metric], abs=1e-12)
        assert compared[name]["config"] == alone["config"]
        assert compared[name]["cpu_seconds"] > 0
        assert compared[name]["memory_mib"] > 50
        assert {key: found[key] for key in ("method", "n_users", "n_pairs", "rows")} == {
            key: alone[key] for key in ("method", "n_users", "n_pairs", "rows")
        }
    best, other = found["compared"]
    assert best["scores"]["ndcg@20"]["value"] >= other["scores"]["ndcg@20"]["value"]
    assert best["verdict"] == "best"


def test_repeats_are_compared_as_evaluated(shop: Path, command: Command) -> None:
    """The process that trains does not mask what was seen either."""
    log = ("--interactions", shop / "interactions.parquet", "--include-seen", *ONE)
    found = as_json(command, "compare", *log, "--config", shop / "als.toml")
    alone = as_json(command, "evaluate", *log, "--config", shop / "als.toml")
    for metric in BOTH:
        expected = pytest.approx(alone["scores"]["model"][metric], abs=1e-12)
        assert found["compared"][0]["scores"][metric] == expected
    assert found["method"] == alone["method"]


def test_versions(shop: Path, command: Command) -> None:
    """Two words for one version are one row; a version alone is as `evaluate` reports it."""
    old, new = sorted(each.manifest.version for each in list_artifacts(shop / "repo" / "data", "shop"))
    where = ("--repo", shop / "repo", "--test", shop / "interactions.parquet")
    found = as_json(command, "compare", *where, "--versions", f"latest,previous,{new}")
    assert {row["name"] for row in found["compared"]} == {f"{new} (latest, {new})", f"{old} (previous)"}
    assert {row["cpu_seconds"] for row in found["compared"]} == {None}

    single = as_json(command, "compare", *where, "--model", "shop", "--versions", old)
    alone = as_json(command, "evaluate", *where, "--model", "shop", "--version", old)
    for metric in BOTH:
        expected = pytest.approx(alone["scores"]["model"][metric], abs=1e-12)
        assert single["compared"][0]["scores"][metric] == expected
    assert (single["n_users"], single["n_pairs"]) == (alone["n_users"], alone["n_pairs"])
    # Pairs that only the newer one had seen are a test for neither.
    assert found["n_pairs"] < single["n_pairs"]


def test_like_a_version_of_one_of_two_models(shop: Path, tmp_path: Path, command: Command) -> None:
    """--model says whose, as for evaluate."""
    (tmp_path / "feature_store.yaml").touch()
    log = pq.read_table(shop / "interactions.parquet").rename_columns({"user_id": "who"})
    pq.write_table(log, tmp_path / "log.parquet")
    place = ("--repo", tmp_path, "--interactions", tmp_path / "log.parquet", *ONE)
    for model in ("one", "two"):
        made = ("--trainer", "svd", "--factors", 2, "--user-column", "who", "--no-evaluate", "--quiet")
        assert command("train", *place, "--model", model, *made).code == 0
    found = as_json(command, "compare", *place, "--trainers", "svd", "--model", "two", "--like", "latest", "--quiet")
    assert found["rows"]["interactions"]["rows"] == len(log)


@pytest.mark.parametrize("ending", ["md", "json", "png"])
def test_output(shop: Path, tmp_path: Path, command: Command, ending: str) -> None:
    """The file has what the command prints, or a chart; the table has its marks."""
    target = tmp_path / f"found.{ending}"
    answer = command(
        *("compare", "--interactions", shop / "interactions.parquet", "--config", shop / "als.toml", "--quiet"),
        *("--output", target, *ONE),
    )
    assert (answer.code, answer.err) == (0, "")
    text, _, last = answer.out.rstrip("\n").rpartition("\n")
    assert last == f"wrote {target}"
    assert text.splitlines()[4].startswith("| als | ")
    content = target.read_bytes()
    if ending == "md":
        assert content.decode() == text + "\n"
    elif ending == "json":
        assert json.loads(content)["compared"][0]["name"] == "als"
    else:
        assert content.startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name either --interactions, to compare trainers, or --versions, to compare versions"),
        (["--interactions", "LOG", "--versions", "latest"], "name either --interactions, to compare trainers, or"),
        (["--interactions", "LOG", "--model", "shop"], "--model works only with --versions, or with --like"),
        (["--interactions", "LOG", "--trainers", "als,svd,als"], "--trainers: 'als' is named twice"),
        (["--interactions", "LOG", "--trainers", "als,,svd"], "--trainers 'als,,svd': expected names with commas"),
        (
            ["--interactions", "LOG", "--trainers", "sdv"],
            "no trainer 'sdv'; installed are als, bpr, concat, graph, item2vec, sasrec, softmax, svd",
        ),
        (
            ["--interactions", "LOG", "--trainers", "auto"],
            "'auto' is no trainer: train and evaluate choose one by it; ",
        ),
        (["--interactions", "LOG", "--trainers", "als", "--config", "CONFIG"], "another row of the table is called"),
        (["--interactions", "nowhere.csv", "--trainers", "svd"], "nowhere.csv does not exist"),
        (
            ["--interactions", "LOG", "--output", "x.pdf"],
            "a file name that ends in .md, .json or .png, in a folder",
        ),
        (
            ["--interactions", "LOG", "--test", "LOG", "--split", "time"],
            "name one of --test, --split and --split-at",
        ),
        (["--interactions", "LOG", "--test", "LOG"], "nothing to predict in the interactions of"),
        (["--versions", "latest", "--repo", "REPO"], "name the interactions that the versions are to predict with"),
        (
            ["--versions", "latest", "--repo", "REPO", "--trainers", "als"],
            "--trainers has no effect with --versions",
        ),
        (["--versions", "1", "--repo", "REPO", "--test", "LOG"], "model 'shop' has no version '1'; it has"),
        (
            ["--versions", "latest", "--repo", "REPO", "--test", "LOG", "--output", "x.png"],
            "versions are not trained",
        ),
    ],
)
def test_bad_options(shop: Path, command: Command, arguments: list[str], message: str) -> None:
    """A bad value, or one that would have no effect, is one line on standard error, before anything is trained."""
    files = {"LOG": "interactions.parquet", "CONFIG": "als.toml", "REPO": "repo"}
    answer = command("compare", *(shop / files[word] if word in files else word for word in arguments))
    assert (answer.code, answer.out) == (2, "")
    assert message in answer.err
    assert answer.err.count("\n") == 1


def test_help_is_light() -> None:
    """The command's help imports neither arrays nor Arrow nor the trainers."""
    script = (
        "import sys, embedding_trainers.commands.compare\n"
        "print([m for m in ('numpy', 'pyarrow', 'pydantic', 'scipy', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)

    assert done.stdout == "[]\n"


def test_trainers_that_cannot_train_here_are_left_out(
    shop: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that nobody named: their log has no times, or a package is missing. Named ones fail."""
    monkeypatch.setattr("embedding_trainers.trainer.known_trainers", lambda: ["sasrec", "svd"])
    (tmp_path / "torch.py").write_text("raise ImportError('broken')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    log = pq.read_table(shop / "interactions.parquet")
    pq.write_table(log.drop_columns("timestamp"), untimed := tmp_path / "log.parquet")
    for path, reason in (
        (untimed, "the log has no times"),
        (shop / "interactions.parquet", "needs the package 'torch'"),
    ):
        answer = command("compare", "--interactions", path, *ONE, "--quiet", "--json")
        assert answer.code == 0
        assert answer.err.startswith("left out: sasrec: ")
        assert reason in answer.err
        found = json.loads(answer.out)
        assert [row["name"] for row in found["compared"]] == ["svd"]
        assert list(found["left_out"]) == ["sasrec"]
        assert found["failed"] == {}

        named = command("compare", "--interactions", path, "--trainers", "svd,sasrec", *ONE, "--quiet", "--json")
        assert named.code == 1
        assert "1 of 2 trainers failed: sasrec: " in named.err
        assert list(json.loads(named.out)["failed"]) == ["sasrec"]

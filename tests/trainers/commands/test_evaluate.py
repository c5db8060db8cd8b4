from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from tests.conftest import Command

from embedding_trainers.commands.evaluate import evaluate
from embedding_trainers.evaluation.version_split import version_split
from embedding_trainers.interactions import read_interactions, split_interactions
from embedding_trainers.train import train_model
from embedding_trainers.trainer import RunOptions
from feast_embeddings.artifact import EmbeddingTable, TrainerInfo, load_artifact, write_artifact
from feast_embeddings.demo import generate_shop, write_shop
from feast_embeddings.errors import InputError

FEW = ("--trainer", "bpr", "--param", "iterations=3", "--factors", "4", "--threads", "1")


def run(*arguments: object) -> str:
    """Run the command to its end and return what it printed on standard output."""
    result = CliRunner().invoke(
        evaluate, [str(argument) for argument in arguments], catch_exceptions=False, standalone_mode=False
    )
    if result.exception:
        raise result.exception
    return result.stdout


def as_json(*arguments: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(*arguments, "--json"))
    return found


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small shop's files, split into what came before a day in September and after."""
    folder = tmp_path_factory.mktemp("shop")
    write_shop(generate_shop(n_users=300, n_items=100, n_interactions=6000), folder)
    log = pq.read_table(folder / "interactions.parquet")
    cut = pc.less_equal(log["timestamp"], pa.scalar(CUT, pa.timestamp("us", "UTC")))
    pq.write_table(log.filter(cut), folder / "before.parquet")
    pq.write_table(log.filter(pc.invert(cut)), folder / "after.parquet")
    return folder


CUT = np.datetime64("2026-09-01T00:00:00").astype("datetime64[us]").item()


@pytest.fixture(scope="module")
def trained(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repo with a version that was trained on what came before."""
    repo = tmp_path_factory.mktemp("repo")
    (repo / "feature_store.yaml").touch()
    train_model(
        repo,
        "shop",
        shop / "before.parquet",
        trainer="bpr",
        parameters={"factors": 4, "iterations": 3},
        options=RunOptions(threads=1),
        user_attributes=shop / "users.parquet",
        user_content="none",
        evaluation=False,
    )
    return repo


def test_a_version_is_evaluated_as_its_trainer(shop: Path, trained: Path) -> None:
    """Training on the same log in the command gives the same report, and so does the whole log cut at the same time."""
    here = as_json("--interactions", shop / "before.parquet", "--test", shop / "after.parquet", *FEW)
    version = as_json("--repo", trained, "--model", "shop", "--test", shop / "after.parquet")
    cut = as_json("--interactions", shop / "interactions.parquet", "--split-at", "2026-09-01", *FEW)

    assert (here["trainer"], here["config"]["iterations"]) == ("bpr", 3)
    assert (version["model"], version["version"]) == ("shop", load_artifact(trained / "data", "shop").manifest.version)
    assert here["n_users"] > 50
    for other in (version, cut):
        for name in ("scores", "segments", "left_out", "n_users", "n_pairs", "n_items", "k"):
            assert here[name] == other[name], name


def test_the_whole_log_may_be_the_test(shop: Path, trained: Path) -> None:
    """What the version was trained on is left out and counted; the rest of the report is that of the later part."""
    later = as_json("--repo", trained, "--model", "shop", "--test", shop / "after.parquet")
    whole = as_json("--repo", trained, "--model", "shop", "--test", shop / "interactions.parquet")
    before = pq.read_table(shop / "before.parquet").select(["user_id", "item_id"])

    assert whole["left_out"]["seen_pairs"] == before.group_by(["user_id", "item_id"]).aggregate([]).num_rows
    assert whole["scores"] == later["scores"]


def test_dropped_rows_are_counted(shop: Path, trained: Path, tmp_path: Path) -> None:
    """Of the log and of the test, in JSON and in the text."""
    row = pq.read_table(shop / "after.parquet").slice(0, 1).to_pylist()[0]
    test = tmp_path / "test.csv"
    test.write_text(
        f"user_id,item_id,timestamp\n{row['user_id']},{row['item_id']},2026-09-05\n,a,2026-09-05\nu,a,soon\n"
    )
    drop = ("--test", test, "--on-bad-rows", "drop")
    counted = {
        "rows": 3,
        "n_bad": 2,
        "bad": {"without user_id": 1, "whose timestamp is not a time": 1},
        "left_out": {},
    }
    log = ("--interactions", shop / "before.parquet", *FEW)
    of_log = {"rows": pq.read_metadata(shop / "before.parquet").num_rows, "n_bad": 0, "bad": {}, "left_out": {}}
    assert as_json("--repo", trained, "--model", "shop", *drop)["rows"] == {"test": counted}
    assert as_json(*log, *drop)["rows"] == {"interactions": of_log, "test": counted}
    assert run(*log, *drop).splitlines()[0] == (
        "test: 2 of 3 rows cannot be used and were dropped: 1 without user_id; 1 whose timestamp is not a time"
    )


def test_until_ends_the_training_and_not_the_test(shop: Path) -> None:
    """A log cut with --until, tested on what came later, is as the two files."""
    files = as_json("--interactions", shop / "before.parquet", "--test", shop / "after.parquet", *FEW)
    cut = as_json(
        *("--interactions", shop / "interactions.parquet", "--until", "2026-09-01", "--test", shop / "after.parquet"),
        *FEW,
    )

    assert files["scores"] == cut["scores"]


def test_train_stores_what_evaluate_reports(shop: Path, tmp_path: Path) -> None:
    """recall@20 and its kin in the manifest are those of the report on the same split."""
    (tmp_path / "feature_store.yaml").touch()
    log = shop / "interactions.parquet"
    # Not derived: each derives it from what it trains on.
    parameters, options = {"factors": 4, "iterations": 3, "regularization": 0.01}, RunOptions(threads=1)
    metrics = train_model(
        tmp_path, "m", log, trainer="bpr", parameters=parameters, options=options
    ).artifact.manifest.metrics
    report = as_json("--interactions", log, *FEW, "--param", "regularization=0.01")

    assert split_interactions(read_interactions(log), seed=0).method == report["method"]
    assert metrics == pytest.approx(
        {
            prefix + name: report["scores"][ranking][name]["value"]
            for prefix, ranking in (("", "model"), ("popular_", "popular"))
            for name in ("recall@20", "ndcg@20")
        }
    )


def test_segments(shop: Path, trained: Path) -> None:
    """An attribute splits the test users, from a file as from the version."""
    test = ("--test", shop / "after.parquet", "--segment", "country")
    here = as_json("--interactions", shop / "before.parquet", "--users", shop / "users.parquet", *test, *FEW)
    version = as_json("--repo", trained, "--model", "shop", *test)

    parts = here["segments"]["country"]
    assert version["segments"]["country"] == parts
    assert set(parts) == {"DE", "FR", "NL", "ES", "PL", "SE"}
    assert sum(part["n_users"] for part in parts.values()) == here["n_users"]


@pytest.mark.parametrize(
    ("split", "method"),
    [("time", "newest 10% of the interactions"), ("last", "newest item of each user"), ("user", "newest 20% of each")],
)
def test_splits(shop: Path, split: str, method: str) -> None:
    """Each way to split is named in the table, whose cut-offs are those asked for."""
    text = run("--interactions", shop / "interactions.parquet", "--split", split, "--k", "5,1", "--quiet", *FEW)

    assert text.startswith(f"bpr on {method}")
    assert [line.split()[0] for line in text.splitlines() if line.startswith("recall")] == ["recall@1", "recall@5"]


@pytest.mark.parametrize(("split", "table"), [("cold-items", "--items"), ("cold-users", "--users")])
def test_hidden_items_and_users(shop: Path, split: str, table: str) -> None:
    """The report says what was hidden, and content counts where its table is named."""
    entity = split.removeprefix("cold-").removesuffix("s")
    log = ("--interactions", shop / "interactions.parquet", "--split", split, *FEW)
    with_content = (*log, table, shop / f"{entity}s.parquet")
    found, bare = as_json(*with_content), as_json(*log)
    hidden = 20 if entity == "item" else 60
    assert (found["entity"], found["n_hidden"], found["trainer"]) == (entity, hidden, "bpr")
    assert found["content"]
    assert bare["content"] == []
    assert bare["strength"] is None
    assert [row["given"] for row in found["rows"]][:3] == [0, 1, 2]
    assert [row["given"] for row in bare["rows"]][:2] == [1, 2]
    assert set(bare["rows"][0]["scores"]) == {"behaviour", "popular", "random"}
    assert as_json(*with_content, f"--{'user-' if entity == 'user' else ''}content", "none") == bare
    text = run(*with_content)
    assert f"bpr on {hidden} hidden {entity}s" in text
    assert f"content: {','.join(found['content'])}" in text


def test_auto_on_hidden_items(shop: Path) -> None:
    """The race decides which trainer is tried on them."""
    found = as_json(
        *("--interactions", shop / "interactions.parquet", "--split", "cold-users", "--factors", "4", "--threads", "1")
    )
    assert found["trainer"] in ("als", "svd", "softmax", "bpr")
    assert found["rows"][0]["given"] == 1


def test_events_and_repeats(shop: Path, trained: Path, tmp_path: Path) -> None:
    """Testing on purchases is as a file of purchases; a version and its trainer agree on repeats."""
    events = ("--event-column", "event", "--event-weights", "view=1,buy=1", "--test-events", "buy")
    for name in ("before", "after"):
        log = pq.read_table(shop / f"{name}.parquet")
        types = pa.array(["view" if row % 3 else "buy" for row in range(len(log))])
        pq.write_table(log.append_column("event", types), tmp_path / f"{name}.parquet")
        pq.write_table(log.filter(pc.equal(types, "buy")), tmp_path / f"{name}-bought.parquet")
    log = ("--interactions", tmp_path / "before.parquet", *FEW)
    bought = as_json(*log, "--test", tmp_path / "after-bought.parquet")
    named = as_json(*log, "--test", tmp_path / "after.parquet", *events)
    assert named["method"] == f"the interactions of {tmp_path / 'after.parquet'}, buy only"
    assert {key: value for key, value in bought.items() if key not in ("method", "rows")} == {
        key: value for key, value in named.items() if key not in ("method", "rows")
    }

    here = as_json(*log, "--test", tmp_path / "after.parquet", "--include-seen")
    version = as_json("--repo", trained, "--model", "shop", "--test", tmp_path / "after.parquet", "--include-seen")
    assert here["method"].endswith(", seen items included")
    assert here["scores"] == version["scores"]
    assert (
        here["left_out"]["seen_pairs"] == 0 < as_json(*log, "--test", shop / "after.parquet")["left_out"]["seen_pairs"]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name either --interactions, to train and evaluate, or --model, to evaluate a version"),
        (["--interactions", "LOG", "--model", "shop"], "name either --interactions"),
        (["--model", "shop"], "name the interactions that the version is to predict with --test"),
        (["--model", "shop", "--test", "LOG", "--factors", "3"], "--factors has no effect with --model"),
        (["--model", "shop", "--test", "LOG", "--trainer", "bpr"], "--trainer has no effect with --model"),
        (["--interactions", "LOG", "--version", "1"], "--version works only with --model"),
        (["--interactions", "LOG", "--test", "LOG", "--split", "time"], "name one of --test, --split and --split-at"),
        (["--model", "shop", "--test", "LOG", "--split", "cold-items"], "so it needs --interactions"),
        (["--interactions", "LOG", "--split", "cold-items", "--k", "5"], "--k has no effect with --split cold-items"),
        (["--interactions", "LOG", "--split", "cold-users", "--test", "LOG"], "--test has no effect with --split cold"),
        (["--interactions", "LOG", "--items", "USERS"], "--items has no effect without --split cold-items or cold"),
        (
            ["--interactions", "LOG", "--split", "cold-users", "--users", "USERS", "--user-content", "land:text"],
            "'land'",
        ),
        (
            ["--interactions", "LOG", "--split", "cold-users", "--users", "USERS", "--content", "land:text"],
            "--content has no effect with --split cold-users",
        ),
        (["--interactions", "LOG", "--split", "last", "--include-seen"], "--include-seen: --split last holds out all"),
        (["--interactions", "LOG", "--test-events", "buy"], "name it (--event-column)"),
        (["--interactions", "LOG", "--split-at", "now"], "'now' is not a time"),
        (["--interactions", "LOG", "--split-at", "1999-01-01"], "all interactions are after 1999-01-01"),
        (["--interactions", "LOG", "--k", "ten"], "--k 'ten': expected whole numbers with commas, e.g. 10,20,50"),
        (["--interactions", "LOG", "--k", "0"], "cut-offs k: expected one or more whole numbers from 1"),
        (["--interactions", "LOG", "--segment", "country"], "--segment and --users go together"),
        (["--interactions", "LOG", "--users", "LOG"], "--segment and --users go together"),
        (["--interactions", "LOG", "--segment", "land", "--users", "USERS"], "--segment 'land': "),
        (["--interactions", "LOG", "--test", "nowhere.csv"], "nowhere.csv does not exist"),
        (["--interactions", "LOG", "--test", "LOG"], "left out are 0 pairs of 0 users and 0 items that training did"),
        (["--interactions", "LOG", "--trainer", "als", "--param", "rate=1"], "no parameter 'rate'; there are factors"),
        (["--model", "shop", "--test", "LOG", "--version", "1"], "model 'shop' has no version '1'; it has"),
        (["--model", "shop", "--test", "LOG", "--segment", "land"], "--segment 'land': the users of version"),
    ],
)
def test_bad_options(shop: Path, trained: Path, arguments: list[str], message: str) -> None:
    """A bad value, or one that would have no effect, is an InputError of one line."""
    files = {"LOG": shop / "interactions.parquet", "USERS": shop / "users.parquet"}
    where = ["--repo", trained] if "--model" in arguments else FEW
    with pytest.raises(InputError) as error:
        run(*(files.get(argument, argument) for argument in arguments), *where)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_version_without_seen_items(tmp_path: Path, shop: Path) -> None:
    """A version that does not say what was seen cannot be evaluated."""
    ids = pa.array(["u-1", "u-2"])
    side = EmbeddingTable(ids, np.ones((2, 3), np.float32), np.ones(2, np.int64))
    artifact = write_artifact(
        tmp_path,
        "m",
        users=side,
        items=side,
        as_of=CUT,
        trainer=TrainerInfo(name="t", config={}),
        seed=None,
        metrics={},
        fingerprint="f",
        n_interactions=2,
    )
    with pytest.raises(InputError, match="does not say which items users had seen"):
        version_split(artifact, read_interactions(shop / "after.parquet"))


def test_help_is_light() -> None:
    """The command's help imports neither arrays nor Arrow nor the trainers."""
    script = (
        "import sys, embedding_trainers.commands.evaluate\n"
        "print([m for m in ('numpy', 'pyarrow', 'pydantic', 'scipy', 'implicit') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)

    assert done.stdout == "[]\n"


@pytest.mark.parametrize("arguments", [("evaluate",), ("compare", "--versions", "latest")])
def test_a_version_with_items_only(shop: Path, tmp_path: Path, command: Command, arguments: tuple[str, ...]) -> None:
    """It cannot rank for users, which is one line about the version."""
    (tmp_path / "feature_store.yaml").touch()
    items = EmbeddingTable(
        ids=pa.array(["a", "b"]), embedding=np.eye(2, dtype=np.float32), n_interactions=np.ones(2, np.int64)
    )
    written = write_artifact(
        *(tmp_path / "data", "m"), users=None, items=items, as_of=CUT, trainer=TrainerInfo(name="import", config={}),
        seed=0, metrics={}, fingerprint="", n_interactions=1,
    )  # fmt: skip
    answer = command(*arguments, "--repo", tmp_path, "--model", "m", "--test", shop / "after.parquet")
    expected = f"error: version {written.manifest.version} of model 'm' has no users\n"
    assert (answer.code, answer.out, answer.err) == (2, "", expected)


@pytest.mark.parametrize("command_name", ["evaluate", "compare"])
def test_weights_beyond_what_trainers_compute_with(
    shop: Path, tmp_path: Path, command: Command, command_name: str
) -> None:
    """They are refused as by train, before any training; a trainer that ignores them may have them."""
    log = pq.read_table(shop / "before.parquet")
    pq.write_table(log.append_column("w", pa.array(np.full(len(log), 1e-12))), tmp_path / "log.parquet")
    place = (
        command_name,
        "--interactions",
        tmp_path / "log.parquet",
        "--weight-column",
        "w",
        "--threads",
        "1",
        "--quiet",
    )
    option = "--trainer" if command_name == "evaluate" else "--trainers"
    answer = command(*place, option, "als")
    assert (answer.code, answer.out) == (2, "")
    assert re.fullmatch(r"error: no pair of user and item has a weight of more than \S+, and .*\n", answer.err)
    assert command(*place, option, "bpr").code == 0


def test_auto(shop: Path) -> None:
    """Half of the test users choose a trainer, which the others test: as they would if it were named."""
    log = ("--interactions", shop / "interactions.parquet", "--factors", 4, "--threads", 1)
    found = as_json(*log)
    named = as_json(*log, "--trainer", found["trainer"])

    assert {lap["trainer"] for lap in found["race"]["trainers"]} == {"als", "bpr", "softmax", "svd"}
    assert (found["config"], found["n_items"]) == (named["config"], named["n_items"])
    assert found["n_users"] == named["n_users"] // 2
    assert found["method"] == f"{named['method']}, half of the users, as the others chose the trainer"
    text = run(*log, "--quiet")
    assert text.startswith(f"{found['trainer']} on {found['method']}")

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from embedding_trainers.commands.train import train
from feast_embeddings.artifact import load_artifact
from feast_embeddings.errors import InputError


def run(repo: Path, log: Path, *arguments: str) -> str:
    """Run the command to its end and return what it printed on standard output."""
    common = ["--repo", str(repo), "--model", "m", "--interactions", str(log), "--param", "iterations=3"]
    if not {"--trainer", "--config"} & set(arguments):
        common += ["--trainer", "bpr"]
    result = CliRunner().invoke(train, [*common, *arguments], catch_exceptions=False, standalone_mode=False)
    if result.exception:
        raise result.exception
    return result.stdout


def test_summary(repo: Path, log: Path) -> None:
    """The summary names version, counts, quality next to the floor, time, place and the next command."""
    out = run(repo, log, "--factors", "4", "--quiet")
    manifest = load_artifact(repo / "data", "m").manifest

    assert f"trained m version {manifest.version} with bpr" in out
    assert "50 users, 50 items, 1,200 interactions" in out
    metrics = manifest.metrics
    assert f"recall@20 {metrics['recall@20']:.3f} (most popular: {metrics['popular_recall@20']:.3f})" in out
    assert "random 20% of each user's items, 50 users" in out
    assert str(repo / "data" / "m" / manifest.version) in out
    assert out.endswith(f"next: feast -c {repo} apply && feast-embeddings publish --repo {repo} --model m\n")


def test_json(repo: Path, log: Path) -> None:
    """--json prints one object and nothing else."""
    out = json.loads(run(repo, log, "--factors", "4", "--seed", "3", "--threads", "1", "--json"))
    artifact = load_artifact(repo / "data", "m")

    assert (artifact.manifest.version, str(artifact.path)) == (out["version"], out["path"])
    assert tuple(out[name] for name in ("n_users", "n_items", "n_interactions", "dim", "seed")) == (50, 50, 1200, 4, 3)
    assert out["trainer"]["config"]["iterations"] == 3
    assert artifact.manifest.metrics == out["metrics"]
    assert out["evaluation"] == {"method": "random 20% of each user's items", "n_users": 50, "margins": {}}
    assert {"read", "evaluate", "fit", "write"} == set(out["seconds"])


def test_not_evaluated(repo: Path, log: Path) -> None:
    """--no-evaluate leaves the quality out."""
    out = json.loads(run(repo, log, "--no-evaluate", "--json"))

    assert (out["metrics"], out["evaluation"]) == ({}, None)


def test_one_pair(repo: Path, tmp_path: Path) -> None:
    """What could not be measured is said."""
    (tmp_path / "log.csv").write_text("user_id,item_id\n1,1\n")

    assert "not measured: too few interactions to hold any back" in run(repo, tmp_path / "log.csv", "--quiet")


def test_columns_and_attributes(repo: Path, tmp_path: Path) -> None:
    """Column options, the cut in time and both attribute files reach the training."""
    (tmp_path / "log.csv").write_text(
        "who,what,when,much\na,1,2024-01-01,1\nb,2,2024-01-02,1\nb,1,2024-01-01,0\nc,3,2024-01-03,1\n"
    )
    (tmp_path / "users.csv").write_text("who,age\nb,30\n")
    (tmp_path / "items.csv").write_text("what,title\n2,Two\n")
    run(
        repo, tmp_path / "log.csv", "--quiet",
        "--user-column", "who", "--item-column", "what", "--timestamp-column", "when", "--weight-column", "much",
        "--until", "2024-01-02", "--users", str(tmp_path / "users.csv"), "--items", str(tmp_path / "items.csv"),
    )  # fmt: skip
    artifact = load_artifact(repo / "data", "m")

    assert (artifact.table("user").select(["user_id", "age", "seen_items"]).to_pydict()) == {
        "user_id": ["a", "b"],
        "age": [None, 30],
        "seen_items": [["1"], ["2"]],
    }
    assert (artifact.table("item").select(["item_id", "title"]).to_pydict()) == {
        "item_id": ["1", "2"],
        "title": [None, "Two"],
    }


def test_messy_log(repo: Path, tmp_path: Path) -> None:
    """Bad rows are one error, or are dropped and counted in the output, the JSON and the manifest."""
    log = tmp_path / "log.csv"
    log.write_text(
        "user_id;item_id;timestamp\na;1;2024-01-01\na;1;2024-01-01\n;2;2024-01-01\nb;2;9999-12-31\nb;2;soon\n"
        + "bot;1;2024-01-02\n" * 3
        + "b;2;2024-01-02\n"
    )
    options = ["--no-evaluate", "--factors", "2", "--quiet"]
    with pytest.raises(InputError, match=r"3 of 9 rows .* 1 without user_id \(row 3\); 1 whose timestamp is in"):
        run(repo, log, *options)
    assert list((repo / "data").glob("m/2*")) == []
    dropping = [*options, "--on-bad-rows", "drop", "--drop-duplicates", "--max-user-interactions", "1"]
    out = json.loads(run(repo, log, *dropping, "--json"))
    expected = {
        "rows": 9,
        "n_bad": 3,
        "bad": {
            "without user_id": 1,
            "whose timestamp is in the future (--allow-future keeps them)": 1,
            "whose timestamp is not a time": 1,
        },
        "left_out": {"that repeat another": 3},
    }
    assert out["rows"] == out["interactions"]["rows"] == expected
    assert out["n_interactions"] == 3
    assert "3 of 9 rows cannot be used and were dropped: 1 without user_id; " in run(repo, log, *dropping)


def test_the_future_is_kept_when_asked_for(repo: Path, tmp_path: Path) -> None:
    """It moves the version there, which is said."""
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\na,1,2024-01-01\nb,2,2999-12-31\n")
    out = json.loads(run(repo, tmp_path / "log.csv", "--no-evaluate", "--allow-future", "--json"))
    assert out["as_of"] == "2999-12-31T00:00:00Z"
    assert [warning for warning in out["warnings"] if "in the future" in warning]


def test_warnings(repo: Path, tmp_path: Path) -> None:
    """A bot and items of the catalogue without a row are said on standard error, and in the JSON."""
    log, items = tmp_path / "log.csv", tmp_path / "items.csv"
    log.write_text("user_id,item_id\n" + "bot,1\n" * 5_000 + "a,1\na,2\n")
    items.write_text("item_id,source\n1,a\n2,b\n3,a\n4,b\n")
    arguments = ["--repo", repo, "--model", "m", "--interactions", log, "--items", items, "--no-evaluate", "--json"]
    done = CliRunner().invoke(train, [str(argument) for argument in arguments], catch_exceptions=False)
    assert json.loads(done.stdout)["warnings"] == [
        "user 'bot' has 5,000 rows, 100% of all; leave bots out with --max-user-interactions",
        f"2 items of {items} have no interaction, and get no vector: {items} has a column 'source', and with "
        "--content that is the attribute that says what a vector was made of; rename the column",
    ]
    assert "warning: user 'bot' has 5,000 rows" in done.stderr


def test_event_weights_that_would_change_nothing(repo: Path, tmp_path: Path) -> None:
    """bpr refuses weights that differ, as it refuses a half-life; weights of 0 and 1 leave rows out."""
    log = tmp_path / "log.csv"
    log.write_text("user_id,item_id,event\na,1,view\na,2,buy\nb,1,like\n")
    options = ["--event-column", "event", "--no-evaluate", "--event-weights"]
    with pytest.raises(InputError, match="weights of event types that differ would change nothing; give each type 1"):
        run(repo, log, *options, "view=1,buy=5,like=1")
    assert json.loads(run(repo, log, *options, "view=2,buy=2,like=0", "--json"))["n_interactions"] == 2


def test_preparation(repo: Path, tmp_path: Path) -> None:
    """What says which interactions count and how much reaches the training, and the manifest records all of it."""
    (tmp_path / "log.csv").write_text(
        "user_id,item_id,timestamp,what\n"
        "a,1,2023-12-01,view\na,1,2024-01-01,view\na,2,2024-01-31,buy\n"
        "b,1,2024-01-31,view\nb,2,2024-01-01,like\nb,2,2024-01-31,view\nc,1,2024-01-31,buy\n"
    )
    run(
        repo, tmp_path / "log.csv", "--quiet", "--trainer", "als",
        "--event-column", "what", "--event-weights", "view=1, buy=5,like=0",
        "--half-life", "30d", "--since", "2024-01-01", "--min-user-interactions", "2", "--min-item-interactions", "2",
    )  # fmt: skip
    artifact = load_artifact(repo / "data", "m")

    assert artifact.table("user").select(["user_id", "n_interactions"]).to_pydict() == {
        "user_id": ["a", "b"],
        "n_interactions": [2, 2],
    }
    recorded = dict(artifact.manifest.interactions or {})
    assert re.fullmatch("[0-9a-f]{64}", recorded.pop("request"))
    assert recorded == {
        "columns": {"user": "user_id", "item": "item_id", "timestamp": None, "weight": None, "event": "what"},
        "preparation": {
            "since": "2024-01-01T00:00:00Z",
            "until": None,
            "event_weights": {"view": 1, "buy": 5, "like": 0},
            "half_life": "P30D",
            "drop_duplicates": False,
            "max_user_interactions": None,
            "min_user_interactions": 2,
            "min_item_interactions": 2,
        },
        "reading": {
            "user_ids": None,
            "item_ids": None,
            "time_format": None,
            "allow_future": False,
            "on_bad_rows": "error",
        },
        "rows": {
            "rows": 7,
            "n_bad": 0,
            "bad": {},
            "left_out": {
                "of weight 0": 1,
                "outside of --since and --until": 1,
                "of users or items with too few": 1,
            },
        },
        "types": {"ids": {"user": "text", "item": "text"}, "attributes": {"user": {}, "item": {}}},
    }


def test_tuned(repo: Path, log: Path) -> None:
    """--tune looks for the parameters that are not given, and says what it found and when it ended."""
    arguments = ["--trainer", "als", "--param", "regularization=0.5", "--factors", "4", "--threads", "1"]
    out = run(repo, log, *arguments, "--quiet", "--tune", "2")
    assert "  alpha=" in out
    assert "on random 20% of each user's items, 50 users; all 2 trials done" in out

    found = json.loads(run(repo, log, *arguments, "--json", "--tune", "100", "--tune-time", "0.001s"))
    assert found["tuning"]["ended"] == "time budget used up after 1 trials"
    # The derived one comes first, also where it is below what is searched.
    assert [trial["parameters"] for trial in found["tuning"]["trials"]] == [{"alpha": 0.1875}]
    assert found["trainer"]["config"]["alpha"] == 0.1875


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--param", "learning_rate"], "--param 'learning_rate': expected NAME=VALUE"),
        (["--param", "=1"], "--param '=1': expected NAME=VALUE"),
        (["--param", "iterations=4"], "the parameter 'iterations' is given twice"),
        (["--factors", "4", "--param", "factors=5"], "the parameter 'factors' is given twice"),
        (["--param", "rate=1"], "no parameter 'rate'; there are factors, iterations, learning_rate"),
        (["--param", "regularization=much"], "parameter regularization='much': Input should be a valid number"),
        (["--factors", "0"], "parameter factors=0: Input should be greater than or equal to 1"),
        (
            ["--trainer", "magic"],
            "no trainer 'magic'; installed are als, bpr, concat, graph, item2vec, sasrec, softmax, svd",
        ),
        (["--until", "soon"], "'soon' is not a time"),
        (["--tune-time", "1h"], "--tune-time has no effect without --tune"),
        (["--tune", "2", "--tune-time", "soon"], "'soon' is not a duration"),
        (["--since", "2024"], "'2024' is not a time"),
        (["--half-life", "30"], "'30' is not a duration; expected a number and s, m, h, d or w, e.g. 30d"),
        (["--half-life", "9999999999w"], "'9999999999w' is not a duration"),
        (["--event-weights", "view"], "--event-weights 'view': expected TYPE=WEIGHT, e.g. view=1,cart=3,purchase=5"),
        (["--event-weights", "view=much"], "--event-weights 'view=much': expected TYPE=WEIGHT"),
        (["--event-weights", "=1"], "--event-weights '=1': expected TYPE=WEIGHT"),
        (["--event-weights", "a=1,a=2"], "--event-weights gives 'a' twice"),
        (["--event-weights", "a=1"], "there are weights of event types, but no event column is named (--event-column)"),
        (["--event-column", "user_id"], "the column 'user_id' is named for two purposes; name one for each"),
        (["--min-user-interactions", "25"], "no interactions are left when each user has at least 25 and each item"),
    ],
)
def test_bad_options(repo: Path, log: Path, arguments: list[str], message: str) -> None:
    """A bad value is an InputError of one line, which the root command prints."""
    with pytest.raises(InputError) as error:
        run(repo, log, *arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (repo / "data").exists()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A file with a trainer and hyper-parameters."""
    path = tmp_path / "als.toml"
    path.write_text('trainer = "als"\nfactors = 5\nalpha = 7\n')
    return path


def test_config_file(repo: Path, log: Path, config: Path) -> None:
    """A file names the trainer and its hyper-parameters; what stands on the command line goes first."""
    for arguments in (["--config", str(config)], ["--config", str(config), "--trainer", "als"]):
        trainer = json.loads(run(repo, log, *arguments, "--factors", "6", "--no-evaluate", "--json"))["trainer"]

        assert trainer["name"] == "als"
        assert {"factors": 6, "alpha": 7, "iterations": 3}.items() <= trainer["config"].items()


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ('trainer = "svd"', ["--trainer", "als"], "als.toml is for 'svd'; leave out one of them"),
        ("trainer = 3", [], "trainer must be a name in quotes, not 3"),
        ('trainer = "als"\n[als]\nalpha = 3', [], "no parameter 'als'; there are factors, iterations, alpha"),
        ("alpha: 3", [], "is not TOML: "),
        ('trainer = "als"\nbeta = 1', [], "no parameter 'beta'; there are factors, iterations, alpha"),
        ('trainer = "als"\nalpha = "x"', [], "parameter alpha='x': Input should be a valid number"),
    ],
)
def test_bad_config_file(repo: Path, log: Path, config: Path, text: str, arguments: list[str], message: str) -> None:
    """What is wrong in the file is said in one line."""
    config.write_text(text)
    with pytest.raises(InputError) as error:
        run(repo, log, "--config", str(config), *arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_config_file_is_missing(repo: Path, log: Path, tmp_path: Path) -> None:
    """So is a file that is not there."""
    with pytest.raises(InputError, match=r"--config .*absent\.toml: No such file"):
        run(repo, log, "--config", str(tmp_path / "absent.toml"))


def test_patience(repo: Path, log: Path) -> None:
    """--patience finds the number of iterations, which the version records, and says so."""
    out = json.loads(run(repo, log, "--factors", "4", "--patience", "1", "--json"))

    assert out["trainer"]["config"]["iterations"] <= out["early_stop"]["ran"] <= 3
    assert 0 < out["early_stop"]["validation_ndcg@20"] <= 1
    assert "iterations were best (ndcg@20 0." in run(repo, log, "--factors", "4", "--patience", "1", "--quiet")


def test_progress_goes_to_standard_error(repo: Path, log: Path) -> None:
    """The bar is on standard error, and --quiet and --json turn it off."""
    common = [
        "--repo",
        str(repo),
        "--model",
        "m",
        "--interactions",
        str(log),
        "--no-evaluate",
        "--trainer",
        "bpr",
        "--param",
        "iterations=3",
    ]
    script = "from embedding_trainers.commands.train import train; train()"
    errors = [
        subprocess.run(
            [sys.executable, "-c", script, *common, *flag], check=True, capture_output=True, text=True
        ).stderr
        for flag in ([], ["--quiet"], ["--json"])
    ]

    assert "3/3" in errors[0]
    assert errors[1:] == ["", ""]


def test_without_the_extra(repo: Path, log: Path) -> None:
    """Without implicit and scipy the help works, and training says what to install."""
    script = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("implicit", "scipy"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())

import embedding_trainers.models.bpr, embedding_trainers.train
from embedding_trainers.commands.train import train
from feast_embeddings.errors import MissingExtraError
train(["--help"], standalone_mode=False)
try:
    train(sys.argv[1:], standalone_mode=False)
except MissingExtraError as error:
    print(error)
"""
    arguments = ["--repo", str(repo), "--model", "m", "--interactions", str(log)]
    done = subprocess.run([sys.executable, "-c", script, *arguments], check=True, capture_output=True, text=True)

    assert "--weight-column NAME" in done.stdout
    assert "training needs the package 'scipy', which is not installed" in done.stdout
    assert "pip install 'feast-embeddings[trainers]'" in done.stdout
    assert not (repo / "data").exists()


def test_help_is_light() -> None:
    """The command's help imports neither arrays nor Arrow nor the trainers."""
    script = (
        "import sys, embedding_trainers.commands.train\n"
        "print([m for m in ('numpy', 'pyarrow', 'pydantic', 'scipy', 'implicit') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)

    assert done.stdout == "[]\n"

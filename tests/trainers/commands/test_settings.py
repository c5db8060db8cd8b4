"""Options from embeddings.toml and from a version: the same trainings as typed, the order of the levels, and errors."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pyarrow.parquet as pq
import pytest
from tests.conftest import ROOT, Command
from tests.support.shop import Shop, apply

from embedding_trainers.commands.evaluate import evaluate
from embedding_trainers.commands.import_vectors import import_vectors
from embedding_trainers.commands.profile import profile
from embedding_trainers.commands.settings import ConfiguredCommand, Setting
from embedding_trainers.commands.train import train
from embedding_trainers.commands.trainer_options import trainer_options
from feast_embeddings.artifact import Artifact, load_artifact
from feast_embeddings.cli.fold_in import fold_in

LOG = "customer_no,sku,at,what\n" + "".join(
    f"c{user},s{(user * 7 + step * 3) % 20},2026-0{1 + (user + step) % 9}-01,{'buy' if step % 2 else 'view'}\n"
    for user in range(30)
    for step in range(5)
)
TYPED = (
    "--interactions", "{repo}/log.csv", "--user-column", "customer_no", "--item-column", "sku",
    "--timestamp-column", "at", "--event-column", "what", "--event-weights", "view=1,buy=3", "--since", "2026-02-01",
    "--half-life", "30d", "--on-bad-rows", "drop", "--drop-duplicates", "--min-item-interactions", "2",
    "--items", "{repo}/items.csv", "--trainer", "als", "--factors", "4", "--param", "iterations=3",
    "--param", "alpha=20", "--seed", "7", "--threads", "1", "--attribute-types", "zip=text",
)  # fmt: skip
FILE = """
[log]
interactions = "log.csv"
user_column = "customer_no"
item_column = "sku"
timestamp_column = "at"
event_column = "what"
event_weights = { view = 1, buy = 3 }
since = 2026-02-01
half_life = "30d"
on_bad_rows = "drop"
drop_duplicates = true
min_item_interactions = 2
items = "items.csv"

[train]
trainer = "als"
factors = 4
param = { iterations = 3, alpha = 20 }
seed = 7
threads = 1
attribute_types = { zip = "text" }
"""


@pytest.fixture
def logged(repo: Path) -> Path:
    """A repo with a log and a table of items next to feature_store.yaml."""
    (repo / "log.csv").write_text(LOG)
    (repo / "items.csv").write_text("sku,zip\n" + "".join(f"s{item},{item}\n" for item in range(20)))
    return repo


def write(repo: Path, text: str) -> None:
    (repo / "embeddings.toml").write_text(text)


def typed(repo: Path) -> list[str]:
    return [argument.format(repo=repo) for argument in TYPED]


def options(command: click.Command, *arguments: object) -> dict[str, Any]:
    """The values that a command would run with."""
    return command.make_context("command", [str(argument) for argument in arguments]).params


def learned(artifact: Artifact) -> list[Any]:
    """All of a version but its name and its times, and what it was aligned to."""
    manifest = artifact.manifest
    tables = [artifact.table(side).drop_columns(["version", "space", "created_timestamp"]) for side in manifest.sides]
    fields = ("trainer", "seed", "interactions", "metrics", "fingerprint", "as_of", "n_interactions")
    return [*(getattr(manifest, name) for name in fields), *(table.to_pydict() for table in tables)]


def test_one_training_by_options_by_the_file_and_by_a_version(logged: Path, tmp_path: Path, command: Command) -> None:
    """Vectors, ids and what the manifest records are equal, to the bit."""
    place = ("train", "--repo", logged, "--model", "m", "--quiet", "--no-align")
    files = ("--interactions", logged / "log.csv", "--items", logged / "items.csv", "--threads", 1)
    for arguments in (
        [*typed(logged)],
        ["--like", "latest", *files],
    ):
        answer = command(*place, *arguments)
        assert answer.code == 0, answer.err
    write(logged, FILE)
    assert command(*place).code == 0
    # For --like, the file has only what a version does not record.
    write(logged, '[log]\ninteractions = "log.csv"\nitems = "items.csv"\nuser_column = "absent"\n[train]\nthreads = 1')
    assert command(*place, "--like", "latest").code == 0
    versions = [load_artifact(logged / "data", "m", path.name) for path in sorted((logged / "data/m").glob("2*"))]
    first, *others = map(learned, versions)
    assert len(others) == 3
    assert versions[0].manifest.trainer.config | {"alpha": 20.0, "iterations": 3, "factors": 4} == first[0].config
    # The first version had none before it to take types of ids from.
    assert first[2]["reading"] | {"user_ids": "text", "item_ids": "text"} == others[0][2]["reading"]
    first[2]["reading"] = others[0][2]["reading"]
    assert others == [first] * 3


def test_an_empty_word_for_a_version(logged: Path, command: Command) -> None:
    """A variable of the shell that is not set is an error, and no training with the defaults."""
    place = ("train", "--repo", logged, "--model", "m", "--interactions", logged / "log.csv")
    answer = command(*place, "--like", "", "--user-column", "customer_no", "--item-column", "sku")
    expected = f"error: no trained version of model 'm' under {logged}/data (models there: none); run train\n"
    assert (answer.code, answer.out, answer.err) == (2, "", expected)


def test_typed_before_like_before_file_before_default(logged: Path, command: Command) -> None:
    """Each level in turn, for options of the log and of the trainer."""
    at = ("--repo", logged, "--model", "m")
    assert command("train", *at, *typed(logged), "--no-evaluate", "--quiet").code == 0
    write(logged, '[log]\ninteractions = "x"\nuser_column = "of_file"\nquery = "q"\n[train]\nseed = 3\ndevice = "cpu"')

    here = options(train, *at)
    assert (here["seed"], here["device"], here["threads"]) == (3, "cpu", 0)
    assert (here["interactions"], here["user_column"], here["query"]) == (f"{logged}/x", "of_file", "q")
    like = options(train, *at, "--like", "latest")
    assert (like["user_column"], like["seed"], like["device"], like["trainer"]) == ("customer_no", 7, "cpu", "als")
    assert (like["since"], like["half_life"]) == (datetime(2026, 2, 1, tzinfo=UTC), timedelta(days=30))
    assert dict(like["params"]) == {"alpha": 20.0, "iterations": 3, "regularization": 0.1}
    both = options(train, *at, "--like", "latest", "--user-column", "typed", "--seed", 1, "--interactions", "y")
    assert (both["user_column"], both["seed"], both["interactions"]) == ("typed", 1, "y")
    assert both["query"] is None  # it was meant for the other log
    assert both["item_column"] == "sku"
    flag = options(train, *at, "--like", "latest", "--no-drop-duplicates")
    assert (like["drop_duplicates"], flag["drop_duplicates"]) == (True, False)


def test_sections_of_a_model(logged: Path) -> None:
    """They go before the common ones, name by name, and no other model sees them."""
    write(
        logged,
        '[log]\nuser_column = "u"\nitem_column = "i"\n[train]\ntrainer = "als"\nparam = {alpha = 1, iterations = 2}\n'
        '[models.a.log]\nuser_column = "ua"\n[models.a.train]\nparam = {alpha = 5}\n[models.b.train]\ntrainer = "bpr"',
    )
    log = ("--repo", logged, "--interactions", "x", "--model")
    a, b = options(train, *log, "a"), options(train, *log, "b")
    assert (a["user_column"], a["item_column"], dict(a["params"])) == ("ua", "i", {"alpha": 5, "iterations": 2})
    assert (b["user_column"], b["trainer"], b["params"]) == ("u", "bpr", ())  # als' parameters are not bpr's


@pytest.mark.parametrize(
    ("content", "arguments", "trainer", "parameters"),
    [
        ('trainer = "als"\nparam = {alpha = 5}', (), "als", {"alpha": 5}),
        ('trainer = "als"\nparam = {alpha = 5}', ("--param", "iterations=4"), "als", {"alpha": 5, "iterations": "4"}),
        ('trainer = "als"\nparam = {alpha = 5}', ("--param", "alpha=6"), "als", {"alpha": "6"}),
        ('trainer = "als"\nparam = {alpha = 5}\nfactors = 8', ("--trainer", "svd"), "svd", {"factors": 8}),
        ("factors = 8", ("--param", "factors=9"), "auto", {"factors": "9"}),
        ("param = {iterations = 5}", ("--trainer", "bpr"), "bpr", {"iterations": 5}),
        ('config = "als.toml"', (), "als", {"alpha": 3, "factors": 16}),
        ('config = "als.toml"\nparam = ["alpha=4"]', ("--factors", "2"), "als", {"alpha": "4", "factors": 2}),
        ('config = "als.toml"', ("--trainer", "bpr"), "bpr", {"factors": 16}),
        ('trainer = "bpr"\nparam = {iterations = 5}', ("--config", "als.toml"), "als", {"alpha": 3, "factors": 16}),
    ],
)
def test_hyper_parameters(
    repo: Path, content: str, arguments: tuple[str, ...], trainer: str, parameters: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """They are merged by name, and go when another trainer is asked for."""
    (repo / "als.toml").write_text('trainer = "als"\nalpha = 3\nfactors = 16\n')
    write(repo, f"[train]\n{content}")
    monkeypatch.chdir(repo)
    chosen = []

    @click.command(cls=ConfiguredCommand)
    @trainer_options
    def show(choice: Any, as_json: bool) -> None:
        chosen.append((choice.name, choice.parameters))

    show.main(list(arguments), standalone_mode=False)
    assert chosen == [(trainer, parameters)]


def test_every_command_with_these_options_reads_the_file(logged: Path) -> None:
    """Whatever of the file is an option of theirs is their value."""
    write(logged, FILE)
    expected = options(train, "--repo", logged, "--model", "m")
    needed: dict[click.Command, tuple[str, ...]] = {
        evaluate: (),
        profile: (),
        fold_in: ("--entity", "user"),
        import_vectors: ("--model", "m"),
    }
    for command, arguments in needed.items():
        found = options(command, "--repo", logged, *arguments)
        shared = [p.name for p in command.params if isinstance(p, Setting) and p.name is not None]
        assert {"user_column", "id_type"} <= set(shared)
        assert {name: found[name] for name in shared} == {name: expected[name] for name in shared}
        if command is not import_vectors:
            assert found["interactions"] == f"{logged}/log.csv"


def test_a_version_is_evaluated_although_the_file_names_a_log(logged: Path, tmp_path: Path, command: Command) -> None:
    """--model asks for a version; --interactions or the file alone for a training, with the model's own sections."""
    write(logged, FILE)
    assert command("train", "--repo", logged, "--model", "m", "--no-evaluate", "--quiet").code == 0
    (tmp_path / "test.csv").write_text("customer_no,sku,at,what\nc1,s1,2026-10-01,buy\nc2,s5,2026-10-01,view\n")
    place = ("evaluate", "--repo", logged, "--json", "--quiet")
    version = command(*place, "--model", "m", "--test", tmp_path / "test.csv", "--version", "latest")
    assert version.code == 0, version.err
    assert json.loads(version.out)["model"] == "m"
    answer = command(*place)
    assert answer.code == 0, answer.err
    trained = json.loads(answer.out)
    assert (trained["trainer"], trained["config"]["alpha"]) == ("als", 20.0)
    log = ("--interactions", logged / "log.csv", "--model", "m")
    assert json.loads(command(*place, *log, "--like", "latest").out)["config"] == trained["config"]
    assert command(*place, *log).err.startswith("error: name either --interactions, to train and evaluate, or --model")
    refused = command(*place, "--model", "m", "--test", tmp_path / "test.csv", "--trainer", "als")
    assert refused.err == "error: --trainer has no effect with --model, as nothing is trained\n"


def test_an_engine_that_is_typed_needs_nothing_of_the_other(logged: Path, command: Command) -> None:
    """What the file says of Spark has no effect then, and contradicts itself otherwise."""
    write(logged, FILE + 'engine = "local"\nspark_conf = { "spark.ui.enabled" = false }\n')
    place = ("train", "--repo", logged, "--model", "m", "--no-evaluate", "--quiet")
    contradiction = command(*place)
    assert (contradiction.code, contradiction.err) == (
        2, "error: --spark-conf has no effect with --engine local; leave out one of them\n"
    )  # fmt: skip
    assert command(*place, "--engine", "local").code == 0


PASSWORD = "hunter2"  # noqa: S105
WRONG = {
    "not TOML": ("[log", "embeddings.toml is not TOML: "),
    "key": ("[log]\nuser_colum = 'u'", "[log] has no key 'user_colum'; there are interactions, query, user_column, "),
    "near name": ("[log]\nuser_colum = 'u'", "did you mean 'user_column'?"),
    "name of the option": ("[log]\nuser-column = 'u'", "did you mean 'user_column'?"),
    "section of the key": ("[log]\ntrainer = 'als'", "[log] has no key 'trainer'; it belongs in [train]"),
    "own section of the key": (
        "[models.m.log]\ntrainer = 'als'",
        "[models.m.log] has no key 'trainer'; it belongs in [models.m.train]",
    ),
    "no section": ("user_column = 'u'", "'user_column' is outside of its section; write it below [log]"),
    "section": (
        "[logs]\nuser_column = 'u'",
        "no section [logs]; there are [log], [train], and [models.NAME.log] and [models.NAME.train] for one model; "
        "did you mean 'log'?",
    ),
    "section of a model": ("[models.m.trein]\nseed = 1", "no section [models.m.trein]; there are [models.m.log], "),
    "no table": ("log = 3", "log must be a table, not 3"),
    "no model": ("[models]\nm = 1", "models.m must be the tables [models.m.log] and [models.m.train], not 1"),
    "model without section": ("[models.m]\nseed = 1", "'seed' is outside of its section; write it below [models.m.tr"),
    "text": ("[log]\nuser_column = 3", "[log] user_column: expected text in quotes, got 3"),
    "flag": ("[log]\ndrop_duplicates = 'yes'", "[log] drop_duplicates: expected true or false, got 'yes'"),
    "number": ("[train]\nfactors = '8'", "[train] factors: expected a whole number, got '8'"),
    "true": ("[train]\nfactors = true", "[train] factors: expected a whole number, got true"),
    "range": ("[log]\nmin_user_interactions = 0", "[log] min_user_interactions: 0 is not in the range x>=1."),
    "choice": ("[log]\non_bad_rows = 'skip'", "[log] on_bad_rows: 'skip' is not one of 'error', 'drop'."),
    "kind of choice": ("[log]\non_bad_rows = 1", '[log] on_bad_rows: expected one of "error", "drop", got 1'),
    "time": ("[log]\nsince = 'soon'", "[log] since: 'soon' is not a time; expected e.g. 2026-01-31"),
    "hour": ("[log]\nsince = 07:30:00", "[log] since: expected a time, got 07:30:00"),
    "duration": ("[log]\nhalf_life = '3 moons'", "[log] half_life: '3 moons' is not a duration"),
    "weight": ("[log]\nevent_weights = {buy = 'x'}", "[log] event_weights: the weight of 'buy' must be a number"),
    "weights": ("[log]\nevent_weights = 'buy'", "[log] event_weights: --event-weights 'buy': expected TYPE=WEIGHT"),
    "type": ("[train]\nattribute_types = {zip = 'str'}", "the type of 'zip' must be one of text, int, float, "),
    "parameter": ("[train]\nparam = ['alpha']", "[train] param: --param 'alpha': expected NAME=VALUE"),
    "parameters": ("[train]\nparam = [1]", '[train] param: expected a table, or a list of texts "NAME=VALUE", got '),
    "factors": ("[train]\nparam = {factors = 8}", "[train] param: write factors as a key of [train]"),
    "config": ("[train]\nconfig = 'none.toml'", "[train] --config {repo}/none.toml: No such file or directory"),
    "no name": ("[log]\nitems = ''", "[log] items: expected the name of a file, got ''"),
    "no character of a name": ('[log]\ninteractions = "a\\u0000"', "interactions: expected the name of a file, got "),
    "password": (
        f"[log]\ninteractions = 'postgresql://u:{PASSWORD}@h/d'",
        "[log] interactions: the file is no place for a password; set a variable of the environment, and "
        "write ${{NAME}} where the password was",
    ),
    "password as a parameter": (f"[log]\nusers = 'snowflake://h?password={PASSWORD}'", "[log] users: the file is no "),
    "password under a wrong key": (f"[train]\nseed = 'postgresql://u:{PASSWORD}@h/d'", "[train] seed: the file is no "),
    "secret": (
        f"[train]\nspark_conf = {{'spark.hadoop.fs.s3a.secret.key' = '{PASSWORD}'}}",
        "[train] spark_conf: spark.hadoop.fs.s3a.secret.key is a secret, and the file is no place for one",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("content", "message"), WRONG.values(), ids=list(WRONG))
@pytest.mark.parametrize("name", ["train", "profile"])
def test_refused(logged: Path, command: Command, content: str, message: str, name: str) -> None:
    """One line that names file, section and key; nothing is trained, and no password is shown."""
    write(logged, content)
    log = ["--model", "m", "--interactions"] if name == "train" else []
    answer = command(name, "--repo", logged, *log, logged / "log.csv")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(f"error: {logged}/embeddings.toml")
    assert answer.err.count("\n") == 1
    assert message.format(repo=logged) in answer.err
    assert PASSWORD not in answer.err
    assert not (logged / "data").exists()


def test_a_mark_at_the_start(logged: Path, command: Command) -> None:
    """Editors of Windows write one before UTF-8, in both kinds of files."""
    (logged / "als.toml").write_text("trainer = 'als'\n", "utf-8-sig")
    (logged / "embeddings.toml").write_text("[train]\nconfig = 'als.toml'\n", "utf-8-sig")
    found = options(train, "--repo", logged, "--model", "m", "--interactions", logged / "log.csv")
    assert found["trainer"] == "als"


def test_help_does_not_read_the_file(logged: Path, command: Command) -> None:
    """However wrong it is."""
    write(logged, "[")
    assert command("train", "--repo", logged, "--help").code == 0


def test_paths_are_relative_to_the_file(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files, globs, and paths of SQLite, Delta and Iceberg; addresses and standard input stay."""
    monkeypatch.setenv("SECRET", "x")
    for written, expected in {
        "logs/*.csv": f"{repo}/logs/*.csv",
        "/data/log.csv": "/data/log.csv",
        "sqlite:clicks.db": f"sqlite:{repo}/clicks.db",
        "sqlite:///data/clicks.db": "sqlite:/data/clicks.db",
        "delta:table": f"delta:{repo}/table",
        "delta:s3://bucket/table": "delta:s3://bucket/table",
        "iceberg:t/v1.metadata.json": f"iceberg:{repo}/t/v1.metadata.json",
        "iceberg:shop.orders": "iceberg:shop.orders",
        "s3://bucket/log": "s3://bucket/log",
        "feast:orders": "feast:orders",
        "postgresql://u:${SECRET}@h/d": "postgresql://u:${SECRET}@h/d",
        "-": "-",
    }.items():
        write(repo, f"[log]\ninteractions = '{written}'")
        assert options(train, "--repo", repo, "--model", "m")["interactions"] == expected


def test_versions_that_record_nothing(shop: Shop, command: Command) -> None:
    """One that was not trained here, and a model without a version."""
    place = ("profile", shop.repo.path / "feature_store.yaml", "--repo", shop.repo.path, "--like", "latest")
    version = shop.artifact.manifest.version
    assert command(*place).err.startswith(
        f"error: version {version} of model 'shop' does not record how a log was read (trainer 'random'); "
    )
    assert command(*place, "--model", "other").err.startswith("error: no trained version of model 'other' under ")
    assert command(*place[:-1], "live").err == (
        "error: no version of model 'shop' is live; run feast-embeddings publish\n"
    )


def test_the_example_of_a_new_repo(repo: Path) -> None:
    """It changes nothing as it is, and all of it is valid."""
    example = (ROOT / "feature_repo" / "embeddings.toml").read_text()
    at = ("--repo", repo, "--interactions", "x", "--model", "shop")
    without = options(train, *at)
    write(repo, example)
    assert options(train, *at) == without
    write(repo, re.sub(r"^# (?=\[|\w+ = )", "", example, flags=re.MULTILINE))
    uncommented = options(train, *at)
    assert (uncommented["factors"], uncommented["half_life"]) == (128, timedelta(days=90))
    assert uncommented["event_weights"] == {"view": 1, "cart": 3, "purchase": 5}


def test_attributes_by_either_name(logged: Path, command: Command) -> None:
    """The column of ids in a table of items is called as in the log, or item_id; not both."""
    write(logged, FILE)
    place = ("train", "--repo", logged, "--model", "m", "--no-evaluate", "--quiet", "--no-align", "--items")
    for name, header in (("own", "sku,zip"), ("ours", "item_id,zip"), ("both", "sku,item_id,zip")):
        rows = (logged / "items.csv").read_text().splitlines()[1:]
        twice = [row.split(",")[0] + "," + row for row in rows] if name == "both" else rows
        (logged / f"{name}.csv").write_text("\n".join([header, *twice]))
    for name in ("own", "ours"):
        assert command(*place, logged / f"{name}.csv").code == 0
    ours, own = (load_artifact(logged / "data", "m", version).table("item") for version in ("latest", "previous"))
    assert ours["zip"].to_pylist() == own["zip"].to_pylist() == [id[1:] for id in own["item_id"].to_pylist()]
    refused = command(*place, logged / "both.csv")
    expected = f"error: {logged}/both.csv has two columns of ids, 'sku' and 'item_id'; drop one of them\n"
    assert (refused.code, refused.err) == (2, expected)
    looked = command("profile", "--repo", logged, "--items", logged / "ours.csv", "--json")
    assert json.loads(looked.out)["not_in_catalogue"] == 0, looked.err
    assert command("profile", "--repo", logged, "--items", logged / "both.csv").err == expected
    (logged / "none.csv").write_text("id,zip\n1,2\n")
    lacks = command("profile", "--repo", logged, "--items", logged / "none.csv")
    assert (lacks.code, lacks.err) == (
        2,
        f"error: {logged}/none.csv has no column 'sku'; its columns are 'id', 'zip'\n",
    )


def test_fold_in_like_its_version(shop: Shop, tmp_path: Path, command: Command) -> None:
    """The log is read as the version's was."""
    repo = shop.repo.path
    (repo / "log.csv").write_text(LOG)
    (repo / "items.csv").write_text("sku,zip\ns1,1\n")
    arguments = [a.format(repo=repo) for a in TYPED]
    assert command("train", "--repo", repo, "--model", "m", *arguments, "--no-evaluate", "--quiet").code == 0
    apply(shop.repo, "m")
    out = tmp_path / "out.parquet"
    place = ("fold-in", "--repo", repo, "--model", "m", "--entity", "user", "--version", "latest", "--output", out)
    tables = []
    for how in (arguments[2 : arguments.index("--items")], ["--like", "latest"]):
        answer = command(*place, "--interactions", repo / "log.csv", *how)
        assert answer.code == 0, answer.err
        tables.append(pq.read_table(out).drop_columns(["created_timestamp"]))
    assert tables[0].equals(tables[1])

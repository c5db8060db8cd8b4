"""Probes: scores are those of scikit-learn, and say whether a model of the earlier vectors goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from sklearn.metrics import r2_score, roc_auc_score

from embedding_trainers import probes
from embedding_trainers.commands.train import train
from embedding_trainers.probes import Labels, ProbeScore, read_labels, score_probe
from feast_embeddings.errors import InputError

N, DIM = 400, 8
IDS: dict[Any, str | None] = {"user": "user_id", "item": "item_id"}


def table(vectors: npt.NDArray[np.floating]) -> pa.Table:
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(vectors.astype(np.float32).ravel()), DIM)
    return pa.table({"user_id": [f"u{n}" for n in range(len(vectors))], "embedding": embedding})


def scored(values: pa.Array, new: npt.NDArray[np.floating], old: npt.NDArray[np.floating]) -> ProbeScore:
    labels = Labels("user", pa.array([f"u{n}" for n in range(N)]), values)
    found = score_probe("churn", "churned", labels, table(new), table(old))
    assert isinstance(found, ProbeScore), found
    return found


@pytest.fixture
def vectors() -> npt.NDArray[np.float64]:
    return np.random.default_rng(0).standard_normal((N, DIM))


def labels_of(vectors: npt.NDArray[np.float64], kind: str) -> pa.Array:
    noisy = vectors[:, 0] + 0.5 * np.random.default_rng(1).standard_normal(N)
    if kind == "number":
        return pa.array(noisy)
    edges = [0.0] if kind == "two" else [-0.5, 0.5]
    return pa.array([f"class {n}" for n in np.searchsorted(edges, noisy)])


@pytest.mark.parametrize("kind", ["two", "three", "number"])
def test_a_rotation_breaks_what_was_trained(vectors: npt.NDArray[np.float64], kind: str) -> None:
    """A model does not go on with rotated vectors, and is as good as before once it is trained again."""
    values = labels_of(vectors, kind)
    rotation = np.linalg.qr(np.random.default_rng(2).standard_normal((DIM, DIM)))[0]
    same, turned = scored(values, vectors, vectors), scored(values, vectors @ rotation, vectors)
    assert same.before == same.after == same.again > same.chance + 0.3
    assert same.margin == 0
    assert (turned.before, turned.n) == (same.before, N // 2)
    assert turned.after < turned.before - turned.margin - 0.1
    assert turned.again == pytest.approx(same.before, abs=0.05)


@pytest.mark.parametrize("kind", ["two", "three", "number"])
def test_scores_are_those_of_scikit_learn(kind: str) -> None:
    """Area under the curve, its mean over classes against the rest, and R²; ties in what is said count half."""
    rng = np.random.default_rng(3)
    if kind == "number":
        truth, said = rng.standard_normal((2, 90))
        found = probes._score(truth[:, None], said[:, None], True)
        assert float(found) == pytest.approx(r2_score(truth, said))
        return
    n = 2 if kind == "two" else 3
    truth = rng.integers(0, n, 90)
    said = rng.dirichlet(np.ones(n), 90).round(1)
    said /= said.sum(axis=1, keepdims=True)
    wanted = (truth[:, None] == np.arange(n)).astype(float)
    columns = slice(1, None) if n == 2 else slice(None)
    expected = roc_auc_score(truth, said[:, 1]) if n == 2 else roc_auc_score(truth, said, multi_class="ovr")
    assert float(probes._score(wanted[:, columns], said[:, columns], False)) == pytest.approx(expected)


def test_the_margin_covers_noise(vectors: npt.NDArray[np.float64]) -> None:
    """Vectors that differ a little score within the margin of each other."""
    near = vectors + 0.05 * np.random.default_rng(4).standard_normal(vectors.shape)
    found = scored(labels_of(vectors, "two"), near, vectors)
    assert 0 < found.margin < 0.05
    assert abs(found.after - found.before) <= 2 * found.margin


@pytest.mark.parametrize(
    ("columns", "kind", "n"),
    [
        ({"user_id": ["a", "b", "c"], "label": [1.5, None, 2.0]}, "number", 2),
        ({"user_id": ["a", "b"], "label": [True, False]}, "class", 2),
        ({"item_id": [1, 2], "label": [0, 1]}, "class", 2),
        ({"item_id": list(range(30)), "label": list(range(30))}, "number", 30),
        ({"user_id": ["a"], "label": ["x"]}, "class", 1),
        ({"user_id": ["a", "b", "c"], "label": [1.5, float("nan"), 2.0]}, "number", 2),
    ],
)
def test_labels(tmp_path: Path, columns: dict[str, Any], kind: str, n: int) -> None:
    """Fractions, and whole numbers of many values, are numbers; all else is a class. Nulls are left out."""
    pq.write_table(pa.table(columns), tmp_path / "labels.parquet")
    labels = read_labels("p", f"{tmp_path / 'labels.parquet'}:label", IDS)
    assert (labels.is_number, len(labels.ids), len(labels.values)) == (kind == "number", n, n)
    assert f"{labels.entity}_id" in columns


@pytest.mark.parametrize(
    ("columns", "where", "message"),
    [
        ({"user_id": ["a"], "label": [1]}, "FILE:other", r"--probe p: .* has no column 'other'; it has label"),
        ({"user_id": ["a"], "item_id": ["b"], "label": [1]}, "FILE:label", "has ids of users and of items; leave one"),
        (
            {"label": [1]},
            "FILE:label",
            "--probe p: .* has no column of ids; expected 'user_id' or 'item_id'",
        ),
        ({"item_id": ["a", "a"], "label": [1, 2]}, "FILE:label", "--probe p: .*'item_id': 1 of 2 rows repeat an id"),
        ({"user_id": ["a"], "label": [float("inf")]}, "FILE:label", "column 'label' of .* has an infinite number"),
        ({"user_id": ["a"], "label": [[1]]}, "FILE:label", "labels of type list<.*: int64> cannot be predicted"),
        ({"user_id": ["a"], "label": [1]}, "none.parquet:label", "none.parquet"),
        ({"user_id": ["a"], "label": [1]}, "label", "expected NAME=FILE:COLUMN, e.g. churn=labels.parquet:churned"),
    ],
)
def test_labels_refused(tmp_path: Path, columns: dict[str, Any], where: str, message: str) -> None:
    """With the name of the probe."""
    path = tmp_path / "labels.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(InputError, match=message):
        read_labels("p", where.replace("FILE", str(path)), IDS)


def test_too_few_labels(vectors: npt.NDArray[np.float64]) -> None:
    """Ids that only one version has do not count, nor do classes of few."""
    names = pa.array([f"u{n}" for n in range(30)] + [f"x{n}" for n in range(30)])
    labels = Labels("user", names, pa.array(["a", "b"] * 30))
    assert score_probe("p", "l", labels, table(vectors), table(vectors)) == (
        "too few labels: 30 ids that both versions know, of 2 values"
    )
    labels = Labels("user", pa.array([f"u{n}" for n in range(N)]), pa.array(["a"] * (N - 5) + ["b"] * 5))
    assert str(score_probe("p", "l", labels, table(vectors), table(vectors))).endswith("of 1 values")


def test_the_command(repo: Path, tmp_path: Path) -> None:
    """The second version is scored; embeddings.toml names the table relative to itself, and --like repeats it."""
    rng = np.random.default_rng(5)
    groups = np.arange(120) % 4
    users, items = np.nonzero(rng.random((120, 60)) < np.where(groups[:, None] == np.arange(60) % 4, 0.5, 0.05))
    pq.write_table(
        pa.table({"user_id": [f"u{n}" for n in users], "item_id": [f"i{n}" for n in items]}), tmp_path / "log.parquet"
    )
    (repo / "labels.csv").write_text("user_id,group\n" + "".join(f"u{n},g{g}\n" for n, g in enumerate(groups)))
    (repo / "embeddings.toml").write_text('[train.probe]\ngroup = "labels.csv:group"\n')
    common = ["--repo", repo, "--model", "m", "--interactions", tmp_path / "log.parquet", "--no-evaluate", "--threads"]
    arguments = [*map(str, common), "1", "--trainer", "svd", "--factors", "8"]

    def run(*more: str) -> Any:
        done = CliRunner().invoke(train, [*arguments, *more], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done

    first = json.loads(run("--json").stdout)
    assert (first["probes"], first["probe_scores"]) == ({"group": f"{repo / 'labels.csv'}:group"}, [])
    second = run("--seed", "1")
    assert "probe group: a model of the earlier vectors scores 0.99" in second.stdout
    (repo / "embeddings.toml").unlink()
    third = json.loads(run("--like", "latest", "--json").stdout)
    assert third["probes"] == first["probes"]
    [score] = third["probe_scores"]
    assert (score["name"], score["metric"], score["n"]) == ("group", "roc_auc", 60)
    newer = json.loads(
        run("--like", "latest", "--if-changed", "--json", "--probe", f"g={repo}/labels.csv:group").stdout
    )
    assert (newer["unchanged"], list(newer["probes"])) == (False, ["g"])
    twice = CliRunner().invoke(train, [*arguments, "--probe", "x=a.csv:a", "--probe", "x=a.csv:b"])
    assert "--probe names 'x' twice" in str(twice.exception)
    failed = CliRunner().invoke(train, [*arguments, "--probe", "x=labels.csv"])
    assert isinstance(failed.exception, InputError)
    assert "--probe x=labels.csv: expected NAME=FILE:COLUMN" in str(failed.exception)

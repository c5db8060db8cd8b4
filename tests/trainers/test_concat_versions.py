"""Versions of trainers side by side: what they keep, follow on, and what they are told on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.conftest import Command

from embedding_trainers.fold_in import fold_in
from embedding_trainers.search import Search
from embedding_trainers.train import train_model
from embedding_trainers.trainer import RunOptions
from feast_embeddings.artifact import Artifact, embedding_matrix, load_artifact
from feast_embeddings.demo import generate_shop
from feast_embeddings.errors import InputError
from feast_embeddings.repo import init_repo

SMALL = {"parts": ["softmax", "als"], "dims": [6, 4], "weights": [1, 2], "settings": {"softmax": {"iterations": 3}}}
BLOCKS = (slice(0, 6), slice(6, 10))


@pytest.fixture(scope="module")
def log() -> pa.Table:
    """The interactions of a small shop."""
    table: pa.Table = generate_shop(0, n_users=300, n_items=80, n_interactions=6_000).interactions
    return table


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory, log: pa.Table) -> tuple[Path, list[Artifact]]:
    """A repo with a version of most of the log, one of all of it that follows on it, and the same not aligned."""
    repo = tmp_path_factory.mktemp("repo")
    init_repo(repo)
    runs: list[tuple[pa.Table, int, str | None]] = [(log.slice(0, 5_400), 1, None), (log, 2, "latest"), (log, 2, None)]
    return repo, [trained(repo, part, seed=seed, align_to=to).artifact for part, seed, to in runs]


def trained(repo: Path, log: pa.Table, *, seed: int = 1, **changed: Any) -> Any:
    given: dict[str, Any] = {"trainer": "concat", "parameters": SMALL, "evaluation": False} | changed
    return train_model(repo, "m", log, options=RunOptions(seed=seed, threads=1), **given)


def vectors(artifact: Artifact, entity: Any) -> npt.NDArray[np.float64]:
    found: npt.NDArray[np.float64] = embedding_matrix(artifact.table(entity)).astype(np.float64)
    return found


def test_manifest(versions: tuple[Path, list[Artifact]]) -> None:
    """It keeps all that the parts were trained with, what their vectors are multiplied by, and the sum of dims."""
    manifest = versions[1][0].manifest
    config = manifest.trainer.config

    assert (manifest.dim, config["factors"], config["dims"], config["weights"]) == (10, 10, [6, 4], [1, 2])
    assert config["settings"]["softmax"]["iterations"] == 3
    assert config["settings"]["als"]["alpha"] > 0
    assert np.shape(config["scales"]) == (2, 2)


def test_each_part_turns_by_itself(versions: tuple[Path, list[Artifact]]) -> None:
    """Aligned and not aligned differ by an orthogonal matrix for each part, and by nothing across them."""
    _, (_, aligned, alone) = versions
    assert aligned.manifest.aligned_to is not None
    assert (aligned.manifest.alignment_cosine or 0) > (aligned.manifest.alignment_cosine_before or 1)
    for block in BLOCKS:
        before, after = (
            np.concatenate([vectors(each, entity)[:, block] for entity in ("user", "item")])
            for each in (alone, aligned)
        )
        turn = np.linalg.lstsq(before, after, rcond=None)[0]
        np.testing.assert_allclose(before @ turn, after, atol=1e-5)
        np.testing.assert_allclose(turn @ turn.T, np.eye(len(turn)), atol=1e-5)


def test_users_of_the_training_fold_in(versions: tuple[Path, list[Artifact]], log: pa.Table) -> None:
    """In a version that was turned, too."""
    _, (_, aligned, _) = versions
    folded = fold_in(aligned, "user", log)
    table = aligned.table("user")
    places = {id: n for n, id in enumerate(table["user_id"].to_pylist())}
    expected = vectors(aligned, "user")[[places[id] for id in folded.table["user_id"].to_pylist()]]

    np.testing.assert_allclose(embedding_matrix(folded.table), expected, rtol=0, atol=0.02 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"parts": ["als", "svd"], "settings": {}}, "6 dimensions of als + 4 dimensions of svd"),
        ({"dims": [4, 6]}, "4 dimensions of softmax + 6 dimensions of als"),
    ],
)
def test_other_parts_are_another_space(
    versions: tuple[Path, list[Artifact]], log: pa.Table, changed: dict[str, Any], told: str
) -> None:
    """Asked to align to such a version, it is an error that says both."""
    repo, artifacts = versions
    before = artifacts[1].manifest.version
    reason = f"has 6 dimensions of softmax + 4 dimensions of als, the new one {told}"
    with pytest.raises(InputError) as error:
        trained(repo, log, parameters=SMALL | changed, align_to=before)
    assert f"{reason}; train with the same parts, or start a new space with --no-align" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_version_of_another_trainer_is_another_space(tmp_path: Path, log: pa.Table) -> None:
    """As long vectors of one trainer have no parts to turn."""
    init_repo(tmp_path)
    trained(tmp_path, log, trainer="svd", parameters={"factors": 10})
    manifest = trained(tmp_path, log).artifact.manifest

    assert manifest.aligned_to is None
    assert "has vectors of svd, the new one 6 dimensions of softmax + 4 dimensions" in manifest.new_space_reason


def test_what_needs_one_trainer_is_refused(tmp_path: Path, log: pa.Table) -> None:
    """A search and an early stop have nothing to look for."""
    init_repo(tmp_path)
    with pytest.raises(InputError, match="nothing to search: the trainer's parameters are all given, or none can be"):
        trained(tmp_path, log, search=Search(2))
    with pytest.raises(InputError, match="early stop: this trainer has no iterations to stop; leave --patience out"):
        trained(tmp_path, log, patience=2)


def test_command_line(tmp_path: Path, log: pa.Table, command: Command) -> None:
    """A file has tables, a value on the command line dots; what is there goes before the file, and --like takes all."""
    init_repo(tmp_path / "repo")
    pq.write_table(log, tmp_path / "log.parquet")
    (tmp_path / "two.toml").write_text(
        'trainer = "concat"\nparts = ["svd", "als"]\ndims = [3, 2]\nsettings.als = { alpha = 7, iterations = 2 }\n'
    )
    common = ["train", "--repo", tmp_path / "repo", "--model", "m", "--interactions", tmp_path / "log.parquet"]
    common += ["--no-evaluate", "--json", "--threads", "1"]
    params = ["--param", "settings.als.iterations=4", "--param", "settings.svd.refinements=1", "--param", "weights=1,3"]
    first = command(*common, "--config", tmp_path / "two.toml", *params)
    assert first.code == 0, first.err
    config = json.loads(first.out)["trainer"]["config"]
    assert (config["parts"], config["dims"], config["weights"]) == (["svd", "als"], [3, 2], [1, 3])
    assert {"alpha": 7, "iterations": 4}.items() <= config["settings"]["als"].items()
    assert config["settings"]["svd"]["refinements"] == 1

    like = command(*common, "--like", "latest")
    assert like.code == 0, like.err
    assert json.loads(like.out)["trainer"]["config"] == config
    assert load_artifact(tmp_path / "repo/data", "m").manifest.aligned_to == json.loads(first.out)["version"]

    wrong = command(*common, "--trainer", "concat", "--param", "parts=als,svd", "--param", "parts.als=1")
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
    assert "parameter 'parts.als': 'parts' is a value already, 'als,svd'" in wrong.err


def test_settings_of_a_repo(tmp_path: Path, log: pa.Table, command: Command) -> None:
    """embeddings.toml says it as the file of --config does."""
    init_repo(tmp_path)
    pq.write_table(log, tmp_path / "log.parquet")
    (tmp_path / "embeddings.toml").write_text(
        '[train]\ntrainer = "concat"\nfactors = 6\n\n'
        '[train.param]\nparts = ["svd", "als"]\nsettings.als.iterations = 2\n'
    )
    found = command(
        *("train", "--repo", tmp_path, "--model", "m", "--interactions", tmp_path / "log.parquet"),
        *("--no-evaluate", "--json", "--param", "weights=1,2"),
    )
    assert found.code == 0, found.err
    config = json.loads(found.out)["trainer"]["config"]
    assert (config["dims"], config["weights"], config["settings"]["als"]["iterations"]) == ([3, 3], [1, 2], 2)

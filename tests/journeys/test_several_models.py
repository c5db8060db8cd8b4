"""Several models in one repo and several projects in one store: listed, apart, and removed one by one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from tests.support.job import TIMEOUT
from tests.support.shop import AS_OF, apply, qdrant, write_version

from feast_embeddings import EmbeddingStore, publish_artifact
from feast_embeddings.artifact import Artifact
from feast_embeddings.errors import InputError
from feast_embeddings.repo import Repo, init_repo

MODELS = ["films", "shop"]


def run(command: str, *arguments: str) -> str:
    program = str(Path(sys.executable).with_name(command))
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=TIMEOUT, check=True).stdout


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    """Two models with the same ids, published, of the shop a second version."""
    made = init_repo(tmp_path / "repo")
    for seed, model in enumerate(MODELS):
        write_version(made.data, model=model, seed=seed)
    run("feast", "-c", str(made.path), "apply")
    for model in MODELS:
        run("feast-embeddings", "publish", "--repo", str(made.path), "--model", model, "--quiet")
    return made


def assert_served(repo: Repo, artifact: Artifact) -> None:
    store = EmbeddingStore(repo.feature_store(), artifact.manifest.model)
    expected = np.stack(artifact.table("user")["embedding"].to_numpy())
    ids = artifact.table("user")["user_id"].to_pylist()
    np.testing.assert_array_equal(store.user_embeddings(ids).vectors, expected)
    items = artifact.table("item")
    scores = np.stack(items["embedding"].to_numpy()) @ expected[3] + items["bias"].to_numpy()
    assert store.rank("u-3", k=40, exclude_seen=False).ids == items["item_id"].take(np.argsort(-scores)).to_pylist()


def test_models_are_listed_and_stand_apart(repo: Repo) -> None:
    """All versions in one list; a rollback and a prune of one model leave the other as it is."""
    from feast_embeddings.artifact import load_artifact

    first = {model: load_artifact(repo.data, model) for model in MODELS}
    for artifact in first.values():
        assert_served(repo, artifact)
    second = write_version(repo.data, model="shop", seed=7, as_of=AS_OF.replace(month=6))
    place = "--repo", str(repo.path)
    run("feast-embeddings", "publish", *place, "--model", "shop", "--quiet", "--allow-new-space")
    assert_served(repo, second)
    assert_served(repo, first["films"])

    listed = json.loads(run("feast-embeddings", "versions", *place, "--json"))["models"]
    assert {one["model"]: (one["live"], len(one["versions"])) for one in listed} == {
        "films": (first["films"].manifest.version, 1),
        "shop": (second.manifest.version, 2),
    }
    text = run("feast-embeddings", "versions", *place).splitlines()
    assert [line for line in text if line.endswith(":")] == ["films:", "shop:"]
    assert len([line for line in text if line.startswith("* 2")]) == 2

    run("feast-embeddings", "rollback", *place, "--model", "shop")
    assert_served(repo, first["shop"])
    run("feast-embeddings", "prune", *place, "--model", "shop", "--keep", "0")
    for artifact in first.values():
        assert_served(repo, artifact)


def test_one_model_is_removed(repo: Repo) -> None:
    """Its data is deleted, `feast apply` takes its collections away, and the other model's answers stay."""
    from feast_embeddings.artifact import load_artifact

    kept = load_artifact(repo.data, "shop")
    shutil.rmtree(repo.data / "films")
    run("feast", "-c", str(repo.path), "apply")
    assert_served(repo, kept)
    store = repo.feature_store()
    engine = qdrant(store).engine(store.config)
    assert not [alias for alias in engine.aliases() if "films" in alias]
    assert len(engine.aliases()) == 2
    with pytest.raises(InputError, match="model 'films' are not in the registry"):
        EmbeddingStore(store, "films").rank("u-3")


def test_projects_in_one_store_stand_apart(tmp_path: Path) -> None:
    """Two repos with a model of the same name and the same ids share a store; one goes, the other stays."""
    artifacts, repos = [], []
    for number, project in enumerate(("a", "a_b")):
        made = init_repo(tmp_path / project)
        config = yaml.safe_load((made.path / "feature_store.yaml").read_text())
        config["project"], config["online_store"]["path"] = project, str(tmp_path / "common")
        (made.path / "feature_store.yaml").write_text(yaml.safe_dump(config))
        artifacts.append(write_version(made.data, seed=number))
        publish_artifact(apply(made), artifacts[-1])
        repos.append(made)
    for made, artifact in zip(repos, artifacts, strict=True):
        assert_served(made, artifact)
    repos[0].feature_store().teardown()  # type: ignore[no-untyped-call]
    assert_served(repos[1], artifacts[1])
    store = repos[1].feature_store()
    assert len(qdrant(store).engine(store.config).aliases()) == 2

"""Where a repo may be, and what may be in its feature_store.yaml: said plainly where it cannot work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from feast import FeatureStore
from tests.conftest import Command
from tests.support.shop import write_version

from feast_embeddings.errors import InputError
from feast_embeddings.repo import Repo, init_repo


@pytest.mark.parametrize("place", ["s3://bucket/repo", "gs://bucket/repo", "https://host/repo"])
def test_a_uri_is_no_folder(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    """As text, as a path that has lost a slash, and on the command line; no folder of that name is made."""
    monkeypatch.chdir(tmp_path)
    for path in (place, Path(place)):
        for function in (Repo.open, init_repo):
            with pytest.raises(InputError, match="is not a folder of this machine"):
                function(path)
    for arguments in (
        ("init", place),
        *((name, "--repo", place) for name in ("versions", "publish", "doctor", "serve")),
    ):
        answer = command(*arguments)
        assert (answer.code, answer.err.count("\n")) == (2, 1)
        assert f"error: {place.partition(':')[0]}:/" in answer.err
    assert list(tmp_path.iterdir()) == []


def test_a_registry_at_a_uri_needs_feasts_own_store(tmp_path: Path) -> None:
    """Ours is for files, and would make a folder of the address."""
    repo = init_repo(tmp_path / "repo")
    file = repo.path / "feature_store.yaml"
    file.write_text(file.read_text().replace("data/registry.db", "s3://bucket/registry.db"))
    with pytest.raises(InputError, match=r"registry.path is s3://bucket/registry.db, .* leave out registry_store_type"):
        FeatureStore(repo_path=str(repo.path)).list_feature_views()
    assert sorted(path.name for path in repo.path.iterdir()) == [
        "definitions.py",
        "embeddings.toml",
        "feature_store.yaml",
    ]


def test_feasts_remote_store_holds_no_vectors(tmp_path: Path, command: Command) -> None:
    """Every command that needs them says what is configured, and where they are."""
    repo = init_repo(tmp_path / "repo")
    write_version(repo.data)
    file = repo.path / "feature_store.yaml"
    config = yaml.safe_load(file.read_text()) | {"online_store": {"type": "remote", "path": "http://localhost:6566"}}
    file.write_text(yaml.safe_dump(config))
    for name, *arguments in (["rank", "u-1"], ["publish"], ["publish", "--dry-run"], ["versions"], ["serve"]):
        answer = command(name, "--repo", repo.path, *arguments)
        assert (answer.code, answer.err.count("\n")) == (2, 1), answer.err
        assert "online_store.type is 'remote': the vectors are behind a Feast server" in answer.err
    report = command("doctor", "--repo", repo.path)
    assert report.code == 1
    assert "online_store.type is 'remote', not feast_embeddings.QdrantEmbeddingOnlineStore" in report.out


def test_the_template_warns_of_nothing(tmp_path: Path) -> None:
    """Feast's own command says nothing of settings that are there on purpose."""
    repo = init_repo(tmp_path / "repo")
    feast = Path(sys.executable).parent / "feast"
    said = subprocess.run([feast, "-c", repo.path, "apply"], check=True, capture_output=True, text=True)
    assert "serve_features_while_materializing" not in said.stdout + said.stderr

"""A version is its name, or live, latest or previous, wherever one is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from tests.conftest import Command
from tests.support.shop import AS_OF, Shop, alignment_to, write_version

from feast_embeddings import publish_artifact
from feast_embeddings.artifact import Artifact, load_artifact
from feast_embeddings.errors import InputError


@pytest.fixture
def versions(shop: Shop) -> list[Artifact]:
    """Three versions in one space, of which the first is live."""
    publish_artifact(shop.feature_store, shop.artifact)
    alignment = alignment_to(shop.artifact)
    return [shop.artifact, *(write_version(shop.repo.data, seed=seed, alignment=alignment) for seed in (1, 2))]


def test_on_disk(shop: Shop, versions: list[Artifact]) -> None:
    """The newest, and the one before it, if there is one."""
    assert load_artifact(shop.repo.data, "shop", "latest") == versions[2]
    assert load_artifact(shop.repo.data, "shop", "previous") == versions[1]


def test_a_first_version_has_no_previous_one(tmp_path: Path) -> None:
    write_version(tmp_path)
    with pytest.raises(InputError, match=r"has only one version, .* so there is no previous one"):
        load_artifact(tmp_path, "shop", "previous")


def test_commands(shop: Shop, versions: list[Artifact], tmp_path: Path, command: Command) -> None:
    """diff, training-frame, export and publish."""
    first, second, third = (version.manifest.version for version in versions)
    place = ("--repo", shop.repo.path)
    found = json.loads(command("diff", *place, "live", "latest", "--json").out)
    assert (found["old"], found["new"]) == (first, third)

    labels, out = tmp_path / "labels.parquet", tmp_path / "frame.parquet"
    pd.DataFrame({"user_id": ["u-1"], "event_timestamp": [AS_OF + pd.Timedelta(days=1)]}).to_parquet(labels)
    for word, expected in (("live", first), ("previous", second), ("latest", third), (second, second)):
        answer = command("training-frame", *place, "--entities", labels, "--output", out, "--version", word)
        assert answer.code == 0, answer.err
        assert pd.read_parquet(out)["user_version"].tolist() == [expected]

    for word, version in (("live", versions[0]), ("previous", versions[1]), (third, versions[2])):
        answer = command("export", *place, "--entity", "item", "--output", out, "--version", word, "--json")
        assert (answer.code, json.loads(answer.out)["version"]) == (0, version.manifest.version), answer.err
        exported, trained = pq.read_table(out).sort_by("item_id"), version.table("item").sort_by("item_id")
        assert exported["embedding"].to_pylist() == trained["embedding"].to_pylist()
        assert set(exported.column_names) == set(trained.column_names) - {"created_timestamp"}
    refused = command(
        "export", *place, "--entity", "item", "--output", out, "--version", "latest", "--filter", "bias > 0"
    )
    assert (refused.code, refused.err) == (2, "error: --filter works on the live version only\n")

    published = command("publish", *place, "--version", "previous", "--quiet", "--json")
    assert json.loads(published.out)["version"] == second, published.err

"""A version is its name, or live, latest or previous, wherever one is asked for."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from click import Context
from tests.conftest import Command
from tests.support.shop import AS_OF, Shop, alignment_to, write_version

from feast_embeddings import publish_artifact
from feast_embeddings.artifact import Artifact, Manifest, load_artifact
from feast_embeddings.artifact.manifest import read_manifest
from feast_embeddings.cli import main
from feast_embeddings.cli.version_words import VERSION
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


def version_options() -> dict[str, list[str]]:
    """Each command's options and arguments that take a version."""
    found: dict[str, list[str]] = {}
    for name in main.list_commands(Context(main)):
        listed = main.get_command(Context(main), name)
        assert listed is not None
        command = listed.make_context(name, [], resilient_parsing=True).command
        if taken := [str(option.name) for option in command.params if option.type is VERSION]:
            found[name] = taken
        others = [option for option in command.params if option.type is not VERSION]
        assert [o.name for o in others if re.search("version$|align_to|like|^(old|new|to)$", str(o.name))] == [], name
    return found


def test_every_option_that_takes_a_version_understands_the_words(
    shop: Shop, versions: list[Artifact], tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is run with each word; what it answers, or what it looked up, is of the version that the word stands for."""
    first, second, third = (version.manifest.version for version in versions)
    words = {"live": first, "previous": second, "latest": third}
    place, out = ("--repo", shop.repo.path, "--model", "shop"), tmp_path / "out.parquet"
    log, labels = tmp_path / "log.csv", tmp_path / "labels.csv"
    log.write_text("user_id,item_id\nu-1,sku-9\n")
    labels.write_text("user_id,event_timestamp\nu-1,2026-06-01\n")
    items = tmp_path / "items.parquet"
    pq.write_table(versions[0].table("item").select(["item_id", "embedding"]), items)
    calls: dict[str, tuple[object, ...]] = {
        "train --align-to": (*place, "--interactions", log),
        "train --like": (*place, "--interactions", log),
        "evaluate --like": ("--repo", shop.repo.path, "--interactions", log),
        "evaluate --version": (*place, "--test", log),
        "compare --like": (*place, "--interactions", log, "--trainers", "svd"),
        "profile --like": (log, *place),
        "import --align-to": (*place, "--items", items),
        "publish --version": (*place, "--dry-run", "--json"),
        "pull --version": (*place, "--json"),
        "cohorts --since": (*place, "--entity", "item", "--by", "category", "--json"),
        "export --version": (*place, "--entity", "item", "--output", out, "--json"),
        "training-frame --version": (*place, "--entities", labels, "--output", out, "--json"),
        "fold-in --version": (*place, "--interactions", log, "--entity", "user", "--output", out),
        "fold-in --like": (*place, "--interactions", log, "--entity", "user", "--output", out),
        "follow --like": (*place, "--source", tmp_path, "--once"),
        "rollback --to": (*place, "--json"),
        "diff": (*place, "--json"),
        "similar-items --version": ("sku-1", *place, "--json"),
        "similar-users --version": ("u-1", *place, "--json"),
        "rank --version": ("u-1", *place, "--json"),
    }
    taken = version_options()
    assert sum(map(len, taken.values())) == len(calls) + 1  # diff has two
    assert set(taken) == {call.split()[0] for call in calls}

    looked_up: list[str] = []

    def watched(folder: Path) -> Manifest:
        looked_up.append(folder.name)
        return read_manifest(folder)

    monkeypatch.setattr("feast_embeddings.artifact.versions.read_manifest", watched)
    for call, arguments in calls.items():
        name, *option = call.split()
        for word, version in words.items():
            looked_up.clear()
            answer = command(name, *arguments, *option, word, *([word] if name == "diff" else []))
            assert f"'{word}'" not in answer.err, call  # it is no name
            if name == "pull":  # tests/artifact_store has one with a store
                assert "online_store.artifact_store" in answer.err
            elif name in ("publish", "export", "rollback"):
                assert json.loads(answer.out)["version"] == version, (call, word, answer.err)
            elif name == "diff":
                found = json.loads(answer.out)
                assert (found["old"], found["new"]) == (version, version)
            elif name in ("similar-items", "similar-users", "rank"):
                if answer.code:  # the newest was never published
                    assert f"version '{version}' of model 'shop' is not loaded" in answer.err, (call, word)
                else:
                    assert json.loads(answer.out)["version"] == version, (call, word)
            elif name == "training-frame":
                assert pd.read_parquet(out)["user_version"].tolist() == [version]
            else:
                # These fail later: the versions here are of no trainer, and of no log.
                assert version in looked_up, (call, word, answer.err)
            if name == "rollback":
                words_now = command("rollback", *place, "--to", first, "--json")
                assert json.loads(words_now.out)["version"] == first


def test_nothing_is_live(shop: Shop, command: Command) -> None:
    """The word says so."""
    answer = command("export", "--repo", shop.repo.path, "--entity", "item", "--output", "x.parquet")
    other = command("rollback", "--repo", shop.repo.path, "--to", "live")
    assert answer.code == other.code == 1
    assert other.err == "error: no version of model 'shop' is live; run feast-embeddings publish\n"

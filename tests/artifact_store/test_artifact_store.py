"""The artifact store: copies are there whole or not at all, and a machine without data answers as one with it."""

from __future__ import annotations

import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pyarrow.fs import FileSelector, FileSystem, FileType
from tests.conftest import Command, free_port
from tests.support import process_jobs as jobs
from tests.support.job import Job
from tests.support.publishing import publish_any
from tests.support.shop import apply, write_version

from embedding_trainers.train import train_model
from feast_embeddings.artifact import Artifact, load_artifact, version_folders
from feast_embeddings.artifact.forgetting import forget_on_disk
from feast_embeddings.artifact_store import ArtifactStore
from feast_embeddings.doctor import examine
from feast_embeddings.errors import ArtifactError, EmbeddingsError, FoldInError, InputError
from feast_embeddings.model.versions import artifact_store_of
from feast_embeddings.publish.versions import list_versions, prune_versions, roll_back
from feast_embeddings.query.answers import Found, Neighbours
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.repo import Repo, init_repo

UNWANTED = "hunter2-hunter2"
# No part of it is in another id, so that compressed files hold it as it is.
FORGOTTEN = "Qx7!wz9@Kv3#"


@pytest.fixture(scope="module", params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a store can be: a folder, or a bucket of a real S3 service if a program for one is there."""
    if request.param == "folder":
        yield str(tmp_path_factory.mktemp("store"))
        return
    if (program := shutil.which("moto_server")) is None:
        pytest.skip("no moto_server on the PATH, which speaks S3")
    port = free_port()
    with (tmp_path_factory.mktemp("s3") / "log").open("w") as log:
        service = subprocess.Popen([program, "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log)
        try:
            _wait_for(port)
            options = f"endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1&allow_delayed_open=true"
            bucket = f"s3://key:{UNWANTED}@versions"
            FileSystem.from_uri(f"{bucket}?allow_bucket_creation=true&{options}")[0].create_dir("versions")
            yield f"{bucket}/FOLDER?{options}"
        finally:
            service.kill()
            service.wait()


def _wait_for(port: int) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < end, "the service does not answer"
            time.sleep(0.1)


@pytest.fixture
def url(place: str, tmp_path: Path) -> str:
    """A new place for each test."""
    return place.replace("FOLDER", tmp_path.name) if "FOLDER" in place else f"{place}/{tmp_path.name}"


def files_of(url: str) -> dict[str, bytes]:
    """Everything that is in a store, by path below it."""
    system, root = FileSystem.from_uri(url)
    found = system.get_file_info(FileSelector(root, recursive=True, allow_not_found=True))
    files = [info.path for info in found if info.type == FileType.File]
    return {path.removeprefix(f"{root}/"): system.open_input_stream(path).readall() for path in files}


def files_on_disk(artifact: Artifact) -> dict[str, bytes]:
    model, version = artifact.path.parts[-2:]
    return {f"{model}/{version}/{file.name}": file.read_bytes() for file in artifact.path.iterdir()}


def test_a_pulled_version_has_the_same_bytes(url: str, tmp_path: Path) -> None:
    store, there = ArtifactStore(url), write_version(tmp_path / "there")
    assert store.versions("shop") == []
    assert store.push(there)
    assert files_of(url) == files_on_disk(there)
    assert not store.push(there)
    pulled = store.pull(tmp_path / "here", "shop", there.manifest.version)
    assert files_on_disk(pulled) == files_on_disk(there)
    assert pulled.manifest == there.manifest
    assert pulled.table("item").equals(there.table("item"))
    # The history for training frames has it, as if it had been trained here.
    assert [path.stem for path in (tmp_path / "here/shop/history/users").iterdir()] == [there.manifest.version]
    # A second pull changes nothing.
    inode = (pulled.path / "users.parquet").stat().st_ino
    store.pull(tmp_path / "here", "shop", there.manifest.version)
    assert (pulled.path / "users.parquet").stat().st_ino == inode


def test_versions_are_listed_by_age_and_deleted(url: str, tmp_path: Path) -> None:
    store = ArtifactStore(url)
    versions = [write_version(tmp_path, seed=seed) for seed in range(3)]
    write_version(tmp_path, model="other")
    for version in reversed(versions):
        store.push(version)
    names = [version.manifest.version for version in versions]
    assert store.versions("shop") == names
    assert store.versions("other") == []
    store.delete("shop", [names[0], "20200101T000000000Z"])
    assert store.versions("shop") == names[1:]
    assert not [path for path in files_of(url) if names[0] in path]


def test_what_is_no_version_is_refused(url: str, tmp_path: Path) -> None:
    store, artifact = ArtifactStore(url), write_version(tmp_path)
    store.push(artifact)
    with pytest.raises(InputError, match=f"no version '../../x' .*there are: {artifact.manifest.version}"):
        store.pull(tmp_path / "here", "shop", "../../x")
    with pytest.raises(InputError, match="model name"):
        store.pull(tmp_path / "here", "../x", artifact.manifest.version)
    assert not (tmp_path / "here").exists()


def damage(url: str, path: str, raw: bytes | None) -> None:
    system, root = FileSystem.from_uri(url)
    if raw is None:
        system.delete_file(f"{root}/{path}")
        return
    with system.open_output_stream(f"{root}/{path}") as file:
        file.write(raw)


@pytest.mark.parametrize(
    ("name", "raw", "said"),
    [
        ("items.parquet", b"PAR1", "items.parquet of version .* was changed"),
        ("users.parquet", None, "lacks users.parquet"),
        ("manifest.json", b"{", "manifest.json is damaged"),
    ],
)
def test_a_damaged_copy_is_not_pulled(url: str, tmp_path: Path, name: str, raw: bytes | None, said: str) -> None:
    store, artifact = ArtifactStore(url), write_version(tmp_path / "there")
    store.push(artifact)
    version = artifact.manifest.version
    damage(url, f"shop/{version}/{name}", raw)
    with pytest.raises(ArtifactError, match=said):
        store.pull(tmp_path / "here", "shop", version)
    assert version_folders(tmp_path / "here", "shop") == []
    assert not list((tmp_path / "here").glob("shop/.*"))


@pytest.mark.parametrize("name", ["items.parquet", "manifest.json"])
def test_a_pull_replaces_a_damaged_copy_on_this_disk(url: str, tmp_path: Path, name: str) -> None:
    artifact, store = write_version(tmp_path), ArtifactStore(url)
    store.push(artifact)
    whole = files_on_disk(artifact)
    (artifact.path / name).write_bytes(b"{")
    assert files_on_disk(store.pull(tmp_path, "shop", artifact.manifest.version)) == whole


def test_a_push_completes_what_is_missing(url: str, tmp_path: Path) -> None:
    store, artifact = ArtifactStore(url), write_version(tmp_path)
    store.push(artifact)
    damage(url, f"shop/{artifact.manifest.version}/users.parquet", None)
    damage(url, f"shop/{artifact.manifest.version}/users-00007.parquet", b"left by a push that was killed")
    assert store.push(artifact)
    assert files_of(url) == files_on_disk(artifact)


def test_a_damaged_version_is_not_pushed(url: str, tmp_path: Path) -> None:
    artifact = write_version(tmp_path)
    (artifact.path / "items.parquet").write_bytes(b"PAR1")
    with pytest.raises(ArtifactError, match="was changed after training"):
        ArtifactStore(url).push(artifact)
    assert ArtifactStore(url).versions("shop") == []


def test_forgetting_wins_on_every_machine(url: str, tmp_path: Path) -> None:
    store, first = ArtifactStore(url), write_version(tmp_path / "a")
    version = first.manifest.version
    store.push(first)
    store.pull(tmp_path / "b", "shop", version)
    # One is forgotten on machine a, another on machine b, which does not know of the first.
    forget_on_disk(tmp_path / "a", "shop", {"user": pa.array(["u-1"])})
    assert store.push(load_artifact(tmp_path / "a", "shop"))
    forget_on_disk(tmp_path / "b", "shop", {"user": pa.array(["u-2"])})
    with pytest.raises(ArtifactError, match=rf"run feast-embeddings pull --model shop --version {version}"):
        store.push(load_artifact(tmp_path / "b", "shop"))
    assert files_of(url) == files_on_disk(load_artifact(tmp_path / "a", "shop"))
    pulled = store.pull(tmp_path / "b", "shop", version)
    assert files_on_disk(pulled) == files_of(url)
    assert "u-1" not in pulled.table("user", ["user_id"])["user_id"].to_pylist()


def test_pushes_of_one_version_at_once_all_succeed(tmp_path: Path) -> None:
    artifact, n_pushes = write_version(tmp_path / "there"), 4
    with ThreadPoolExecutor(n_pushes) as pool:
        for n in range(12):
            url, together = str(tmp_path / f"store{n}"), Barrier(n_pushes)

            def push(url: str = url, together: Barrier = together) -> None:
                together.wait()
                ArtifactStore(url).push(artifact)

            for done in [pool.submit(push) for _ in range(n_pushes)]:
                done.result()
            ArtifactStore(url).push(artifact)
            assert files_of(url) == files_on_disk(artifact)


@pytest.mark.parametrize("inside", ["data", "data/store", "data/../data/shop/", "file://{repo}/data", "link"])
def test_a_store_among_the_versions_is_refused(tmp_path: Path, inside: str) -> None:
    """Its pushes would delete saved maps there as leftovers."""
    repo = machine(tmp_path / "repo", inside.format(repo=tmp_path / "repo"), tmp_path)
    write_version(repo.data)
    (repo.path / "link").symlink_to("data")
    with pytest.raises(InputError, match="name a folder next to it"):
        artifact_store_of(repo.feature_store())
    apply(repo)
    (finding,) = (found for found in examine(repo).findings if found.check == "stored")
    assert "name a folder next to it" in finding.message
    done = subprocess.run(shlex.split(finding.fix), check=True, capture_output=True, text=True)
    assert "artifact_store" in done.stdout


@pytest.mark.parametrize("url", ["../of all/ü%20#x/", "file://{parent}/of all"])
def test_a_folder_is_found_by_path_or_url(tmp_path: Path, url: str) -> None:
    artifact = write_version(tmp_path / "there")
    store = artifact_store_of(machine(tmp_path / "repo", url.format(parent=tmp_path), tmp_path).feature_store())
    assert store is not None
    store.push(artifact)
    assert store.versions("shop") == [artifact.manifest.version]
    assert list((tmp_path / "of all").rglob("manifest.json"))
    assert ".." not in str(store)


@pytest.mark.parametrize("bad", ["nothing://x/y", "s3:///y"])
def test_a_url_that_no_one_knows(bad: str) -> None:
    with pytest.raises(InputError, match=f"artifact_store {bad}"):
        ArtifactStore(bad).versions("shop")


def test_a_store_that_does_not_answer_says_so_without_its_password(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(EmbeddingsError, match=r"file/store"):
        ArtifactStore(str(tmp_path / "file/store")).push(write_version(tmp_path))
    secret = ArtifactStore(f"s3://key:{UNWANTED}@bucket/x?region=eu")
    assert UNWANTED not in f"{secret} {secret!r}"


def test_a_killed_push_or_pull_leaves_nothing_by_half(start: Callable[..., Job], tmp_path: Path) -> None:
    """After SIGKILL between any two files: no version, or a whole one; the next call completes it."""
    url, artifact = str(tmp_path / "store"), write_version(tmp_path / "there")
    version, outcomes = artifact.manifest.version, set[tuple[bool, bool]]()
    for n_files in range(4):
        shutil.rmtree(url, ignore_errors=True)
        start(jobs.push_until, url, tmp_path / "there", n_files).exit_code()
        stored = bool(ArtifactStore(url).versions("shop"))
        if stored:
            assert files_of(url) == files_on_disk(artifact)
        ArtifactStore(url).push(artifact)
        assert files_of(url) == files_on_disk(artifact)
        here = tmp_path / f"here{n_files}"
        start(jobs.pull_until, url, here, version, n_files).exit_code()
        pulled = [path.name for path in version_folders(here, "shop")]
        assert pulled in ([], [version])
        outcomes.add((stored, bool(pulled)))
        assert files_on_disk(ArtifactStore(url).pull(here, "shop", version)) == files_on_disk(artifact)
        assert not list((here / "shop").glob(".*Z*"))
    assert outcomes >= {(False, False), (True, True)}


# Two machines with one Qdrant, one registry and one store.


ITEMS = pa.table({"item_id": [f"sku-{n}" for n in range(25)], "title": [f"warm thing {n}" for n in range(25)]})


def log_of(seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    users = np.repeat(np.arange(30), 6)
    return pa.table(
        {
            "user_id": [FORGOTTEN if n == 17 else f"u-{n}" for n in users],
            "item_id": [f"sku-{n}" for n in rng.integers(0, 25, len(users))],
            "timestamp": pa.array(1_780_000_000 + np.arange(len(users)), pa.timestamp("s", "UTC")),
        }
    )


def train(repo: Repo, seed: int = 0) -> Artifact:
    return train_model(
        repo.path,
        "shop",
        log_of(seed),
        trainer="als",
        parameters={"factors": 8, "iterations": 3},
        item_attributes=ITEMS,
        content="title:text",
        evaluation=False,
    ).artifact


def machine(folder: Path, url: str, shared: Path) -> Repo:
    """A repo with no data of its own: settings that name what all machines share."""
    repo = init_repo(folder)
    config = yaml.safe_load((repo.path / "feature_store.yaml").read_text())
    config["registry"]["path"] = str(shared / "registry.db")
    config["online_store"] |= {"path": str(shared / "qdrant"), "artifact_store": url}
    (repo.path / "feature_store.yaml").write_text(yaml.safe_dump(config))
    return repo


@pytest.fixture
def trained(url: str, tmp_path: Path) -> Repo:
    """The machine that trains, with one published version."""
    repo = machine(tmp_path / "trains", url, tmp_path / "shared")
    artifact = train(repo)
    publish_any(apply(repo), artifact)
    return repo


@pytest.fixture
def serves(trained: Repo, url: str, tmp_path: Path) -> Repo:
    """A machine that never trained."""
    return machine(tmp_path / "serves", url, tmp_path / "shared")


def test_a_machine_without_data_answers_alike(trained: Repo, serves: Repo) -> None:
    here, there = (EmbeddingStore(repo.feature_store(), "shop") for repo in (serves, trained))
    assert not serves.data.exists()
    asked: list[Callable[[EmbeddingStore], Neighbours | Found]] = [
        lambda store: store.rank("u-1", k=5),
        lambda store: store.rank_visitor(["sku-1", "sku-2"], k=5),
        lambda store: store.search("warm 7", k=5),
    ]
    for ask in asked:
        answer, expected = ask(here), ask(there)
        assert (answer.ids, answer.scores.tolist()) == (expected.ids, expected.scores.tolist())
    clicks = pa.table({"user_id": ["new", "new"], "item_id": ["sku-1", "sku-2"]})
    assert np.array_equal(here.fold_in_users(clicks).vectors, there.fold_in_users(clicks).vectors)
    findings = {finding.check: finding for finding in examine(serves).findings if finding.level != "ok"}
    assert not findings.keys() & {"artifacts", "live", "stored", "spaces"}


def test_what_goes_live_is_in_the_store_before(trained: Repo, serves: Repo, url: str) -> None:
    second = train(trained, 1)
    before = EmbeddingStore(trained.feature_store(), "shop").live_version()
    steps = list[tuple[str, bool]]()
    publish_any(
        trained.feature_store(),
        second,
        on_step=lambda step: steps.append((step, second.manifest.version in ArtifactStore(url).versions("shop"))),
    )
    assert dict(steps)["switch"]
    assert not dict(steps)["verify"]
    assert before in ArtifactStore(url).versions("shop")


def test_a_store_that_fails_leaves_the_live_version(trained: Repo, tmp_path: Path) -> None:
    second = train(trained, 1)
    config = yaml.safe_load((trained.path / "feature_store.yaml").read_text())
    (tmp_path / "file").write_text("no folder")
    config["online_store"]["artifact_store"] = str(tmp_path / "file/store")
    (trained.path / "feature_store.yaml").write_text(yaml.safe_dump(config))
    feature_store = trained.feature_store()
    before = EmbeddingStore(feature_store, "shop").live_version()
    with pytest.raises(EmbeddingsError, match="file/store"):
        publish_any(feature_store, second)
    assert EmbeddingStore(feature_store, "shop").live_version() == before


def test_a_lost_store_is_a_reason_not_a_path(serves: Repo, url: str) -> None:
    store = EmbeddingStore(serves.feature_store(), "shop")
    ArtifactStore(url).delete("shop", ArtifactStore(url).versions("shop"))
    with pytest.raises(FoldInError, match="not in this repo's data folder") as raised:
        store.rank_visitor(["sku-1"], k=5)
    assert str(serves.path) not in str(raised.value)
    stored = [finding for finding in examine(serves).findings if finding.check == "stored"]
    assert [finding.level for finding in stored] == ["problem"]
    assert stored[0].fix is not None
    assert "publish" in stored[0].fix


def test_a_damaged_copy_here_is_called_damaged_and_can_be_pulled_again(trained: Repo, command: Command) -> None:
    (version,) = version_folders(trained.data, "shop")
    (version / "manifest.json").write_text("{")
    with pytest.raises(FoldInError, match="its files are damaged"):
        EmbeddingStore(trained.feature_store(), "shop").rank_visitor(["sku-1"], k=5)
    (found,) = [finding for finding in examine(trained).findings if finding.check == "artifacts"]
    assert found.fix is not None
    remove, pull = (shlex.split(part) for part in found.fix.split(" && "))
    assert remove == ["rm", "-r", str(version)]
    shutil.rmtree(version)
    assert command(*pull[1:]).code == 0
    assert EmbeddingStore(trained.feature_store(), "shop").rank_visitor(["sku-1"], k=5).ids


def test_forget_reaches_the_store_and_what_only_it_has(serves: Repo, url: str) -> None:
    name = FORGOTTEN.encode()
    assert any(name in raw for raw in files_of(url).values())
    store = EmbeddingStore(serves.feature_store(), "shop")
    assert store.forget(users=[FORGOTTEN]).versions == ArtifactStore(url).versions("shop")
    assert not [path for path, raw in files_of(url).items() if name in raw]
    assert files_of(url) == files_on_disk(load_artifact(serves.data, "shop"))
    store.forget(users=[FORGOTTEN])


def test_prune_and_rollback_know_the_store(trained: Repo, serves: Repo, url: str) -> None:
    feature_store = trained.feature_store()
    names = [path.name for path in version_folders(trained.data, "shop")]
    for seed in (1, 2, 3):
        artifact = train(trained, seed)
        publish_any(feature_store, artifact)
        names.append(artifact.manifest.version)
    there = serves.feature_store()
    prune_versions(there, serves.data, "shop", keep=0)  # in Qdrant only
    rows = {row.version: row for row in list_versions(there, serves.data, "shop")}
    assert {name: (row.stored, row.on_disk) for name, row in rows.items()} == dict.fromkeys(names, (True, False))
    # Neither in Qdrant nor on this disk: published from the store.
    assert roll_back(there, serves.data, "shop", names[1]).version == names[1]
    assert EmbeddingStore(there, "shop").live_version() == names[1]
    roll_back(there, serves.data, "shop", names[3])
    pruned = prune_versions(there, serves.data, "shop", keep=1, artifacts=True)
    assert pruned.artifacts == names[:2]
    assert ArtifactStore(url).versions("shop") == names[2:]


def test_commands(command: Command, trained: Repo, serves: Repo, url: str) -> None:
    def run(*arguments: str) -> str:
        answer = command(arguments[0], "--repo", serves.path, "--model", "shop", *arguments[1:])
        assert answer.code == 0, answer.err
        return answer.out

    second = train(trained, 1)
    publish_any(trained.feature_store(), second)
    first = ArtifactStore(url).versions("shop")[0]
    assert "in the artifact store" in run("versions")
    assert run("pull").startswith(f"shop {second.manifest.version} is in {serves.data}")
    assert first in run("pull", "--version", "previous")
    assert second.manifest.version in run("pull", "--version", "latest", "--json")
    assert [path.name for path in version_folders(serves.data, "shop")] == [first, second.manifest.version]
    assert first in run("publish", "--version", first, "--allow-new-space", "--quiet")
    wrong = command("pull", "--repo", serves.path, "--model", "shop", "--version", "20200101T000000000Z")
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
    assert first in wrong.err


def test_pull_without_a_store_says_what_to_set(command: Command, tmp_path: Path) -> None:
    repo = init_repo(tmp_path / "repo")
    answer = command("pull", "--repo", repo.path, "--model", "shop", "--version", "latest")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "online_store.artifact_store" in answer.err


def test_refresh_on_a_new_disk_stays_in_the_live_space(command: Command, trained: Repo, serves: Repo, url: str) -> None:
    log = pa.concat_tables([log_of(0), log_of(5).slice(0, 5)])
    for name, table in (("log", log), ("items", ITEMS)):
        pq.write_table(table, serves.path / f"{name}.parquet")
    answer = command(
        *("refresh", "--repo", serves.path, "--model", "shop", "--max-age", "100000", "--allow-shrink"),
        *("--", "--interactions", serves.path / "log.parquet", "--trainer", "als", "--factors", "8", "--no-evaluate"),
        *("--items", serves.path / "items.parquet", "--content", "title:text"),
    )
    assert answer.code == 0, answer.err
    live = load_artifact(serves.data, "shop").manifest
    before = load_artifact(trained.data, "shop").manifest
    assert (live.aligned_to, live.space_id) == (before.version, before.space_id)
    assert ArtifactStore(url).versions("shop") == [before.version, live.version]

"""Backup and restore: the same answers bit for bit elsewhere, and a damaged or killed one changes nothing."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from feast import FeatureStore
from qdrant_client import QdrantClient
from tests.conftest import Command
from tests.support import process_jobs as jobs
from tests.support.job import TIMEOUT, Job
from tests.support.maps import save_any_map
from tests.support.publishing import publish_any
from tests.support.shop import ENGINES, apply, new_repo, qdrant

from embedding_trainers.train import train_model
from feast_embeddings import embedding_views
from feast_embeddings.backup import back_up, restore
from feast_embeddings.backup.restore import STEPS
from feast_embeddings.engines.server.engine import ServerEngine
from feast_embeddings.errors import EmbeddingsError, EngineError, InputError
from feast_embeddings.events import Added, EventLog, event_log_of, hidden_of
from feast_embeddings.publish.versions import roll_back
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.repo import Repo

GOLDEN = Path(__file__).parents[1] / "artifacts" / "backup-v1.tar"
N_USERS, N_ITEMS = 12, 20
CLICK = {"user_id": "u-1", "item_id": "sku-19", "event_id": "click"}
UNWANTED = "hunter2-hunter2"
EMBEDDED: Any = SimpleNamespace(param="embedded")  # of a request for a fixture


def train(repo: Repo, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    users = np.repeat(np.arange(N_USERS), 6)
    log = {
        "user_id": [f"u-{n}" for n in users],
        "item_id": [f"sku-{n}" for n in rng.integers(0, N_ITEMS, len(users))],
        "timestamp": pd.Timestamp("2026-04-01", tz="UTC") + pd.to_timedelta(np.arange(len(users)), "min"),
    }
    items = pa.table({"item_id": [f"sku-{n}" for n in range(N_ITEMS)], "price": [n * 1.1 for n in range(N_ITEMS)]})
    return train_model(
        repo.path,
        "shop",
        pa.table(pd.DataFrame(log)),
        trainer="als",
        parameters={"factors": 8, "iterations": 3},
        item_attributes=items,
        evaluation=False,
    ).artifact


class Shop:
    """A repo whose model has two versions in Qdrant, and something of everything that came after the training."""

    def __init__(self, repo: Repo) -> None:
        self.repo = repo
        versions = [train(repo, seed) for seed in range(2)]
        feature_store = apply(repo)
        for version in versions:
            publish_any(feature_store, version)
        store = EmbeddingStore(feature_store, "shop")
        new = pa.table({"user_id": ["new", "new"], "item_id": ["sku-1", "sku-2"]})
        store.fold_in_users(new, push=True)
        store.add_interactions([CLICK, {"user_id": "u-2", "item_id": "sku-3"}])
        store.set_attributes(items={"sku-4": {"price": 99.5}, "sku-5": {"price": None}})
        store.set_attributes(items={"sku-5": {"segment": 3}}, add={"segment": "int"})
        store.hide(items=["sku-6"], users=["u-3"])
        save_any_map(versions[1], "item")
        self.versions = [version.manifest.version for version in versions]
        self.answers = answers(store)
        qdrant(feature_store).engine(feature_store.config).close()


def answers(store: EmbeddingStore) -> dict[str, Any]:
    """What is asked of a model, with the bytes of all numbers."""
    users, items = [*(f"u-{n}" for n in range(N_USERS)), "new"], [f"sku-{n}" for n in range(N_ITEMS)]
    listed = store.page("item", 100)
    keys = [{"user_id": user} for user in users]
    features = ["shop_user_embeddings:seen_items", "shop_user_embeddings:version"]
    found: dict[str, Any] = {
        "vectors": [each.vectors.tobytes() for each in (store.user_embeddings(users), store.item_embeddings(items))],
        "attributes": sorted(zip(listed.ids, map(str, listed.attributes), listed.hidden, strict=True)),
        "online": store.feature_store.get_online_features(features, keys).to_dict(),
    }
    for user in users:
        ranked = store.rank(user, 10)
        found[user] = ranked.ids, ranked.scores.tobytes()
    for item in items:
        near = store.similar_items(item, 5, filter="price > 3")
        found[item] = near.ids, near.scores.tobytes()
    return found


def same(found: dict[str, Any], expected: dict[str, Any], exact: bool) -> None:
    """To the last bit; or, where another engine adds the products up in another order, but for the last digits."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if exact or name in ("vectors", "attributes", "online"):
            assert found[name] == value
        else:
            assert found[name][0] == value[0]
            ours, theirs = (np.frombuffer(each[name][1], np.float32) for each in (found, expected))
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(new_repo(EMBEDDED, tmp_path_factory.mktemp("backup") / "repo"))


@pytest.fixture(scope="module")
def backup(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of it, as a folder."""
    path = tmp_path_factory.mktemp("backups") / "backup"
    back_up(shop.repo.feature_store(), shop.repo.data, path)
    return path


def repo_like(shop: Shop, request: Any, folder: Path) -> Repo:
    """A new repo of the same project, as from version control, on the engine that `request.param` names."""
    repo = new_repo(request, folder)
    project = yaml.safe_load((shop.repo.path / "feature_store.yaml").read_text())["project"]
    config = yaml.safe_load((repo.path / "feature_store.yaml").read_text())
    (repo.path / "feature_store.yaml").write_text(yaml.safe_dump({**config, "project": project}))
    return repo


@pytest.fixture
def empty(shop: Shop, tmp_path: Path) -> Repo:
    return repo_like(shop, EMBEDDED, tmp_path / "elsewhere")


@pytest.fixture
def copy(shop: Shop, tmp_path: Path) -> Repo:
    """The shop's repo, to be changed."""
    shutil.copytree(shop.repo.path, tmp_path / "copy")
    return Repo.open(tmp_path / "copy")


@pytest.fixture(params=ENGINES)
def elsewhere(request: pytest.FixtureRequest, shop: Shop, tmp_path: Path) -> Iterator[tuple[Repo, FeatureStore]]:
    """An empty repo on each engine."""
    repo = repo_like(shop, request, tmp_path / "elsewhere")
    feature_store = repo.feature_store()
    if request.param == "server-stand-in":
        qdrant(feature_store)._engine = ServerEngine(QdrantClient(":memory:"), streams=1)
    yield repo, feature_store
    feature_store.teardown()  # type: ignore[no-untyped-call]
    qdrant(feature_store).engine(feature_store.config).close()


def test_the_same_answers_elsewhere(shop: Shop, elsewhere: tuple[Repo, FeatureStore], backup: Path) -> None:
    """On each engine: answers, what came after the training, and the way back to the version before."""
    repo, feature_store = elsewhere
    made = restore(feature_store, repo.path, backup)
    assert (made.collections, made.versions) == (4, 2)
    feature_store.refresh_registry()  # type: ignore[no-untyped-call]
    store = EmbeddingStore(feature_store, "shop")
    exact = feature_store.config.online_store.url is None and not isinstance(
        qdrant(feature_store)._engine, ServerEngine
    )
    same(answers(store), shop.answers, exact)
    assert store.add_interactions([CLICK]) == Added(0, 1)
    (saved,) = (repo.data / "shop").glob("*/map-*")
    assert saved.read_bytes() == (shop.repo.data / "shop" / shop.versions[1] / saved.name).read_bytes()
    assert store.hidden("item") == {"sku-6"}
    feature_store.apply(list(embedding_views("shop", repo.data).by_name().values()))  # at the new place
    same(answers(store), shop.answers, exact)
    assert roll_back(feature_store, repo.data, "shop").version == shop.versions[0]
    assert store.live_version() == shop.versions[0]
    assert [path.name for path in sorted((repo.data / "shop").glob("2*"))] == shop.versions


def test_a_backup_of_the_first_release_is_still_restored(tmp_path: Path) -> None:
    """Its file never changes: vectors, and the price, the event and the hidden item that came after the training."""
    repo = new_repo(EMBEDDED, tmp_path / "repo")
    settings = repo.path / "feature_store.yaml"
    settings.write_text(yaml.safe_dump({**yaml.safe_load(settings.read_text()), "project": "golden"}))
    restored = restore(repo.feature_store(), repo.path, GOLDEN)
    assert (restored.models, restored.versions, restored.collections, restored.points) == (["golden"], 1, 2, 5)
    store = EmbeddingStore(repo.feature_store(), "golden")
    assert store.item_embeddings(["a", "b b"]).vectors.tolist() == [[0, 0.25], [0.5, 0.75]]
    listed = store.page("item", 10)
    assert [(id, row["price"]) for id, row in zip(listed.ids, listed.attributes, strict=True)] == [
        ("a", 2.5),
        ("b b", None),
    ]
    assert listed.hidden == [False, True]
    (event,) = event_log_of(repo.data, "golden").of_users([1])[1]
    assert (event.item_id, event.event_id) == ("b b", "click")


@pytest.mark.parametrize("pack", [False, True])
def test_a_full_disk_is_found_before_anything_is_written(
    empty: Repo, backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: bool
) -> None:
    """What it has to unpack, or to load."""
    path = backup
    if pack:
        path = tmp_path / "backup.tar"
        with tarfile.open(path, mode="w") as tar:
            tar.add(backup, arcname="")
    free = path.stat().st_size - 1 if pack else 100 * 2**20  # two collections may take more
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=free))
        with pytest.raises(EmbeddingsError, match=rf"no space left to {'unpack' if pack else 'restore'}"):
            restore(empty.feature_store(), empty.path, path)
    assert not list(empty.data.glob("shop*"))
    assert restore(empty.feature_store(), empty.path, path).points


def test_as_a_file_by_commands(command: Command, shop: Shop, empty: Repo, tmp_path: Path) -> None:
    """One .tar file, made and restored on the command line; a second restore needs --replace."""
    file = tmp_path / "backup.tar"
    made = json.loads(command("backup", file, "--repo", shop.repo.path, "--json").out)
    assert made["points"] == 2 * (N_USERS + N_ITEMS) + 1
    again = command("backup", file, "--repo", shop.repo.path)
    assert (again.code, again.err.count("\n")) == (2, 1)
    ran = command("restore", file, "--repo", empty.path)
    assert (ran.code, "next: feast apply" in ran.out) == (0, True), ran.err
    same(answers(EmbeddingStore(empty.feature_store(), "shop")), shop.answers, exact=True)
    refused = command("restore", file, "--repo", empty.path)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "--replace" in refused.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup.tar", "elsewhere"]
    assert not list(empty.data.glob(".restore.*"))
    assert len([path for path in (empty.path / "qdrant_storage" / "shards").iterdir() if path.is_dir()]) == 4


def test_replaces_what_came_since(shop: Shop, copy: Repo, backup: Path) -> None:
    """Events, attributes, hidden ones, versions and a damaged file are as they were; a reader that is open sees it."""
    feature_store = copy.feature_store()
    store = EmbeddingStore(feature_store, "shop")
    store.add_interactions([{"user_id": "u-1", "item_id": "sku-7"}])
    store.set_attributes(items={"sku-4": {"price": 1.5, "note": "since"}}, add={"note": "text"})
    store.hide(items=["sku-8"])
    publish_any(feature_store, train(copy, 2))
    damaged = copy.data / "shop" / shop.versions[1] / "users.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    reader = sqlite3.connect(copy.data / "shop.events.sqlite")
    assert reader.execute("SELECT COUNT(*) FROM events").fetchone() == (3,)
    restore(copy.feature_store(), copy.path, backup, replace=True)
    assert reader.execute("SELECT COUNT(*) FROM events").fetchone() == (2,)
    reader.close()
    same(answers(store), shop.answers, exact=True)
    same(answers(EmbeddingStore(copy.feature_store(), "shop")), shop.answers, exact=True)


def test_no_secret_is_in_it(copy: Repo, tmp_path: Path) -> None:
    config = copy.path / "feature_store.yaml"
    config.write_text(config.read_text() + f"# {UNWANTED}\n")
    (copy.path / "embeddings.toml").write_text(f"# {UNWANTED}\n")
    back_up(copy.feature_store(), copy.data, tmp_path / "backup.tar")
    assert UNWANTED.encode() not in (tmp_path / "backup.tar").read_bytes()


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a flipped bit": lambda folder: flip(folder / "collections" / "0000.parquet"),
    "a short file": lambda folder: flip(next(folder.glob("models/shop/versions/*/items.parquet"))),
    "a missing file": lambda folder: (folder / "models" / "shop" / "events.sqlite").unlink(),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "another count": lambda folder: (folder / "manifest.json").write_text(
        (folder / "manifest.json").read_text().replace(f'"points": {N_ITEMS}', f'"points": {N_ITEMS + 1}')
    ),
    "a newer format": lambda folder: (folder / "manifest.json").write_text('{"format_version": 2, "new": 1}'),
    "a name that leads out": lambda folder: (folder / "manifest.json").write_text(
        (folder / "manifest.json").read_text().replace("registry.pb", "../registry.pb")
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_one_is_refused(shop: Shop, backup: Path, tmp_path: Path, damage: str) -> None:
    """Before anything is changed, whatever is damaged."""
    shutil.copytree(backup, tmp_path / "damaged")
    DAMAGE[damage](tmp_path / "damaged")
    repo = shop.repo
    before = files_of(repo)
    with pytest.raises(InputError, match=r"damaged|is no backup|upgrade"):
        restore(repo.feature_store(), repo.path, tmp_path / "damaged", replace=True)
    assert files_of(repo) == before


def files_of(repo: Repo) -> dict[str, bytes]:
    """Every file but locks."""
    return {
        str(path.relative_to(repo.path)): path.read_bytes()
        for path in repo.path.rglob("*")
        if path.is_file() and path.suffix not in (".lock", ".sqlite-shm")
    }


def test_a_cut_file_or_another_project_is_refused(
    shop: Shop, empty: Repo, backup: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    whole, cut = tmp_path / "backup.tar", tmp_path / "cut.tar"
    back_up(shop.repo.feature_store(), shop.repo.data, whole)
    content = whole.read_bytes()
    for length in (0, 700, len(content) // 2):
        cut.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"cut.tar is (damaged|no backup)"):
            restore(empty.feature_store(), empty.path, cut)
    config = empty.path / "feature_store.yaml"
    config.write_text(config.read_text().replace("project: ", "project: other_"))
    with pytest.raises(InputError, match="of project"):
        restore(empty.feature_store(), empty.path, backup)
    with pytest.raises(InputError, match="does not exist"):
        restore(empty.feature_store(), empty.path, tmp_path / "none.tar")


def test_a_switch_that_fails_undoes_the_files(
    shop: Shop, copy: Repo, backup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events, hidden ones and registry are those of the live collections again."""
    store = EmbeddingStore(copy.feature_store(), "shop")
    store.add_interactions([{"user_id": "u-5", "item_id": "sku-7"}])
    store.hide(items=["sku-8"])
    before, registry = answers(store), (copy.data / "registry.db").read_bytes()
    feature_store = copy.feature_store()
    engine = qdrant(feature_store).engine(feature_store.config)

    def fail(aliases: object) -> None:
        raise EngineError("no")

    monkeypatch.setattr(engine, "switch", fail)
    with pytest.raises(EngineError, match="no"):
        restore(feature_store, copy.path, backup, replace=True)
    same(answers(store), before, exact=True)
    assert (copy.data / "registry.db").read_bytes() == registry
    assert sum(map(len, event_log_of(copy.data, "shop").batches())) == 3
    assert hidden_of(copy.data, "shop").ids("item") == {"sku-6", "sku-8"}


Start = Callable[..., Job]


@pytest.mark.parametrize("steps", [STEPS, *(pytest.param((step,), marks=pytest.mark.slow) for step in STEPS)])
def test_restore_killed_at_each_step(
    shop: Shop, copy: Repo, backup: Path, start: Start, steps: tuple[str, ...]
) -> None:
    """What was live answers as before until the switch, and another restore brings all of it back."""
    store = EmbeddingStore(copy.feature_store(), "shop")
    store.set_attributes(items={"sku-4": {"price": 1.5}})
    before = answers(store)
    for step in steps:
        killed = start(jobs.restore_until, copy.path, backup, step)
        assert killed.receive() == step
        killed.kill()
        found = answers(EmbeddingStore(copy.feature_store(), "shop"))
        same(found, shop.answers if step == "clear" else before, exact=True)
    restore(copy.feature_store(), copy.path, backup, replace=True)
    same(answers(EmbeddingStore(copy.feature_store(), "shop")), shop.answers, exact=True)
    assert not list(copy.data.glob(".restore.*"))
    assert len([path for path in (copy.path / "qdrant_storage" / "shards").iterdir() if path.is_dir()]) == 4


@pytest.mark.parametrize("rounds", [2, pytest.param(40, marks=pytest.mark.slow)])
def test_restore_killed_at_any_moment(
    shop: Shop, copy: Repo, backup: Path, start: Start, rng: np.random.Generator, rounds: int
) -> None:
    """Vectors, attributes and ranks are all of one side or the other, and the last restore is whole."""
    store = EmbeddingStore(copy.feature_store(), "shop")
    killed = 0
    for moment in (np.arange(rounds) + rng.random(rounds)) / rounds:
        store.set_attributes(items={"sku-4": {"price": 1.5}})
        before = answers(store)
        job = start(jobs.restore_until, copy.path, backup, "")
        assert job.receive() == "verify"
        job.process.join(moment)
        job.kill()
        killed += job.process.exitcode == -9
        assert answers(EmbeddingStore(copy.feature_store(), "shop")) in (before, shop.answers)
    assert killed
    restore(copy.feature_store(), copy.path, backup, replace=True)
    same(answers(EmbeddingStore(copy.feature_store(), "shop")), shop.answers, exact=True)


@pytest.mark.parametrize("name", ["backup", "backup.tar"])
def test_backup_killed(shop: Shop, start: Start, tmp_path: Path, name: str) -> None:
    """Nothing has the name until it is whole, and the next backup deletes what was left."""
    (tmp_path / "to").mkdir()
    killed = start(jobs.back_up_until, shop.repo.path, tmp_path / "to" / name)
    killed.receive()
    killed.kill()
    assert not (tmp_path / "to" / name).exists()
    assert list((tmp_path / "to").iterdir())
    back_up(shop.repo.feature_store(), shop.repo.data, tmp_path / "to" / name)
    assert [path.name for path in (tmp_path / "to").iterdir()] == [name]


def test_writers_go_on(copy: Repo, start: Start, tmp_path: Path) -> None:
    """A backup while events are written one by one has all that were there when it began, each once."""
    writer = start(jobs.add_events_until_told, copy.data / "shop.events.sqlite")
    assert writer.receive() == "ready"
    for number in range(3):
        n_before = sum(map(len, event_log_of(copy.data, "shop").batches()))
        back_up(copy.feature_store(), copy.data, tmp_path / str(number))
        log = EventLog(tmp_path / str(number) / "models" / "shop" / "events.sqlite")
        ids = [e.event_id for batch in log.batches() for e in batch]
        mine = [id for id in ids if str(id).startswith("w-")]
        assert mine == [f"w-{i}" for i in range(len(mine))]
        assert len(ids) >= n_before
    writer.pipe.send("end")
    writer.process.join(TIMEOUT)

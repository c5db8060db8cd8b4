"""Export over each engine: what comes out is the artifact that went in, bit for bit, or nothing."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tests.conftest import Command
from tests.support import process_jobs as jobs
from tests.support.job import Job
from tests.support.publishing import in_space, publish_any
from tests.support.shop import AS_OF, DIM, ENGINES, Shop, apply, served_shop, user_table

from feast_embeddings.artifact import Artifact, EmbeddingTable, Entity, TrainerInfo, embedding_matrix, write_artifact
from feast_embeddings.cli.output_file import new_file
from feast_embeddings.errors import EngineError, FilterError, InputError, NotPublishedError
from feast_embeddings.publish.versions import prune_versions
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.repo import init_repo

# Three pages of the vector store; of users there is one.
N_ITEMS, N_USERS = 2300, 7


def write_wide(data: Path, *, seed: int = 0, as_of: datetime = AS_OF) -> Artifact:
    """A version with whole numbers as item ids, and with attributes of every type, null here, there and everywhere."""
    rng = np.random.default_rng(seed)
    numbers = range(N_ITEMS)
    day = datetime(2026, 1, 1, tzinfo=UTC)
    attributes = {
        "title": pa.array([f"Item “{i}”" if i else "" for i in numbers]),
        "stock": pa.array([2**62 + i if i % 2 else None for i in numbers], pa.int64()),
        "price": pa.array([None if i == 4 else i * 1.1 for i in numbers]),
        "is_new": pa.array([None if i % 3 else i % 2 == 0 for i in numbers]),
        "since": pa.array([None if i % 5 else day + timedelta(hours=i) for i in numbers], pa.timestamp("us", "UTC")),
        "tags": pa.array([["new", "red"][: i % 3] for i in numbers], pa.list_(pa.string())),
        "shelves": pa.array([None if i % 7 else [i, -i] for i in numbers], pa.list_(pa.int64())),
        "rare": pa.array(["one" if i == 1200 else None for i in numbers]),
        "unknown": pa.nulls(N_ITEMS, pa.float64()),
    }
    items = EmbeddingTable(
        ids=pa.array(np.arange(N_ITEMS) - 9),
        embedding=rng.standard_normal((N_ITEMS, DIM)).astype(np.float32),
        n_interactions=np.arange(N_ITEMS),
        bias=rng.standard_normal(N_ITEMS).astype(np.float32),
        attributes=pa.table(attributes),
    )
    seen = [list(range(i - 9, i)) for i in range(N_USERS)]
    return write_artifact(
        data,
        "shop",
        users=user_table(rng, pa.array([f"u-{i}" for i in range(N_USERS)]), seen),
        items=items,
        as_of=as_of,
        trainer=TrainerInfo(name="random", config={}),
        seed=seed,
        metrics={},
        fingerprint="0" * 64,
        n_interactions=N_USERS,
    )


@pytest.fixture(scope="module", params=ENGINES)
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A published shop over each engine in turn; tests only read from it."""
    yield from served_shop(request, tmp_path_factory.mktemp("shop"), write_wide)


@pytest.fixture(params=ENGINES)
def own_shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    """A published shop that the test may change."""
    yield from served_shop(request, tmp_path, write_wide)


@pytest.fixture(scope="module", params=["embedded"])
def embedded_shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """For the command, which opens the repo by itself; tests only read from it."""
    yield from served_shop(request, tmp_path_factory.mktemp("shop"), write_wide)


def store_of(shop: Shop) -> EmbeddingStore:
    return EmbeddingStore(shop.feature_store, "shop")


def trained(artifact: Artifact, entity: Entity) -> pa.Table:
    """What is stored of a side: the artifact's table but for the time at which it was written, by id."""
    return artifact.table(entity).drop_columns("created_timestamp").sort_by(f"{entity}_id")


def assert_same(exported: pa.Table, expected: pa.Table) -> None:
    """The rows, in any order, in columns of the same types, and vectors of the same bits."""
    assert set(exported.column_names) == set(expected.column_names)
    exported = exported.select(expected.column_names).sort_by(expected.column_names[0])
    assert exported.schema.equals(expected.schema)
    assert exported.equals(expected)
    assert embedding_matrix(exported).tobytes() == embedding_matrix(expected).tobytes()


@pytest.mark.parametrize("entity", ["user", "item"])
def test_everything_is_what_was_trained(entity: Entity, shop: Shop) -> None:
    """All rows and all columns, also those that are null on a page or on all of them; the schema names the version."""
    reader = store_of(shop).export(entity)
    manifest = shop.artifact.manifest
    assert reader.schema.metadata == {
        b"version": manifest.version.encode(),
        b"space": manifest.space_id.encode(),
        b"as_of": manifest.as_of.isoformat().encode(),
    }
    batches = list(reader)
    assert [batch.num_rows for batch in batches] == ([1000, 1000, 300] if entity == "item" else [N_USERS])
    assert_same(pa.Table.from_batches(batches), trained(shop.artifact, entity))


def test_a_filter_keeps_the_rows_that_match(shop: Shop) -> None:
    """On items and on users, as in all queries; none at all are a table with the same columns."""
    store, items = store_of(shop), trained(shop.artifact, "item")
    cheap = store.export("item", filter="price < 990 AND tags = 'red'").read_all()
    matching = pc.and_(pc.less(items["price"], 990), pc.equal(pc.list_value_length(items["tags"]), 2))
    assert_same(cheap, items.filter(matching))
    assert len(cheap) == 300
    users = trained(shop.artifact, "user")
    dutch = store.export("user", filter="country = 'NL'").read_all()
    assert_same(dutch, users.filter(pc.equal(users["country"], "NL")))
    assert_same(store.export("item", filter="price < 0").read_all(), items.slice(0, 0))


def test_bad_questions(shop: Shop) -> None:
    """They are answered at once, before anything is read."""
    with pytest.raises(FilterError, match="there is no feature 'price'"):
        store_of(shop).export("user", filter="price < 3")


def test_before_a_publish_there_is_nothing(tmp_path: Path) -> None:
    """As for every query."""
    repo = init_repo(tmp_path / "repo")
    write_wide(repo.data)
    store = EmbeddingStore(apply(repo), "shop")
    with pytest.raises(NotPublishedError, match="no version of model 'shop' is live"):
        store.export("item")


def test_rows_are_of_the_version_that_was_live(own_shop: Shop) -> None:
    """A publish meanwhile changes nothing of an export that has begun; the next one is of the new version."""
    store = store_of(own_shop)
    begun = store.export("item")
    second = write_wide(own_shop.repo.data, seed=1, as_of=AS_OF + timedelta(days=1))
    publish_any(own_shop.feature_store, second)
    assert_same(begun.read_all(), trained(own_shop.artifact, "item"))
    assert_same(store.export("item").read_all(), trained(second, "item"))


def test_a_version_that_is_dropped_meanwhile(own_shop: Shop, request: pytest.FixtureRequest) -> None:
    """At a server it is an error that says so; the embedded engine has the version open, and ends with all of it."""
    reader = store_of(own_shop).export("item")
    assert reader.read_next_batch().num_rows == 1000
    publish_any(own_shop.feature_store, write_wide(own_shop.repo.data, seed=1))
    assert len(prune_versions(own_shop.feature_store, own_shop.repo.data, "shop", keep=0).collections) == 2
    if request.node.callspec.params["own_shop"] == "embedded":
        assert [batch.num_rows for batch in reader] == [1000, 300]
    else:
        expected = f"version {own_shop.artifact.manifest.version} was dropped while its items were exported.*again"
        with pytest.raises(EngineError, match=expected):
            reader.read_all()


def test_who_was_carried_over_says_from_where(own_shop: Shop) -> None:
    """A row that was pushed into an earlier version of the space is exported with the version that it is of."""
    old = own_shop.artifact
    late = old.table("user").slice(0, 1).to_pandas()
    late = late.assign(user_id="late", event_timestamp=AS_OF + timedelta(days=3))
    own_shop.feature_store.write_to_online_store("shop_user_embeddings", late)
    second = in_space(write_wide(own_shop.repo.data, seed=1, as_of=AS_OF + timedelta(days=1)), old.manifest.space_id)
    publish_any(own_shop.feature_store, second)
    found = store_of(own_shop).export("user").read_all()
    is_late = pc.equal(found["user_id"], "late")
    assert_same(found.filter(pc.invert(is_late)), trained(second, "user"))
    expected = trained(old, "user").slice(0, 1)
    for name, value in (("user_id", "late"), ("event_timestamp", AS_OF + timedelta(days=3))):
        column = pa.array([value], expected[name].type)
        expected = expected.set_column(expected.column_names.index(name), name, column)
    assert_same(found.filter(is_late), expected)
    assert found.schema.metadata[b"version"] == second.manifest.version.encode()


@pytest.mark.parametrize("entity", ["user", "item"])
def test_the_command_writes_the_same(entity: Entity, embedded_shop: Shop, tmp_path: Path, command: Command) -> None:
    """One row group of all pages; what was there under the name is replaced."""
    target = tmp_path / "vectors.parquet"
    target.write_text("of last week")
    arguments = ("export", "--repo", embedded_shop.repo.path, "--entity", entity, "--output", target)
    answer = command(*arguments)
    expected, manifest = trained(embedded_shop.artifact, entity), embedded_shop.artifact.manifest
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == f"wrote {len(expected):,} {entity}s of version {manifest.version} to {target}\n"
    assert_same(pq.read_table(target), expected)
    assert pq.ParquetFile(target).num_row_groups == 1
    report = json.loads(command(*arguments, "--json", "--quiet").out)
    assert report == {
        "entity": entity,
        "version": manifest.version,
        "space": manifest.space_id,
        "rows": len(expected),
        "output": str(target),
    }
    assert os.listdir(tmp_path) == ["vectors.parquet"]


def test_the_command_with_a_filter(embedded_shop: Shop, tmp_path: Path, command: Command) -> None:
    """It may leave one row, or none, which are a file with the same columns."""
    target, items = tmp_path / "some.parquet", trained(embedded_shop.artifact, "item")
    arguments = ("export", "--repo", embedded_shop.repo.path, "--entity", "item", "--output", target, "--filter")
    assert command(*arguments, "rare = 'one'").out.startswith("wrote 1 item of version")
    assert_same(pq.read_table(target), items.filter(pc.equal(items["rare"], "one")))
    assert command(*arguments, "rare = 'two'").out.startswith("wrote 0 items of version")
    assert_same(pq.read_table(target), items.slice(0, 0))
    answer = command(*arguments, "colour = 'red'")
    assert (answer.code, answer.out) == (2, "")
    assert "there is no feature 'colour'" in answer.err
    assert_same(pq.read_table(target), items.slice(0, 0))


@pytest.mark.parametrize("name", ["vectors.csv", "nowhere/vectors.parquet", "folder.parquet", "x" * 300 + ".parquet"])
def test_a_place_that_cannot_be_written_to(name: str, embedded_shop: Shop, tmp_path: Path, command: Command) -> None:
    """It is one line, and nothing is left there."""
    (tmp_path / "folder.parquet").mkdir()
    place = ("--repo", embedded_shop.repo.path, "--entity", "item", "--output", tmp_path / name)
    answer = command("export", *place)
    assert (answer.code, answer.out, len(answer.err.splitlines())) == (2, "", 1)
    assert name in answer.err
    assert os.listdir(tmp_path) == ["folder.parquet"]


def test_a_disk_that_is_full(embedded_shop: Shop, tmp_path: Path, command: Command) -> None:
    """What was there stays, and of what was written nothing does."""
    target = tmp_path / "vectors.parquet"
    target.write_text("of last week")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        answer = command("export", "--repo", embedded_shop.repo.path, "--entity", "item", "--output", target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.endswith("File too large\n")
    assert (os.listdir(tmp_path), target.read_text()) == (["vectors.parquet"], "of last week")


def test_a_killed_writer_leaves_what_was_there(tmp_path: Path, start: Callable[..., Job]) -> None:
    """A file has its name only when it is whole; two writers at a time do not meet."""
    target = tmp_path / "vectors.parquet"
    target.write_text("of last week")
    job = start(jobs.write_half_a_file, target)
    assert job.receive() == "half is written"
    with new_file(target) as file:
        file.write(b"of today")
    assert job.kill() == []
    assert target.read_text() == "of today"


def test_a_folder_that_takes_no_file(tmp_path: Path) -> None:
    """Said as an error of ours."""
    with pytest.raises(InputError, match="cannot be written: No such file or directory; name another file"):  # noqa: SIM117
        with new_file(tmp_path / "nowhere" / "x.parquet"):
            pass

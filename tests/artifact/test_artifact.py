"""The artifact: whole or not at all, checked when read, one history for all versions."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.shop import AS_OF, alignment_to, item_table, user_table, write_tables, write_version

from feast_embeddings.artifact import (
    ENTITIES,
    Artifact,
    EmbeddingTable,
    TrainerInfo,
    list_artifacts,
    load_artifact,
    trained_models,
    write_artifact,
)
from feast_embeddings.artifact import new_version as artifact_module
from feast_embeddings.artifact.history import folder_of_source, history_folder, history_source
from feast_embeddings.artifact.seen import NEXT_TO_SEEN
from feast_embeddings.errors import ArtifactError, InputError


def write_with_items(data: Path, attributes: pa.Table, *, dim: int = 8) -> Artifact:
    rng = np.random.default_rng(0)
    n = attributes.num_rows
    ids = pa.array([f"sku-{i}" for i in range(n)])
    vectors = rng.standard_normal((n, dim)).astype(np.float32)
    return write_artifact(
        data,
        "shop",
        users=EmbeddingTable(pa.array(["u"]), np.ones((1, dim), np.float32), np.array([1])),
        items=EmbeddingTable(ids, vectors, np.ones(n, np.int64), bias=vectors[:, 0].copy(), attributes=attributes),
        as_of=AS_OF,
        trainer=TrainerInfo(name="random", config={}),
        seed=None,
        metrics={},
        fingerprint="0" * 64,
        n_interactions=1,
    )


def test_an_aligned_version_has_the_space_of_the_earlier(tmp_path: Path) -> None:
    """Its manifest and its rows name that space, and the manifest says how well it fits."""
    first = write_version(tmp_path)
    write_version(tmp_path, seed=1, alignment=alignment_to(first))
    manifest = load_artifact(tmp_path, "shop").manifest
    assert (manifest.aligned_to, manifest.space_id) == (first.manifest.version, first.manifest.space_id)
    assert (manifest.alignment_residual, manifest.alignment_cosine_before, manifest.alignment_cosine) == (
        0.25,
        0,
        0.875,
    )
    assert (manifest.alignment_shared_users, manifest.alignment_shared_items) == (10, 20)
    for entity in ENTITIES:
        table = load_artifact(tmp_path, "shop").table(entity)
        assert table["space"].unique().to_pylist() == [first.manifest.space_id]


def test_tables_come_back_as_written(tmp_path: Path) -> None:
    """Vectors, ids and attributes are read as they were given, under the documented schema."""
    artifact = write_version(tmp_path)
    items = load_artifact(tmp_path, "shop").table("item")
    rng = np.random.default_rng(0)
    user_table(rng, pa.array([f"u-{i}" for i in range(20)]))
    expected = item_table(rng, items["item_id"].combine_chunks())
    vectors = items["embedding"].combine_chunks().flatten().to_numpy().reshape(40, 8)
    assert vectors.tobytes() == expected.embedding.tobytes()
    assert items.schema.field("embedding").type == pa.list_(pa.float32(), 8)
    assert items.schema.field("event_timestamp").type == pa.timestamp("us", tz="UTC")
    assert items["version"].unique().to_pylist() == [artifact.manifest.version]
    assert items["category"].to_pylist()[:4] == ["Toys", "Books", "Books", "Toys"]


def test_versions_sort_by_age(tmp_path: Path) -> None:
    """The newest version is the default; each can be named."""
    first = write_version(tmp_path, seed=1)
    second = write_version(tmp_path, seed=2)
    assert [a.manifest.version for a in list_artifacts(tmp_path, "shop")] == [
        first.manifest.version,
        second.manifest.version,
    ]
    assert load_artifact(tmp_path, "shop") == second
    assert load_artifact(tmp_path, "shop", first.manifest.version) == first
    assert first.manifest.space_id != second.manifest.space_id
    assert trained_models(tmp_path) == ["shop"]


@pytest.mark.parametrize("file", ["users.parquet", "items.parquet"])
def test_a_changed_table_is_refused(tmp_path: Path, file: str) -> None:
    """One flipped bit in a table is found before anything is served from it."""
    artifact = write_version(tmp_path)
    path = artifact.path / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=f"{file} was changed after training"):
        artifact.table("user" if file == "users.parquet" else "item")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m | {"format_version": 99}, "artifact format 99, but this release reads 1 to 3"),
        (lambda m: m | {"dim": "many"}, "damaged: dim"),
        (lambda m: m | {"model": "other"}, "holds the manifest of other/"),
        (lambda m: {}, "is damaged"),
    ],
)
def test_a_wrong_manifest_is_refused(tmp_path: Path, edit, message: str) -> None:  # type: ignore[no-untyped-def]
    """A manifest of another format, model or shape is an error that says what is wrong with it."""
    path = write_version(tmp_path).path / "manifest.json"
    path.write_text(json.dumps(edit(json.loads(path.read_text()))))
    with pytest.raises(ArtifactError, match=message):
        load_artifact(tmp_path, "shop")


def test_nothing_is_left_when_writing_fails(tmp_path: Path) -> None:
    """Vectors that cannot be served leave no version and no temporary folder."""
    table = EmbeddingTable(pa.array(["a"]), np.full((1, 8), np.nan, np.float32), np.array([1]))
    with pytest.raises(InputError, match="NaN or infinity in 1 of 1 user vectors"):
        write_artifact(
            tmp_path,
            "shop",
            users=table,
            items=table,
            as_of=AS_OF,
            trainer=TrainerInfo(name="random", config={}),
            seed=None,
            metrics={},
            fingerprint="",
            n_interactions=1,
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../up", "A", "", "1a", "a-b", "a/b", "a" * 41])
def test_a_model_name_stays_inside_its_folder(tmp_path: Path, name: str) -> None:
    """Names that could leave the data folder, or that Feast or Qdrant could not hold, are refused."""
    with pytest.raises(InputError, match="model name"):
        write_version(tmp_path, model=name)
    assert list(tmp_path.iterdir()) == []


def test_unknown_versions_and_models_are_listed(tmp_path: Path) -> None:
    """The error names what there is instead."""
    version = write_version(tmp_path).manifest.version
    with pytest.raises(InputError, match=f"no version 'x'; it has {version}"):
        load_artifact(tmp_path, "shop", "x")
    with pytest.raises(InputError, match="models there: shop"):
        load_artifact(tmp_path, "shoe")


def test_the_history_joins_versions_with_different_columns(tmp_path: Path) -> None:
    """Attributes and dimensions may change between versions; DuckDB still reads all rows of all of them."""
    write_with_items(tmp_path, pa.table({"a": [1, 2]}))
    write_with_items(tmp_path, pa.table({"a": [1, 2, 3], "b": ["x", None, "z"]}), dim=4)
    write_with_items(tmp_path, pa.table({"b": ["q"], "a": [2.5]}))
    folder = history_folder(tmp_path / "shop", "item")
    table = duckdb.read_parquet(str(folder))
    rows = table.order("version, item_id").project("a, b, len(embedding)").fetchall()
    assert rows == [(1, None, 8), (2, None, 8), (1, "x", 4), (2, None, 4), (3, "z", 4), (2.5, "q", 8)]


def test_an_artifact_has_no_other_name(tmp_path: Path) -> None:
    """Whatever is written into the history, also where an older release made a hard link, no artifact changes."""
    first = write_version(tmp_path, seed=1)
    copy = history_folder(tmp_path / "shop", "item") / f"{first.manifest.version}.parquet"
    copy.unlink()
    copy.hardlink_to(first.path / "items.parquet")
    artifacts = [first, write_version(tmp_path, seed=2)]
    for path in (tmp_path / "shop" / "history").rglob("*.parquet"):
        path.write_bytes(b"")
    for artifact in artifacts:
        for entity in ENTITIES:
            artifact.verified(entity)
    write_version(tmp_path, seed=3)
    folder = history_folder(tmp_path / "shop", "item")
    assert duckdb.read_parquet(str(folder)).aggregate("count(*)").fetchall() == [(3 * 40,)]


@pytest.mark.parametrize("name", ["prod", "[prod]", "a*b", "what?", "[a-z]*", "x[", "]", "{a,b}"])
def test_a_repo_may_be_called_anything(name: str, tmp_path: Path) -> None:
    """What is special in a pattern of files is not in the path of the history that Feast gets."""
    folder = tmp_path / name
    write_version(folder)
    for other in ("p", "ab", "whatx", "a"):
        write_version(tmp_path / other, n_items=3)
    for entity, rows in (("user", 20), ("item", 40)):
        path = history_source(folder / "shop", entity)
        assert duckdb.read_parquet(path).aggregate("count(*)").fetchall() == [(rows,)]
        assert folder_of_source(path) == history_folder(folder / "shop", entity)


def at(monkeypatch: pytest.MonkeyPatch, time: datetime) -> None:
    """What the clock says from now on."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return time.astimezone(tz)

    monkeypatch.setattr(artifact_module, "datetime", Clock)


def test_a_new_version_is_the_newest_whatever_the_clock_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice in one millisecond, and with a clock that was set back by years."""
    now = datetime(2026, 3, 1, 23, 59, 59, 999_900, tzinfo=UTC)
    expected = ["20260301T235959999Z", "20260302T000000000Z", "20260302T000000001Z", "20270101T000000000Z"]
    clock = [now, now, now.replace(year=1999), now.replace(year=2027, month=1, day=1, hour=0, minute=0, second=0)]
    clock[-1] = clock[-1].replace(microsecond=0)
    for time, version in zip(clock, expected, strict=True):
        at(monkeypatch, time)
        artifact = write_version(tmp_path)
        assert artifact.manifest.version == version
        assert load_artifact(tmp_path, "shop") == artifact
        assert artifact.table("item")["version"].unique().to_pylist() == [version]
        assert artifact.table("item")["space"].unique().to_pylist() == [f"shop-{version}"]
        assert artifact.table("item")["created_timestamp"].unique().to_pylist() == [artifact.manifest.created_at]


@pytest.mark.parametrize("name", ["99991231T235959999Z", "20261399T000000000Z"])
def test_no_version_can_be_after_the_end_of_time(name: str, tmp_path: Path) -> None:
    """The error names the folder, and nothing is left."""
    last = write_version(tmp_path).path.rename(tmp_path / "shop" / name)
    before = sorted(path.name for path in (tmp_path / "shop").iterdir())
    with pytest.raises(ArtifactError, match=f"{name} is named like a version"):
        write_version(tmp_path)
    assert last.is_dir()
    assert sorted(path.name for path in (tmp_path / "shop").iterdir()) == before


def test_a_column_cannot_change_from_text_to_number(tmp_path: Path) -> None:
    """Types that do not mix are refused before the version is written."""
    first = write_with_items(tmp_path, pa.table({"a": ["x"]}))
    with pytest.raises(InputError, match="changed its type between versions"):
        write_with_items(tmp_path, pa.table({"a": [1]}))
    assert list_artifacts(tmp_path, "shop") == [first]


def test_attribute_types_are_normalised(tmp_path: Path) -> None:
    """Every column type that users have arrives as one of the served types."""
    day = datetime(2026, 1, 2, tzinfo=UTC)
    attributes = pa.table(
        {
            "i8": pa.array([1], pa.int8()),
            "u16": pa.array([2], pa.uint16()),
            "f32": pa.array([0.5], pa.float32()),
            "dec": pa.array(["1.50"]).cast(pa.decimal128(5, 2)),
            "dict": pa.array(["x"]).dictionary_encode(),
            "none": pa.nulls(1),
            "date": pa.array([day.date()]),
            "naive": pa.array([day.replace(tzinfo=None)], pa.timestamp("ns")),
            "flag": pa.array([True]),
            "words": pa.array([["a", "b"]]),
            "numbers": pa.array([[1, 2]], pa.list_(pa.int32())),
        }
    )
    table = pq.read_table(write_with_items(tmp_path, attributes).path / "items.parquet", partitioning=None)
    row = table.select(attributes.column_names).to_pylist()[0]
    assert row == {
        "i8": 1,
        "u16": 2,
        "f32": 0.5,
        "dec": 1.5,
        "dict": "x",
        "none": None,
        "date": day,
        "naive": day,
        "flag": True,
        "words": ["a", "b"],
        "numbers": [1, 2],
    }


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"embedding": pa.array([1.0])}, "'embedding' is reserved"),
        ({"_key": pa.array([1.0])}, "'_key' is reserved"),
        ({"s": pa.array([{"a": 1}])}, "type struct<a: int64>, which cannot be served"),
        ({"big": pa.array([[2**63]], pa.list_(pa.uint64()))}, "'big' does not fit list<item: int64>"),
    ],
)
def test_attributes_that_cannot_be_served_are_refused(
    tmp_path: Path, column: dict[str, pa.Array], message: str
) -> None:
    """The error names the column and why."""
    with pytest.raises(InputError, match=message):
        write_with_items(tmp_path, pa.table(column))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_artifacts_of_every_format_still_load(number: int) -> None:
    """A version written by the first release of its format is read exactly; these files never change."""
    artifact = load_artifact(Path(__file__).parents[1] / "artifacts" / f"v{number}", "golden")
    manifest = artifact.manifest
    assert (manifest.format_version, manifest.dim, manifest.seed) == (number, 2, 7)
    assert manifest.as_of == datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    assert manifest.metrics == {"recall@20": 0.25}
    users, items = artifact.table("user"), artifact.table("item")
    assert users["user_id"].to_pylist() == [1, 128, -3]
    assert users["seen_items"].to_pylist() == [["a", "b"], ["a"], []]
    assert items["embedding"].to_pylist() == [[0.0, 0.25], [0.5, 0.75]]
    assert items["bias"].to_pylist() == [0.5, -1.0]
    assert items.select(["item_id", "title", "price", "tags"]).to_pylist() == [
        {"item_id": "a", "title": "A", "price": 1.5, "tags": ["x"]},
        {"item_id": "b b", "title": "é 🎈", "price": None, "tags": []},
    ]


def test_weights_and_times_of_what_was_seen_still_load() -> None:
    """They came within format 3; this file never changes."""
    artifact = load_artifact(Path(__file__).parents[1] / "artifacts" / "v3", "weighed")
    days = [datetime(2026, 1, day, microsecond=1, tzinfo=UTC) for day in (1, 2)]
    assert artifact.manifest.history == 2
    assert artifact.table("user").select(["user_id", "seen_items", "seen_weights", "seen_times"]).to_pylist() == [
        {"user_id": 1, "seen_items": ["b", "a"], "seen_weights": [0.5, 11.0], "seen_times": days},
        {"user_id": 2, "seen_items": [], "seen_weights": [], "seen_times": []},
    ]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"seen_weights": [[1.0], [2.0]]}, "row 2, column 'seen_weights': 1 values for 2 items of 'seen_items'"),
        ({"seen_weights": [[1.0], None]}, "row 2, column 'seen_weights': 0 values for 2 items of 'seen_items'"),
        ({"seen_weights": [[1.0], [2.0, None]]}, "row 2, column 'seen_weights': a null"),
        ({"seen_weights": [[-1.0], [2.0, 1.0]]}, "row 1, column 'seen_weights': a weight that is not a number above 0"),
        ({"seen_times": [[], [AS_OF, AS_OF]]}, "row 1, column 'seen_times': 0 values for 1 items of 'seen_items'"),
        ({"seen_times": [[AS_OF], [AS_OF, None]]}, "row 2, column 'seen_times': a null"),
        ({"seen_items": None, "seen_times": [[], []]}, "the column 'seen_times' needs a column 'seen_items'"),
    ],
)
def test_weights_and_times_fit_what_was_seen(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    """The error says which row and column; nothing is left."""
    rng = np.random.default_rng(0)
    users = user_table(rng, pa.array(["u", "v"]), [["a"], ["a", "b"]])
    given: dict[str, Any] = {
        name: None if value is None else pa.array(value, NEXT_TO_SEEN[name]) for name, value in columns.items()
    }
    with pytest.raises(InputError, match=message):
        write_tables(tmp_path, replace(users, **given), item_table(rng, pa.array(["a", "b"])))
    assert not (tmp_path / "shop").exists() or list((tmp_path / "shop").glob("*Z*")) == []


@pytest.mark.parametrize(("name", "value"), [("space_id", "golden-other"), ("as_of", "2027-01-02T03:04:05.678901Z")])
def test_a_manifest_without_a_checksum_is_held_against_its_tables(name: str, value: str, tmp_path: Path) -> None:
    """Format 1 has none, but the tables say the space and the time as well."""
    golden = load_artifact(Path(__file__).parents[1] / "artifacts" / "v1", "golden").path
    copied = shutil.copytree(golden, tmp_path / "golden" / golden.name)
    manifest = json.loads((copied / "manifest.json").read_text())
    (copied / "manifest.json").write_text(json.dumps(manifest | {name: value}))
    artifact = load_artifact(tmp_path, "golden")
    with pytest.raises(ArtifactError, match="than its manifest: expected"):
        artifact.table("user")

"""Training frames, against a dictionary that looks at every version for every row, and against Feast's own join."""

from __future__ import annotations

import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureStore
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import Command
from tests.support.shop import AS_OF, Shop, alignment_to, apply, item_table, user_table, write_version

from feast_embeddings.artifact import TrainerInfo, embedding_matrix, write_artifact
from feast_embeddings.artifact.history import history_folder
from feast_embeddings.errors import ArtifactError, InputError, VersionMismatchError
from feast_embeddings.model.sides import model_view
from feast_embeddings.offline.as_of_join import Selection, join_as_of
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.repo import init_repo

DAY = timedelta(days=1)


@pytest.fixture
def store(shop: Shop) -> EmbeddingStore:
    """A model of one version that is not published: nothing has to be live."""
    return EmbeddingStore(shop.feature_store, "shop")


def matrix(shop: Shop) -> npt.NDArray[np.float32]:
    return embedding_matrix(shop.artifact.table("user"))


def test_training_frame_takes_the_version_of_the_time(shop: Shop) -> None:
    """Each row gets the version that existed then: none before the first, the newest at or before; no row is lost."""
    second = write_version(shop.repo.data, seed=1, as_of=AS_OF + timedelta(days=10), n_users=4)
    store = EmbeddingStore(shop.feature_store, "shop")
    day, first = timedelta(days=1), shop.artifact.manifest.version
    newest = second.manifest.version
    rows = [
        ("u-1", "sku-1", AS_OF - day, None, None),
        ("u-1", "sku-2", AS_OF, first, first),
        ("u-1", "sku-2", AS_OF, first, first),  # the same row twice stays twice
        ("u-1", "sku-1", AS_OF + 10 * day, newest, newest),
        ("u-9", "nothing", AS_OF + 11 * day, first, None),  # u-9 is only in the first version
        ("no-user", "sku-3", AS_OF + 9 * day, None, first),
    ]
    order = [4, 0, 3, 5, 1, 2]
    frame = pd.DataFrame(
        {
            "label": range(6),
            "user_id": [rows[i][0] for i in order],
            "item_id": [rows[i][1] for i in order],
            "event_timestamp": [rows[i][2] for i in order],
        },
        index=pd.Index([f"r{i}" for i in order]),
    )
    joined = store.training_frame(frame, allow_mixed_spaces=True)
    pd.testing.assert_frame_equal(joined[frame.columns], frame)
    assert joined["user_version"].tolist() == [rows[i][3] for i in order]
    assert joined["item_version"].tolist() == [rows[i][4] for i in order]
    vectors = dict(zip(order, joined["user_embedding"], strict=True))
    assert vectors[1].dtype == np.float32
    assert vectors[1].tobytes() == matrix(shop)[1].tobytes()
    assert vectors[0] is None
    spaces = dict(zip(order, joined["user_space"], strict=True))
    assert (spaces[1], spaces[3]) == (shop.artifact.manifest.space_id, second.manifest.space_id)


def test_training_frame_for_users_only(shop: Shop, store: EmbeddingStore) -> None:
    """With only one id column only that side is joined; text times and times with zones are understood."""
    frame = pd.DataFrame({"user_id": ["u-1", "u-2"], "event_timestamp": ["2026-05-02", "2026-05-01T13:59:00+02:00"]})
    joined = store.training_frame(frame)
    assert list(joined.columns) == ["user_id", "event_timestamp", "user_embedding", "user_version", "user_space"]
    assert joined["user_version"].tolist() == [shop.artifact.manifest.version, None]


def test_versions_of_one_space_mix(shop: Shop) -> None:
    """An aligned version has the space of the version before it, so one frame may hold both."""
    aligned = alignment_to(shop.artifact)
    second = write_version(shop.repo.data, seed=1, as_of=AS_OF + 10 * DAY, alignment=aligned)
    store = EmbeddingStore(shop.feature_store, "shop")
    rows = {"user_id": "u-1", "item_id": "sku-1", "event_timestamp": [AS_OF + DAY, AS_OF + 11 * DAY]}
    frame = store.training_frame(pd.DataFrame(rows))
    assert frame["user_version"].tolist() == [shop.artifact.manifest.version, second.manifest.version]
    assert set(frame["user_space"]) | set(frame["item_space"]) == {f"shop-{shop.artifact.manifest.version}"}


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"user_id": ["u"]}, "needs the column event_timestamp"),
        ({"event_timestamp": ["2026-01-01"], "label": [1]}, "needs the column event_timestamp and user_id"),
        ({"user_id": ["u"], "event_timestamp": ["soon"]}, "not an ISO 8601 time: .*soon[^.]*$"),
        ({"user_id": ["u"], "event_timestamp": [None]}, "is empty in 1 of 1 rows"),
        (
            {"user_id": [1.5], "event_timestamp": ["2026-01-01"]},
            r"user_id holds real numbers, as 1\.5 in row 1; expected text",
        ),
        (
            {"user_id": [True], "event_timestamp": ["2026-01-01"]},
            "user_id holds true and false, as True in row 1; expected text",
        ),
        (
            {"user_id": ["\udcff"], "event_timestamp": ["2026-01-01"]},
            "user_id: the ids of this model are text: .*udcff",
        ),
        ({"user_id": [b"\xff"], "event_timestamp": ["2026-01-01"]}, "user_id: the ids of this model are text: .*0xff"),
        ({"user_id": ["u"], "event_timestamp": [1767225600]}, "event_timestamp holds numbers"),
        ({"user_id": ["u"], "event_timestamp": ["2026-01-01"], "user_space": [1]}, "'user_space' exists already"),
    ],
)
def test_training_frame_says_what_it_needs(store: EmbeddingStore, frame: dict[str, list[object]], message: str) -> None:
    """A frame that cannot be joined is an error that names the column."""
    with pytest.raises(InputError, match=message):
        store.training_frame(pd.DataFrame(frame))


@pytest.mark.parametrize("labels", [None, "labels.csv", {"user_id": ["u"]}, pa.table({"user_id": ["u"]})])
def test_labels_that_are_no_frame(store: EmbeddingStore, labels: Any) -> None:
    """The error says what came."""
    with pytest.raises(InputError, match=f"must be a pandas DataFrame, got {type(labels).__name__}"):
        store.training_frame(labels)


Row = tuple[int, int, int, str]
"""A vector in the history: id, event time, created time, space; times in hours."""
Label = tuple[int | None, int]


def write_history(folder: Path, files: list[list[Row]]) -> None:
    """Write the files of a history in which the vector of a row is its own number, twice."""
    number = 0
    for path in folder.glob("*.parquet"):
        path.unlink()
    for i, rows in enumerate(files):
        hour = int(timedelta(hours=1) / timedelta(microseconds=1))
        ids, events, created, spaces = zip(*rows, strict=True) if rows else ((), (), (), ())
        numbers = np.arange(number, number + len(rows), dtype=np.float32)
        number += len(rows)
        stamp = pa.timestamp("us", tz="UTC")
        table = pa.table(
            {
                "user_id": pa.array([f"u-{id}" for id in ids], pa.string()),
                "embedding": pa.FixedSizeListArray.from_arrays(pa.array(np.repeat(numbers, 2)), 2),
                "event_timestamp": pa.array(np.array(events, dtype=np.int64) * hour).cast(stamp),
                "created_timestamp": pa.array(np.array(created, dtype=np.int64) * hour).cast(stamp),
                "version": pa.array([f"v{i}"] * len(rows), pa.string()),
                "space": pa.array(spaces, pa.string()),
            }
        )
        # Small row groups, so that there are several of them.
        pq.write_table(table, folder / f"{i}.parquet", row_group_size=3)


def slow_join(files: list[list[Row]], labels: list[Label], ttl: int, space: str | None) -> list[int | None]:
    """The number of each label's vector, by looking at all of them."""
    rows = [row for rows in files for row in rows]
    answers = []
    for id, time in labels:
        valid = [
            ((event, created), number)
            for number, (row_id, event, created, row_space) in enumerate(rows)
            if row_id == id and event <= time and (not ttl or event + ttl >= time) and space in (None, row_space)
        ]
        answers.append(max(valid)[1] if valid else None)
    return answers


hours = st.integers(-3, 12)
# A history never has two rows of one id with the same two times: which one Feast takes then is not defined.
rows = st.lists(
    st.tuples(st.integers(0, 4), hours, hours, st.sampled_from("ab")), max_size=40, unique_by=lambda row: row[:3]
)
histories = rows.flatmap(
    lambda all: st.lists(st.integers(0, len(all)), max_size=3).map(
        lambda cuts: [all[a:b] for a, b in zip([0, *sorted(cuts)], [*sorted(cuts), len(all)], strict=True)]
    )
)
label_lists = st.lists(st.tuples(st.one_of(st.none(), st.integers(0, 6)), hours), max_size=20)


@settings(max_examples=150, deadline=None)
@given(histories, label_lists, st.sampled_from([0, 1, 5]), st.sampled_from([None, "a", "c"]))
def test_the_join_is_what_a_dictionary_says(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[Row]], labels: list[Label], ttl: int, space: str | None
) -> None:
    """At or before the label, the later created of two, ttl inclusive, one space if asked; null ids have none."""
    folder = tmp_path_factory.mktemp("history")
    write_history(folder, files)
    hour = int(timedelta(hours=1) / timedelta(microseconds=1))
    joined = join_as_of(
        folder,
        "user",
        pa.array([None if id is None else f"u-{id}" for id, _ in labels], pa.string()),
        np.array([time * hour for _, time in labels], dtype=np.int64),
        ttl=timedelta(hours=ttl),
        dim=2,
        selection=Selection(space=space),
    )
    expected = slow_join(files, labels, ttl, space)
    assert joined.found.tolist() == [number is not None for number in expected]
    wanted = np.array([[np.nan if number is None else number] * 2 for number in expected], dtype=np.float32)
    np.testing.assert_array_equal(joined.vectors, wanted.reshape(-1, 2))
    flat = [(f"v{i}", row[3]) for i, rows in enumerate(files) for row in rows]
    assert list(zip(joined.versions, joined.spaces, strict=True)) == [
        (None, None) if number is None else flat[number] for number in expected
    ]


@pytest.mark.parametrize("ttl", [0, 5])
def test_the_join_is_feasts(shop: Shop, rng: np.random.Generator, ttl: int) -> None:
    """Every row of `get_historical_features`, by Feast's DuckDB store, on one large random case."""
    view = model_view(shop.feature_store, "shop", "user")
    view.ttl = timedelta(hours=ttl)
    shop.feature_store.apply(view)
    drawn = rng.integers(-3, 40, (3000, 3)) % [60, 40, 40]
    rows: list[Row] = [(*map(int, row), "s") for row in np.unique(drawn, axis=0)]  # type: ignore[misc]
    files = [rows[i::4] for i in range(4)]
    write_history(history_folder(shop.artifact.path.parent, "user"), files)
    labels: list[Label] = [(int(id), int(time)) for id, time in rng.integers(-3, 45, (2000, 2))]
    frame = pd.DataFrame(
        {
            "user_id": [f"u-{id}" for id, _ in labels],
            "event_timestamp": pd.to_datetime([time * 3600 for _, time in labels], unit="s", utc=True).as_unit("us"),
            "row": range(len(labels)),
        }
    )
    theirs = historical_features(shop.feature_store, frame).sort_values("row", ignore_index=True)
    ours = EmbeddingStore(shop.feature_store, "shop").training_frame(frame)
    assert ours["user_version"].tolist() == theirs["version"].tolist()
    first = [None if vector is None else float(vector[0]) for vector in ours["user_embedding"]]
    assert first == [None if vector is None else float(vector[0]) for vector in theirs["embedding"]]
    assert first == slow_join(files, labels, ttl, None)
    assert 200 < sum(number is None for number in first) < 1800


def test_labels_named_as_in_the_log(shop: Shop, store: EmbeddingStore, tmp_path: Path, command: Command) -> None:
    """Columns of ids may have the log's names, also in a file; the vectors are the same."""
    times = [AS_OF + DAY] * 2
    ours = pd.DataFrame({"user_id": ["u-1", "u-2"], "item_id": ["sku-1", "sku-7"], "event_timestamp": times})
    theirs = ours.rename(columns={"user_id": "customer_no", "item_id": "sku"})
    with pytest.raises(InputError, match="needs the column event_timestamp and user_id, item_id or both; got the "):
        store.training_frame(theirs)  # no version has these names yet
    columns = {"columns": {"user": "customer_no", "item": "sku", "timestamp": None, "weight": None, "event": None}}
    alignment = alignment_to(shop.artifact)
    write_version(shop.repo.data, seed=1, alignment=alignment, interactions=columns, as_of=AS_OF + 9 * DAY)

    expected = store.training_frame(ours)
    pd.testing.assert_frame_equal(
        store.training_frame(theirs).rename(columns={"customer_no": "user_id", "sku": "item_id"}), expected
    )
    mixed = store.training_vectors(ours.rename(columns={"item_id": "sku"})).matrix
    assert mixed.tobytes() == store.training_vectors(ours).matrix.tobytes()
    for name in ("customer_no", "sku"):
        with pytest.raises(InputError, match=rf"the table of labels has two columns of ids, '{name}' and .*; drop one"):
            store.training_frame(ours.assign(**{name: "x"}))
    with pytest.raises(InputError, match="event_timestamp and customer_no or user_id, sku or item_id or both; got"):
        store.training_frame(ours[["event_timestamp"]])

    labels, out = tmp_path / "labels.csv", tmp_path / "out.parquet"
    theirs.to_csv(labels, index=False)
    place = ("training-frame", "--repo", shop.repo.path, "--entities", labels, "--output", out)
    answer = command(*place)
    assert answer.code == 0, answer.err
    written = pd.read_parquet(out)
    assert written["customer_no"].tolist() == ["u-1", "u-2"]
    assert np.stack(list(written["user_embedding"])).tobytes() == np.stack(list(expected["user_embedding"])).tobytes()
    theirs.assign(user_id="x").to_csv(labels, index=False)
    answer = command(*place)
    assert (answer.code, answer.err) == (
        2, "error: the table of labels has two columns of ids, 'customer_no' and 'user_id'; drop one of them\n"
    )  # fmt: skip


def test_ids_of_labels_stay_text(tmp_path: Path, command: Command) -> None:
    """A file's column under the log's name is read as text, as user_id is: 007 is not 7."""
    repo = init_repo(tmp_path / "numbers")
    rng = np.random.default_rng(0)
    users = user_table(rng, pa.array(["007", "7"]))
    write_artifact(
        repo.data,
        "m",
        users=users,
        items=item_table(rng, pa.array(["1"])),
        as_of=AS_OF,
        trainer=TrainerInfo(name="none", config={}),
        seed=0,
        metrics={},
        fingerprint="",
        n_interactions=1,
        interactions={"columns": {"user": "customer_no", "item": "sku"}},
    )
    apply(repo, "m")
    labels, out = tmp_path / "labels.csv", tmp_path / "out.parquet"
    labels.write_text("customer_no,event_timestamp\n007,2026-06-01\n7,2026-06-01\n")
    answer = command("training-frame", "--repo", repo.path, "--entities", labels, "--output", out)
    assert answer.code == 0, answer.err
    assert np.stack(list(pd.read_parquet(out)["user_embedding"])).tobytes() == users.embedding.tobytes()


def historical_features(feature_store: FeatureStore, frame: pd.DataFrame) -> pd.DataFrame:
    features = [f"shop_user_embeddings:{name}" for name in ("embedding", "version")]
    with warnings.catch_warnings():
        # Feast turns deprecation warnings on; this one is between its own dependencies, ibis and duckdb.
        warnings.filterwarnings("ignore", message="fetch_arrow_table", category=DeprecationWarning)
        return feature_store.get_historical_features(entity_df=frame, features=features).to_df()


def test_any_frame_comes_back_as_it_was(shop: Shop, store: EmbeddingStore) -> None:
    """Odd indexes, columns of any type, times without a zone, ids as categories, null ids: all as given."""
    frame = pd.DataFrame(
        {
            "user_id": pd.Categorical(["u-1", "u-2", None, "u-1"]),
            "event_timestamp": [(AS_OF + n * DAY).replace(tzinfo=None) for n in (0, -1, 5, 1)],
            "when": pd.to_datetime(pd.Series(["2026-01-01", None, "2026-01-03", "2026-01-04"]))
            .dt.tz_localize("Asia/Tokyo")
            .array,
            "nested": [{"a": 1}, [1, 2], None, "x"],
            "small": np.array([1, 2, 3, 4], dtype=np.int8),
            "nullable": pd.array([1, None, 3, 4], dtype="Int64"),
            7: pd.array(["a", "b", None, "d"], dtype="string"),
        },
        index=pd.MultiIndex.from_tuples([("a", 1), ("a", 1), ("b", 2), ("a", 0)], names=["x", None]),
    )
    before = frame.copy(deep=True)
    joined = store.training_frame(frame)
    pd.testing.assert_frame_equal(frame, before)
    pd.testing.assert_frame_equal(joined[frame.columns], frame)
    assert joined["user_version"].notna().tolist() == [True, False, False, True]


def test_vectors_as_columns_and_as_a_matrix(shop: Shop, store: EmbeddingStore) -> None:
    """Columns of float32 named by number; the matrix is user, then item, under the same names; NaN where none is."""
    frame = pd.DataFrame(
        {
            "item_id": ["sku-3", "none", "sku-3"],
            "user_id": ["u-1", "u-2", "u-3"],
            "event_timestamp": [AS_OF, AS_OF, AS_OF - DAY],
        }
    )
    joined = store.training_frame(frame, vectors="columns")
    vectors = store.training_vectors(frame)
    dim = shop.artifact.manifest.dim
    names = [f"{entity}_embedding_{i}" for entity in ("user", "item") for i in range(dim)]
    assert vectors.columns == names
    assert [name for name in joined.columns if "embedding" in name] == names
    assert {str(joined[name].dtype) for name in names} == {"float32"}
    assert vectors.matrix.dtype == np.float32
    assert joined[names].to_numpy().tobytes() == vectors.matrix.tobytes()
    assert vectors.matrix[:2, :dim].tobytes() == matrix(shop)[1:3].tobytes()
    assert np.isnan(vectors.matrix[1, dim:]).all()
    assert np.isnan(vectors.matrix[2]).all()
    assert vectors.sides["item"].found.tolist() == [True, False, False]


def test_no_rows(store: EmbeddingStore) -> None:
    """A frame without rows gets the columns all the same."""
    empty = pd.DataFrame({"user_id": pd.array([], "string"), "event_timestamp": pd.to_datetime([], utc=True)})
    joined = store.training_frame(empty, vectors="columns")
    assert (len(joined), len(joined.columns)) == (0, 2 + 8 + 2)


def test_spaces_are_not_mixed_unless_told(shop: Shop, store: EmbeddingStore) -> None:
    """Vectors of two spaces are refused, on one side or across; a version, a space or the flag decides."""
    second = write_version(shop.repo.data, seed=1, as_of=AS_OF + 10 * DAY, n_users=4)
    first, newest = shop.artifact.manifest, second.manifest
    frame = pd.DataFrame({"user_id": ["u-1"] * 3, "event_timestamp": [AS_OF, AS_OF + 9 * DAY, AS_OF + 10 * DAY]})
    with pytest.raises(VersionMismatchError, match=rf"2 spaces, {first.space_id} \(2 vectors\), {newest.space_id}"):
        store.training_frame(frame)
    assert store.training_frame(frame, allow_mixed_spaces=True)["user_space"].nunique() == 2
    assert store.training_frame(frame.head(2))["user_space"].tolist() == [first.space_id] * 2
    for chosen in ({"space": first.space_id}, {"version": first.version}):
        assert store.training_frame(frame, **chosen)["user_version"].tolist() == [first.version] * 3  # type: ignore[arg-type]
    assert store.training_frame(frame, version=newest.version)["user_version"].tolist() == [None, None, newest.version]
    # u-9 is only in the first version, sku-1 in both.
    across = pd.DataFrame({"user_id": ["u-9"], "item_id": ["sku-1"], "event_timestamp": [AS_OF + 10 * DAY]})
    with pytest.raises(VersionMismatchError, match="2 spaces"):
        store.training_vectors(across)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"space": "x"}, "no space 'x'; it has shop-"),
        ({"version": "x"}, "no version 'x'; it has 2"),
        ({"version": "x", "space": "x"}, "not both"),
        ({"vectors": "matrix"}, "expected 'lists' or 'columns'"),
    ],
)
def test_choices_that_cannot_be(store: EmbeddingStore, choice: dict[str, Any], message: str) -> None:
    """An unknown version or space is an error that lists the known ones."""
    frame = pd.DataFrame({"user_id": ["u-1"], "event_timestamp": [AS_OF]})
    with pytest.raises(InputError, match=message):
        store.training_frame(frame, **choice)


def test_versions_of_different_lengths(shop: Shop, store: EmbeddingStore) -> None:
    """They do not fit into one matrix, even where spaces may be mixed; each alone does."""
    second = write_version(shop.repo.data, as_of=AS_OF + 10 * DAY, dim=5)
    frame = pd.DataFrame({"user_id": ["u-1"] * 2, "event_timestamp": [AS_OF, AS_OF + 10 * DAY]})
    with pytest.raises(InputError, match="vectors of lengths 8 and 5"):
        store.training_frame(frame, allow_mixed_spaces=True)
    assert store.training_vectors(frame, version=second.manifest.version).matrix.shape == (2, 5)


@pytest.mark.parametrize("ids", [[1, None, 3], [1.0, np.nan, 3.0], ["1", None, "3"]])
def test_whole_number_ids_in_the_forms_that_pandas_gives_them(tmp_path: Path, ids: list[Any]) -> None:
    """Whole numbers in a column with a null are floats in pandas; from a CSV they are text."""
    repo = init_repo(tmp_path / "repo")
    numbers = pa.array([1, 2, 3])
    write_artifact(
        repo.data,
        "shop",
        users=user_table(np.random.default_rng(0), numbers),
        items=item_table(np.random.default_rng(1), numbers),
        as_of=AS_OF,
        trainer=TrainerInfo(name="random", config={}),
        seed=0,
        metrics={},
        fingerprint="0" * 64,
        n_interactions=3,
    )
    store = EmbeddingStore(apply(repo), "shop")
    joined = store.training_frame(pd.DataFrame({"user_id": ids, "event_timestamp": AS_OF}))
    assert joined["user_version"].notna().tolist() == [True, False, True]


def test_a_history_that_is_gone(shop: Shop, store: EmbeddingStore) -> None:
    """Without the history there is an error, not a frame of nothing."""
    for path in (shop.artifact.path.parent / "history" / "users").iterdir():
        path.unlink()
    with pytest.raises(ArtifactError, match=r"holds no versions.*feast apply if the repo was moved"):
        store.training_frame(pd.DataFrame({"user_id": ["u-1"], "event_timestamp": [AS_OF]}))

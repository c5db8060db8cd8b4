"""Vectors that were made elsewhere: which tables become a version, and which are refused, with the row."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedding_trainers.fold_in import FoldIn
from embedding_trainers.importing import VectorFile, import_model
from feast_embeddings.artifact import Artifact, Entity, embedding_matrix
from feast_embeddings.errors import InputError, MissingSideError

VECTORS = [[1.0, 0.5, 0.0], [0.0, -2.0, 0.25], [3.0, 0.0, 1.0]]
IDS = ["a", "b", "c"]


def write(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def items(path: Path, **columns: Any) -> Path:
    return write(path, **({"item_id": IDS, "embedding": VECTORS} | columns))


def imported(repo: Path, item_file: Path | None = None, user_file: Path | None = None, **options: Any) -> Artifact:
    given: dict[Entity, Path | None] = {"user": user_file, "item": item_file}
    files = {entity: VectorFile(path) for entity, path in given.items() if path is not None}
    return import_model(repo, "m", files, **options)


@pytest.mark.parametrize(
    "dtype",
    [
        pa.list_(pa.float32()),
        pa.list_(pa.float64()),
        pa.list_(pa.float16()),
        pa.large_list(pa.float32()),
        pa.list_(pa.float32(), 3),
        pa.list_(pa.float64(), 3),
    ],
    ids=str,
)
def test_types_of_vectors(repo: Path, tmp_path: Path, dtype: pa.DataType) -> None:
    """Each type of list of real numbers gives the same float32 vectors."""
    vectors = [np.array(row, np.float16) for row in VECTORS] if dtype == pa.list_(pa.float16()) else VECTORS
    artifact = imported(repo, items(tmp_path / "i.parquet", embedding=pa.array(vectors, dtype)))
    table = artifact.table("item")
    assert table["item_id"].to_pylist() == IDS
    assert embedding_matrix(table).tobytes() == np.array(VECTORS, np.float32).tobytes()


def test_text_formats(repo: Path, tmp_path: Path) -> None:
    """A list in a CSV field or a JSON array is a vector; other columns are attributes of the usual types."""
    rows = [{"item_id": id, "embedding": vector, "price": 1.5} for id, vector in zip(IDS, VECTORS, strict=True)]
    lines = tmp_path / "i.jsonl"
    lines.write_text("\n".join(map(json.dumps, rows)))
    comma = tmp_path / "i.csv"
    comma.write_text("item_id,embedding,price\n" + "\n".join(f'{r["item_id"]},"{r["embedding"]}",1.5' for r in rows))
    for path in (lines, comma):
        table = imported(repo, path, space="s").table("item")
        assert embedding_matrix(table).tobytes() == np.array(VECTORS, np.float32).tobytes()
        assert table["price"].to_pylist() == [1.5, 1.5, 1.5]


def test_all_columns(repo: Path, tmp_path: Path) -> None:
    """Bias, counts, seen items and attributes of both sides; the manifest says what is known."""
    users = write(
        tmp_path / "u.parquet", user_id=[1, 2], embedding=VECTORS[:2], seen_items=[["a"], []], n_interactions=[1, 0],
        seen_weights=[[2], []], seen_times=[[datetime(2026, 1, 1)], []],
    )  # fmt: skip
    item_file = items(tmp_path / "i.parquet", bias=[0.5, 0.0, -1.0], n_interactions=[1, 0, 0], title=["x", "y", None])
    artifact = imported(repo, item_file, users, source="tower 7", metrics={"recall@20": 0.25})
    manifest, users_table, items_table = artifact.manifest, artifact.table("user"), artifact.table("item")
    assert (manifest.trainer.name, manifest.trainer.config) == ("import", {"source": "tower 7"})
    assert (manifest.n_users, manifest.n_items, manifest.dim, manifest.n_interactions) == (2, 3, 3, 1)
    assert (manifest.metrics, manifest.seed, manifest.sides) == ({"recall@20": 0.25}, None, ("user", "item"))
    assert users_table["user_id"].to_pylist() == [1, 2]
    assert users_table["seen_items"].to_pylist() == [["a"], []]
    assert users_table["seen_weights"].to_pylist() == [[2.0], []]
    assert users_table["seen_times"].to_pylist() == [[datetime(2026, 1, 1, tzinfo=UTC)], []]
    assert items_table["bias"].to_pylist() == [0.5, 0.0, -1.0]
    assert items_table["title"].to_pylist() == ["x", "y", None]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"item_id": ["a", None, "c"]}, r"'item_id': 1 of 3 rows have no id; the first is row 2"),
        ({"item_id": ["a", "", "c"]}, r"'item_id': 1 of 3 rows have no id; the first is row 2"),
        ({"item_id": ["a", "b", "a"]}, r"1 of 3 rows repeat an id; the first is row 3 \(id 'a'\)"),
        ({"item_id": [1.0, 2.0, 3.0]}, r"ids must be text or whole numbers, but the type is double"),
        ({"embedding": [[1.0, 2.0], None, [1.0, 2.0]]}, r"1 of 3 rows have no vector.* row 2 \(id 'b'\)"),
        ({"embedding": [[1.0, 2.0], [1.0], [1.0, 2.0]]}, r"does not have the length of row 1, 2; the first is row 2"),
        ({"embedding": [[], [], []]}, r"3 of 3 rows have a vector of length 0"),
        ({"embedding": [[1.0, 2.0], [1.0, float("nan")], [1.0, 2.0]]}, r"NaN or infinity .* row 2 \(id 'b'\)"),
        ({"embedding": [[1.0, 2.0], [1.0, 2.0], [1e39, 2.0]]}, r"NaN or infinity .* row 3 \(id 'c'\)"),
        ({"embedding": [[1.0, 2.0], [1.0, None], [1.0, 2.0]]}, r"null, NaN or infinity .* row 2 \(id 'b'\)"),
        ({"embedding": [[1.0, 2.0], [0.0, 0.0], [0.0, 0.0]]}, r"2 of 3 rows have a vector of zeros.* row 2 \(id 'b'\)"),
        ({"embedding": [1.0, 2.0, 3.0]}, r"'embedding' has type DOUBLE; expected lists of real numbers"),
        ({"embedding": ["a", "b", "c"]}, r"3 of 3 rows have no vector, or one that is not a list of numbers"),
        ({"bias": [1.0, None, 2.0]}, r"'bias': 1 of 3 rows .* row 2"),
        ({"n_interactions": [1, -1, 2]}, r"'n_interactions': 1 of 3 rows .* below 0; the first is row 2"),
        ({"n_interactions": ["x", "y", "z"]}, r"'n_interactions' has type string; expected whole numbers"),
        ({"seen_items": [["a"]] * 3}, r"'seen_items': only users have them"),
        ({"seen_weights": [[1.0]] * 3}, r"'seen_weights': only users have them"),
        ({"version": ["x", "y", "z"]}, r"the column name 'version' is reserved"),
    ],
)
def test_refused_rows(repo: Path, tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    """One line names the file, the column and the first row; nothing is written."""
    path = items(tmp_path / "i.parquet", **columns)
    with pytest.raises(InputError, match=message) as error:
        imported(repo, path)
    assert str(error.value).startswith(str(path))
    assert not (repo / "data" / "m").exists()


SEEN = {"seen_items": [["a"], ["b"]]}


@pytest.mark.parametrize(
    ("users", "message"),
    [
        ({"embedding": [[1.0], [2.0]]}, "vectors of one dimension, but .* have 1 and .* 3"),
        ({"bias": [1.0, 2.0]}, "'bias': only items have one"),
        ({"seen_items": [["a"], [None]]}, "'seen_items' has a null in a list"),
        ({"seen_items": [1, 2]}, "'seen_items' has type int64; expected lists of item ids"),
        ({"seen_weights": [[1.0], []]}, "'seen_weights' needs a column 'seen_items'"),
        (
            SEEN | {"seen_weights": [[1.0], []]},
            r"'seen_weights': row 2 \(id 'v'\): 0 values for 1 items of 'seen_items'",
        ),
        (SEEN | {"seen_weights": [[1.0], None]}, r"'seen_weights': row 2 \(id 'v'\): 0 values for 1 items"),
        (SEEN | {"seen_weights": [[1.0], [0.0]]}, r"row 2 \(id 'v'\): a weight that is not a number above 0"),
        (SEEN | {"seen_weights": [[1.0], [1e39]]}, r"row 2 \(id 'v'\): a weight that is not a number above 0"),
        (SEEN | {"seen_weights": [[None], [1.0]]}, r"row 1 \(id 'u'\): a null"),
        (SEEN | {"seen_weights": [["a"], ["b"]]}, "'seen_weights' has type list<.*string>; expected list<"),
        (SEEN | {"seen_times": [[1.0], [2.0]]}, "'seen_times' has type list<.*double>; expected list<"),
    ],
)
def test_refused_users(repo: Path, tmp_path: Path, users: dict[str, Any], message: str) -> None:
    """What only users can have wrong."""
    path = write(tmp_path / "u.parquet", **({"user_id": ["u", "v"], "embedding": VECTORS[:2]} | users))
    with pytest.raises(InputError, match=message):
        imported(repo, items(tmp_path / "i.parquet"), path)


def test_the_next_version(repo: Path, tmp_path: Path) -> None:
    """Ids and attributes are read as those of the version before; ids that cannot be are refused, and new sides."""
    imported(repo, items(tmp_path / "i.parquet", item_id=[1, 2, 3]))
    comma = tmp_path / "i.csv"
    comma.write_text('item_id,embedding\n4,"[1, 2, 3]"\n')
    assert imported(repo, comma).table("item")["item_id"].to_pylist() == [4]
    with pytest.raises(InputError, match=r"'item_id': 3 of 3 rows have no whole number; the first is row 1 \(id 'a'\)"):
        imported(repo, items(tmp_path / "i.parquet"))
    users = write(tmp_path / "u.parquet", user_id=["u"], embedding=VECTORS[:1])
    with pytest.raises(InputError, match=r"with users cannot follow version \w+, which has items"):
        imported(repo, None, users)
    with pytest.raises(InputError, match="with users and items cannot follow"):
        imported(repo, comma, users)


def test_spaces(repo: Path, tmp_path: Path) -> None:
    """A named space is shared by its versions, a new one is not; a space has one dimension."""
    path = items(tmp_path / "i.parquet")
    first, second, other = (imported(repo, path, space=space).manifest for space in ("ada", "ada", None))
    assert first.space_id == second.space_id == "m-ada"
    assert (first.new_space_reason, second.new_space_reason) == ("the first version in space ada", "")
    assert other.space_id == f"m-{other.version}"
    with pytest.raises(InputError, match=r"dimension 3 .*, got 2"):
        imported(repo, items(tmp_path / "short.parquet", embedding=[[1.0, 2.0]] * 3), space="ada")
    for name in ("", "a b", first.version):
        with pytest.raises(InputError, match="space name"):
            imported(repo, path, space=name)


def test_alignment(repo: Path, tmp_path: Path) -> None:
    """Rotated vectors are rotated back into the space of the earlier version, though no interactions are known."""
    rng = np.random.default_rng(0)
    vectors, turn = rng.standard_normal((40, 4)), np.linalg.qr(rng.standard_normal((4, 4)))[0]
    ids = [f"i{n}" for n in range(40)]
    old = imported(repo, items(tmp_path / "old.parquet", item_id=ids, embedding=list(vectors)))
    turned = items(tmp_path / "new.parquet", item_id=ids, embedding=list(vectors @ turn))
    new = imported(repo, turned, align_to="latest")
    assert (new.manifest.space_id, new.manifest.aligned_to) == (old.manifest.space_id, old.manifest.version)
    assert (new.manifest.alignment_shared_users, new.manifest.alignment_shared_items) == (0, 40)
    np.testing.assert_allclose(embedding_matrix(new.table("item")), vectors, atol=1e-5)
    few = items(tmp_path / "few.parquet", item_id=ids[:3], embedding=list(vectors[:3]))
    with pytest.raises(InputError, match="cannot align: only 0 users and 3 items are shared"):
        imported(repo, few, align_to=old.manifest.version)
    with pytest.raises(InputError, match="--space and --align-to exclude each other"):
        imported(repo, turned, align_to="latest", space="s")


def test_arguments(repo: Path, tmp_path: Path) -> None:
    """No table, a table without rows or columns, a type for an unknown attribute; the side that is not there."""
    with pytest.raises(InputError, match="nothing to import"):
        imported(repo)
    with pytest.raises(InputError, match="has no column 'item_id'"):
        imported(repo, write(tmp_path / "x.parquet", id=IDS, embedding=VECTORS))
    with pytest.raises(InputError, match="has no rows"):
        imported(
            repo,
            items(
                tmp_path / "none.parquet",
                item_id=pa.array([], pa.string()),
                embedding=pa.array([], pa.list_(pa.float32())),
            ),
        )
    with pytest.raises(InputError, match="--attribute-types names 'colour'"):
        imported(repo, items(tmp_path / "i.parquet"), attribute_types={"colour": "text"})
    artifact = imported(repo, items(tmp_path / "i.parquet"))
    assert (artifact.manifest.sides, artifact.manifest.parts("user")) == (("item",), {})
    assert sorted(path.name for path in artifact.path.iterdir()) == ["items.parquet", "manifest.json"]
    with pytest.raises(MissingSideError, match="has no users"):
        artifact.table("user")
    with pytest.raises(InputError, match="was imported, and only what made its vectors can make more"):
        FoldIn(artifact, "user")

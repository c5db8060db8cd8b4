"""Images by a model: the real library on a tiny model, and where files may be."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.support.tiny_models import image_model
from tests.trainers.content.conftest import ITEMS, Decided

from embedding_trainers.content.features import Features
from embedding_trainers.content.models.images import ImageEncoder, located_images
from embedding_trainers.content.spec import ContentColumn
from embedding_trainers.content.testing import EncoderTests
from embedding_trainers.fold_in import fold_in_new_rows
from embedding_trainers.train import train_model
from embedding_trainers.trainer import RunOptions
from feast_embeddings.artifact import Artifact
from feast_embeddings.errors import InputError

COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255), "grey": (100, 100, 100)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that finds the mean colour."""
    return image_model(tmp_path_factory.mktemp("vision") / "model")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos below it, and one file that is none."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "photos").mkdir()
    for name, colour in COLOURS.items():
        Image.new("RGB", (20, 10), colour).save(folder / "photos" / f"{name}.png")
    (folder / "photos" / "text.png").write_text("no image")
    return folder


class TestImages(EncoderTests):
    """The real library on a tiny model."""

    encoder = ImageEncoder
    model: ClassVar[str] = ""

    @pytest.fixture(autouse=True)
    def _model(self, model: Path) -> None:
        type(self).model = str(model)


def test_paths_and_bytes_are_alike(model: Path, folder: Path) -> None:
    """The mean colours of photos, at length 1; a file and its bytes have the same, null is zeros."""
    files = [folder / "photos" / f"{name}.png" for name in COLOURS]
    encoder = ImageEncoder(str(model))
    paths = pa.chunked_array([[*map(str, files), None]])
    encoder.fit(paths)

    encoded = encoder.encode(paths)

    colours = np.array(list(COLOURS.values()), float)
    expected = colours / np.linalg.norm(colours, axis=1, keepdims=True)
    np.testing.assert_allclose(encoded, [*expected, np.zeros(3)], atol=1e-5)
    contents = pa.chunked_array([pa.array([*(file.read_bytes() for file in files), None], pa.binary())])
    assert encoder.encode(contents).tobytes() == encoded.tobytes()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["photos/red.png", "photos/none.png"], r"items.csv, row 2, 'photo': 'photos/none.png': there is no file"),
        (["../secret.png"], r"row 1, 'photo': '../secret.png' leaves the folder"),
        (["photos"], "there is no file"),
    ],
)
def test_refused_paths(values: list[str], message: str, model: Path, folder: Path) -> None:
    """A path that leaves the folder or leads nowhere is refused, with its row."""
    column = ContentColumn("photo", "image", str(model))
    with pytest.raises(InputError, match=message):
        located_images(pa.table({"photo": values}), [column], folder, "items.csv")


def test_full_paths_may_be_anywhere(folder: Path, model: Path, tmp_path: Path) -> None:
    """A full path stays as it is; a link that leads out of the folder does not pass as relative."""
    column, full = ContentColumn("photo", "image", str(model)), str(folder / "photos" / "red.png")
    located = located_images(pa.table({"photo": [full, None]}), [column], tmp_path, "items.csv")
    assert located["photo"].to_pylist() == [full, None]
    (tmp_path / "link.png").symlink_to(full)
    with pytest.raises(InputError, match=r"'link.png' leaves the folder"):
        located_images(pa.table({"photo": ["link.png"]}), [column], tmp_path, "items.csv")


def encoded(table: pa.Table, column: ContentColumn) -> object:
    """Fit and encode a column."""
    return Features.fitted(table, [column]).of(table)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (pa.array([b"no image"]), "8 bytes cannot be read as an image: UnidentifiedImageError"),
        (pa.array([b"P6 9 9 255\n"]), "11 bytes cannot be read as an image"),
        (pa.array([1.5]), "expected images, paths of files or their bytes, got values of type double"),
    ],
)
def test_refuses(values: pa.Array, message: str, model: Path) -> None:
    """What is no image."""
    table, column = pa.table({"photo": values}), ContentColumn("photo", "image", str(model))
    with pytest.raises(InputError, match=message):
        encoded(table, column)


def test_training(repo: Path, decided: Decided, model: Path, folder: Path, tmp_path: Path) -> None:
    """Photos beside the catalogue become vectors; new items have bytes, and no paths without a file."""
    log, catalogue = tmp_path / "log.parquet", folder / "items.parquet"
    users, items = decided.matrix[:, :150].nonzero()
    pq.write_table(pa.table({"user_id": [f"u{n}" for n in users], "item_id": [f"i{n}" for n in items]}), log)
    photos = [f"photos/{list(COLOURS)[n % 3]}.png" for n in range(ITEMS)]
    table = pa.table({"item_id": [f"i{n}" for n in range(ITEMS)], "photo": photos})

    def trained(table: pa.Table) -> Artifact:
        pq.write_table(table, catalogue)
        return train_model(
            repo,
            "m",
            log,
            content=f"photo:image:{model}",
            trainer="als",
            item_attributes=catalogue,
            parameters={"factors": 8},
            options=RunOptions(seed=1, threads=1),
            evaluation=False,
        ).artifact

    artifact = trained(table)

    assert "photo" not in artifact.table("item").column_names
    assert len(artifact.table("item")) == ITEMS
    red = (folder / "photos" / "red.png").read_bytes()
    new = fold_in_new_rows(artifact, "item", pa.table({"item_id": ["new"], "photo": pa.array([red])}))
    cold = artifact.table("item").filter(pc.equal(artifact.table("item")["item_id"], "i150"))
    np.testing.assert_allclose(new.vectors[0], cold["embedding"][0].as_py(), atol=1e-5)  # 150 is a red one
    with pytest.raises(InputError, match="is a path, and the table is no file; give the bytes"):
        fold_in_new_rows(
            artifact, "item", pa.table({"item_id": ["new"], "photo": [str(folder / "photos" / "red.png")]})
        )
    with pytest.raises(InputError, match=r"photo:image.*photos/text.png' cannot be read as an image"):
        trained(pa.concat_tables([table, pa.table({"item_id": ["bad"], "photo": ["photos/text.png"]})]))

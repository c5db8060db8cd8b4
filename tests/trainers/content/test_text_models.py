"""Encoders of text that load a model: the real libraries on tiny models, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants
from model2vec import StaticModel
from tests.support.tiny_models import static_model, transformer
from tests.trainers.content.conftest import Decided

from embedding_trainers.content.encoder import find_encoder, make_encoder
from embedding_trainers.content.features import Features
from embedding_trainers.content.models.files import find_model
from embedding_trainers.content.models.text import FastEmbedEncoder, Model2VecEncoder, SentenceTransformersEncoder
from embedding_trainers.content.spec import ContentColumn
from embedding_trainers.content.testing import EncoderTests
from embedding_trainers.content.text_encoder import TextEncoder
from embedding_trainers.train import train_model
from embedding_trainers.trainer import RunOptions
from feast_embeddings.errors import ArtifactError, EmbeddingsError, InputError, MissingExtraError

TEXTS = pa.chunked_array([["red lamp", None, "Blue Chair", "a thing"]])


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of model2vec."""
    return static_model(tmp_path_factory.mktemp("static") / "model")


@pytest.fixture(scope="module")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of fastembed."""
    return transformer(tmp_path_factory.mktemp("onnx") / "model")


class TestModel2Vec(EncoderTests):
    """The real library on a tiny model."""

    encoder = Model2VecEncoder

    @pytest.fixture(autouse=True)
    def _model(self, static: Path) -> None:
        type(self).model = str(static)

    model: ClassVar[str] = ""


class TestFastEmbed(EncoderTests):
    """The real library on a tiny model."""

    encoder = FastEmbedEncoder

    @pytest.fixture(autouse=True)
    def _model(self, onnx: Path) -> None:
        type(self).model = str(onnx)

    model: ClassVar[str] = ""


def test_model2vec_is_that_of_the_library(static: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors are the library's at length 1, whatever the batches; null is zeros."""
    monkeypatch.setattr(Model2VecEncoder, "batch", 2)
    encoder = Model2VecEncoder(str(static))
    encoder.fit(TEXTS)

    encoded = encoder.encode(TEXTS)

    expected = StaticModel.from_pretrained(static).encode(["red lamp", "Blue Chair", "a thing"])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(encoded[[0, 2, 3]], expected, atol=1e-6)
    assert not encoded[1].any()


@pytest.mark.parametrize(("pooling", "expected"), [("mean", "mean"), ("cls", "first"), (None, "mean")])
def test_pooling_of_a_folder(pooling: str | None, expected: str, tmp_path: Path) -> None:
    """The folder says how the vectors of tokens become one."""
    folder = transformer(tmp_path / "model")
    if pooling:
        (folder / "1_Pooling").mkdir()
        key = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}[pooling]
        (folder / "1_Pooling" / "config.json").write_text(json.dumps({key: True}))
    encoder = FastEmbedEncoder(str(folder))
    encoder.fit(TEXTS)

    one, red, lamp = encoder.encode(pa.chunked_array([["red lamp", "red", "lamp"]]))

    if expected == "first":
        np.testing.assert_allclose(one, red, atol=1e-6)
    else:
        # Of lengths 1, the mean is between; it is not the first.
        assert np.linalg.matrix_rank(np.stack([one, red, lamp]), tol=1e-4) == 2
        assert np.abs(one - red).max() > 0.01


@pytest.mark.parametrize("name", ["model2vec", "fastembed"])
def test_other_weights_are_refused(name: str, tmp_path: Path) -> None:
    """A version is not read with weights that it was not trained with, and the error says so."""
    make = {"model2vec": static_model, "fastembed": transformer}[name]
    folder = make(tmp_path / "model")
    encoder = find_encoder(name)(str(folder))
    encoder.fit(TEXTS)
    settings, arrays = encoder.state()
    weights = folder / {"model2vec": "model.safetensors", "fastembed": "model.onnx"}[name]
    weights.write_bytes((make(tmp_path / "other", seed=1) / weights.name).read_bytes())

    with pytest.raises(ArtifactError, match="has other weights than the version was trained with"):
        type(encoder).from_state(settings, arrays)


def test_state_names_the_model(static: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder is named in full, so that another process finds it, with the hash of what is in it."""
    monkeypatch.chdir(static.parent)
    encoder = Model2VecEncoder("model")
    encoder.fit(TEXTS)

    settings, arrays = encoder.state()

    assert settings == {
        "model": str(static),
        "revision": "",
        "weights_sha256": find_model("model", Model2VecEncoder.patterns, "text").sha256,
        "dim": 6,
    }
    assert arrays == {}


def test_progress(static: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A bar is shown when it is asked for, and only then."""
    table, column = pa.table({"title": TEXTS}), [ContentColumn("title", "model2vec", str(static))]
    Features.fitted(table, column).of(table)
    assert capsys.readouterr().err == ""

    Features.fitted(table, column, progress=True).of(table)

    assert "3/3" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["model2vec", "fastembed", "sentence-transformers"])
@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("", "expected a model, such as COLUMN:ENCODER:"),
        ("no such folder", "no folder 'no such folder', and it is no name of a hub's model"),
        (".", "holds no model: it has no file"),
    ],
)
def test_refuses(name: str, model: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What names no model."""
    monkeypatch.chdir(tmp_path)

    with pytest.raises(InputError, match=message):
        make_encoder(ContentColumn("title", name, model)).fit(TEXTS)


def test_refuses_damaged_files(static: Path, tmp_path: Path) -> None:
    """A file that the library cannot read is an error of ours, with the folder."""
    folder = static_model(tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"not weights")

    with pytest.raises(InputError, match=f"in {folder} cannot be loaded: SafetensorError"):
        Model2VecEncoder(str(folder)).fit(TEXTS)


def test_model_of_the_hub(static: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the hub's cache has is used without a network, and the version has its revision."""
    old, new = ("0123456789abcdef" * 2 + "01234567", "f" * 40)
    cached = tmp_path / "models--owner--name"
    (cached / "snapshots").mkdir(parents=True)
    shutil.copytree(static, cached / "snapshots" / old)
    static_model(cached / "snapshots" / new, seed=1)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(old)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    encoder = Model2VecEncoder("owner/name")
    encoder.fit(TEXTS)
    settings, arrays = encoder.state()
    assert (settings["model"], settings["revision"]) == ("owner/name", old)
    (cached / "refs" / "main").write_text(new)  # the model went on; the version did not

    restored = Model2VecEncoder.from_state(settings, arrays)

    assert restored.encode(TEXTS).tobytes() == encoder.encode(TEXTS).tobytes()
    (cached / "snapshots" / old / "model.safetensors").unlink()
    with pytest.raises(EmbeddingsError, match="'owner/name' cannot be had from the hub"):
        Model2VecEncoder.from_state(settings, arrays)


@pytest.mark.parametrize("name", ["model2vec", "sentence-transformers"])
def test_hub_that_cannot_be_reached(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No model, no traceback."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    with pytest.raises(EmbeddingsError, match="'no-one/no-such-model' cannot be had from the hub"):
        find_encoder(name)("no-one/no-such-model").fit(TEXTS)


@pytest.mark.parametrize(
    ("encoder", "module", "extra"),
    [
        (Model2VecEncoder, "model2vec", "text"),
        (FastEmbedEncoder, "fastembed", "text"),
        (SentenceTransformersEncoder, "sentence_transformers", "text-torch"),
    ],
)
def test_without_the_library(
    encoder: type[Model2VecEncoder], module: str, extra: str, static: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error has the command that installs it."""
    monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(MissingExtraError, match=rf"pip install 'feast-embeddings\[{extra}\]'"):
        encoder(str(static)).fit(TEXTS)


def test_training(repo: Path, static: Path, decided: Decided, tmp_path: Path) -> None:
    """A version is trained, finds items by a text, names the model, and is not read with other weights."""
    folder, log, catalogue = tmp_path / "model", tmp_path / "log.parquet", tmp_path / "items.parquet"
    shutil.copytree(static, folder)
    users, items = decided.matrix[:, :150].nonzero()
    pq.write_table(pa.table({"user_id": [f"u{n}" for n in users], "item_id": [f"i{n}" for n in items]}), log)
    ids = pa.array([f"i{n}" for n in range(len(decided.table))])
    pq.write_table(decided.table.append_column("item_id", ids), catalogue)

    given: dict[str, Any] = {
        "content": f"title:model2vec:{folder}",
        "trainer": "als",
        "item_attributes": catalogue,
        "parameters": {"factors": 8},
        "options": RunOptions(seed=1, threads=1),
        "evaluation": False,
    }

    artifact = train_model(repo, "m", log, **given).artifact

    def again() -> bool:
        return train_model(repo, "m", log, if_changed=True, **given).unchanged

    assert again()
    (described,) = (artifact.manifest.content or {})["columns"]
    assert (described["encoder"], described["model"]) == ("model2vec", str(folder))
    assert described["settings"]["model"] == str(folder)
    encoder = TextEncoder(artifact)
    assert encoder.columns == ["title"]
    assert encoder.vectors("a red thing") is not None
    assert encoder.vectors("unheardof") is None
    static_model(folder, seed=1)
    with pytest.raises(ArtifactError, match="has other weights than the version was trained with"):
        TextEncoder(artifact)
    assert not again()

"""Texts by trained models: static vectors of words, ONNX transformers, and PyTorch's."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import pyarrow as pa

from embedding_trainers.content.encoders.columns import text_of
from embedding_trainers.content.models.encoder import ModelEncoder
from embedding_trainers.content.models.files import ModelFiles, find_model
from embedding_trainers.content.spec import Kind
from embedding_trainers.extra import import_extra
from feast_embeddings.errors import InputError

__all__ = ["FastEmbedEncoder", "Model2VecEncoder", "SentenceTransformersEncoder"]

_PURPOSE = "an encoder of text"


class _TextModelEncoder(ModelEncoder):
    kind: ClassVar[Kind] = "text"
    extra = "text"
    batch = 256

    @property
    def probe(self) -> Any:
        """A word."""
        return "a"

    def values(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """As text."""
        return text_of(column)


class Model2VecEncoder(_TextModelEncoder):
    """The mean of static vectors of a text's tokens (model2vec): quick, and no graph to run."""

    example = "minishlab/potion-base-8M"
    patterns = ("model.safetensors", "tokenizer.json", "config.json")
    batch = 1024

    def load(self, files: ModelFiles) -> Any:
        """See `ModelEncoder`."""
        return import_extra("model2vec", _PURPOSE, "text").StaticModel.from_pretrained(files.folder)

    def vectors(self, loaded: Any, values: list[Any]) -> Any:
        """See `ModelEncoder`."""
        return loaded.encode(values, batch_size=self.batch, use_multiprocessing=False)


class FastEmbedEncoder(_TextModelEncoder):
    """Transformers in ONNX (fastembed): one that it lists, or a folder with ``model.onnx``."""

    example = "BAAI/bge-small-en-v1.5"
    patterns = ("*.onnx", "onnx/*.onnx", "*.onnx_data", "*.json", "1_Pooling/config.json")

    def find(self, revision: str = "") -> ModelFiles:
        """The hub has what fastembed lists under another name, with the files that it reads."""
        listed = import_extra("fastembed", _PURPOSE, "text").TextEmbedding.list_supported_models()
        for each in listed:
            if each["model"].lower() == self.model.lower() and each["sources"]["hf"]:
                files = (each["model_file"], *each["additional_files"], "*.json")
                return find_model(self.model, files, self.extra, repository=each["sources"]["hf"], revision=revision)
        found = find_model(self.model, self.patterns, self.extra, revision=revision)
        if found.revision:
            raise InputError(f"fastembed lists no model {self.model!r}; name one of its models, or a folder")
        return found

    def load(self, files: ModelFiles) -> Any:
        """A folder's pooling comes from its ``1_Pooling/config.json``, as in sentence-transformers, or is the mean."""
        fastembed = import_extra("fastembed", _PURPOSE, "text")
        if files.revision:
            return fastembed.TextEmbedding(self.model, specific_model_path=str(files.folder))
        description = import_extra("fastembed.common.model_description", _PURPOSE, "text")
        name = f"folder/{files.sha256}"
        if all(each["model"] != name for each in fastembed.TextEmbedding.list_supported_models()):
            fastembed.TextEmbedding.add_custom_model(
                model=name,
                pooling=getattr(description.PoolingType, _pooling(files)),
                normalization=True,
                sources=description.ModelSource(hf=name),
                dim=0,  # asked of the model itself
                model_file="model.onnx" if (files.folder / "model.onnx").is_file() else "onnx/model.onnx",
            )
        return fastembed.TextEmbedding(name, specific_model_path=str(files.folder))

    def vectors(self, loaded: Any, values: list[Any]) -> Any:
        """See `ModelEncoder`."""
        return list(loaded.embed(values, batch_size=self.batch))


class SentenceTransformersEncoder(_TextModelEncoder):
    """Models of sentence-transformers, which needs PyTorch; of weights in safetensors only."""

    example = "sentence-transformers/all-MiniLM-L6-v2"
    extra = "text-torch"
    patterns = ("*.json", "*.txt", "*.model", "*.safetensors", "[0-9]_*/*.json", "[0-9]_*/*.safetensors")

    def load(self, files: ModelFiles) -> Any:
        """See `ModelEncoder`."""
        library = import_extra("sentence_transformers", _PURPOSE, self.extra)
        return library.SentenceTransformer(
            str(files.folder), model_kwargs={"use_safetensors": True}, local_files_only=True
        )

    def vectors(self, loaded: Any, values: list[Any]) -> Any:
        """See `ModelEncoder`."""
        return loaded.encode(values, batch_size=self.batch, show_progress_bar=False, convert_to_numpy=True)


def _pooling(files: ModelFiles) -> str:
    path = files.folder / "1_Pooling" / "config.json"
    if not path.is_file():
        return "MEAN"
    config = json.loads(path.read_text())
    if config.get("pooling_mode_cls_token"):
        return "CLS"
    if config.get("pooling_mode_mean_tokens"):
        return "MEAN"
    if config.get("pooling_mode_lasttoken"):
        return "LAST_TOKEN"
    raise InputError(f"{path}: expected a pooling by cls, mean or last token")

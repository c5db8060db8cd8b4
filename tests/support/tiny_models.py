"""Models of a few kilobytes that model2vec and fastembed load as they load real ones.

ONNX files are written field by field in the wire format of protobuf: the package that writes them is large.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from model2vec import StaticModel
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace

__all__ = ["image_model", "static_model", "transformer"]

WORDS = ["[PAD]", "[UNK]", "a", "red", "blue", "green", "lamp", "chair", "of", "älmhult", "thing"]
DIM = 6
_FLOAT, _INT64 = 1, 7  # of TensorProto.DataType


def static_model(folder: Path, seed: int = 0) -> Path:
    """Random vectors of a few words, for model2vec."""
    StaticModel(_vectors(seed), _tokenizer()).save_pretrained(folder)
    return folder


def transformer(folder: Path, seed: int = 0) -> Path:
    """Random vectors of tokens, looked up by ONNX, for fastembed; it has no attention."""
    folder.mkdir()
    _tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"pad_token_id": 0}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 32, "pad_token": "[PAD]"}))
    node = _message((1, "table"), (1, "input_ids"), (2, "found"), (4, "Gather"))
    graph = _message(
        (1, node),
        (2, "g"),
        (5, _tensor("table", _vectors(seed))),
        (11, _value("input_ids", _INT64, "n", "tokens")),
        (12, _value("found", _FLOAT, "n", "tokens", DIM)),
    )
    (folder / "model.onnx").write_bytes(_model(graph))
    return folder


def image_model(folder: Path) -> Path:
    """The mean colour of an image of 8 × 8, by ONNX, for fastembed."""
    folder.mkdir()
    steps = {"do_resize": True, "size": {"height": 8, "width": 8}, "do_rescale": True, "rescale_factor": 1 / 255}
    (folder / "preprocessor_config.json").write_text(json.dumps(steps))
    graph = _message(
        (1, _message((1, "pixels"), (2, "mean"), (4, "GlobalAveragePool"))),
        (1, _message((1, "mean"), (2, "found"), (4, "Flatten"))),
        (2, "g"),
        (11, _value("pixels", _FLOAT, "n", 3, 8, 8)),
        (12, _value("found", _FLOAT, "n", 3)),
    )
    (folder / "model.onnx").write_bytes(_model(graph))
    return folder


def _vectors(seed: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((len(WORDS), DIM)).astype(np.float32)


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer, tokenizer.pre_tokenizer = Lowercase(), Whitespace()
    return tokenizer


def _model(graph: bytes) -> bytes:
    return _message((1, 8), (7, graph), (8, _message((1, ""), (2, 17))))


def _tensor(name: str, values: npt.NDArray[np.float32]) -> bytes:
    return _message(*((1, size) for size in values.shape), (2, _FLOAT), (8, name), (9, values.tobytes()))


def _value(name: str, dtype: int, *sizes: int | str) -> bytes:
    shape = _message(*((1, _message((1 if isinstance(size, int) else 2, size))) for size in sizes))
    return _message((1, name), (2, _message((1, _message((1, dtype), (2, shape))))))


def _message(*fields: tuple[int, int | str | bytes]) -> bytes:
    """Numbers as varints, all else with its length."""
    parts = []
    for number, value in fields:
        if isinstance(value, int):
            parts.append(_varint(number << 3) + _varint(value))
        else:
            data = value.encode() if isinstance(value, str) else value
            parts.append(_varint(number << 3 | 2) + _varint(len(data)) + data)
    return b"".join(parts)


def _varint(number: int) -> bytes:
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])

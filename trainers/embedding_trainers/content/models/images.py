"""Images by a trained model, such as CLIP's, and where the files of a catalogue are."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from embedding_trainers.content.encoder import find_encoder
from embedding_trainers.content.models.encoder import ModelEncoder
from embedding_trainers.content.models.files import ModelFiles, find_model
from embedding_trainers.content.spec import ContentColumn, Kind
from embedding_trainers.extra import import_extra
from feast_embeddings.errors import InputError

__all__ = ["ImageEncoder", "located_images"]

_PURPOSE = "an encoder of images"
_OF_FOLDERS = "Qdrant/clip-ViT-B-32-vision"  # whose steps, resizing and an ONNX graph, any folder has


class ImageEncoder(ModelEncoder):
    """Vision models in ONNX (fastembed): one that it lists, or a folder with ``model.onnx``.

    A column holds full paths of files, see `located_images`, or their bytes.
    """

    kind: ClassVar[Kind] = "image"
    extra = "image"
    example = "Qdrant/clip-ViT-B-32-vision"
    patterns = ("model.onnx", "model.onnx_data", "preprocessor_config.json")
    batch = 16

    @property
    def probe(self) -> Any:
        """A black image."""
        made = io.BytesIO()
        import_extra("PIL.Image", _PURPOSE, "image").new("RGB", (8, 8)).save(made, "PNG")
        return made.getvalue()

    def find(self, revision: str = "") -> ModelFiles:
        """The hub has what fastembed lists, with the files that it reads."""
        for each in import_extra("fastembed", _PURPOSE, self.extra).ImageEmbedding.list_supported_models():
            if each["model"].lower() == self.model.lower():
                files = (each["model_file"], *each["additional_files"], "*.json")
                return find_model(self.model, files, self.extra, repository=each["sources"]["hf"], revision=revision)
        found = find_model(self.model, self.patterns, self.extra, revision=revision)
        if found.revision:
            raise InputError(f"fastembed lists no vision model {self.model!r}; name one of its models, or a folder")
        return found

    def reads(self, column: pa.ChunkedArray) -> str:
        """The hash of the model's files, and sizes and times of the images'."""
        values = self.values(column)
        if not _is_path(values.type):
            return super().reads(column)
        stats = [(value, Path(value).stat()) for value in values.drop_null().to_pylist()]
        return f"{super().reads(column)} {[(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats]}"

    def load(self, files: ModelFiles) -> Any:
        """See `ModelEncoder`."""
        name = self.model if files.revision else _OF_FOLDERS
        library = import_extra("fastembed", _PURPOSE, self.extra)
        return library.ImageEmbedding(name, specific_model_path=str(files.folder))

    def values(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """Paths, or bytes."""
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_null(column.type):
            return column.cast(pa.large_binary())
        if _is_path(column.type) or _is_bytes(column.type):
            return column
        raise InputError(f"expected images, paths of files or their bytes, got values of type {column.type}")

    def vectors(self, loaded: Any, values: list[Any]) -> Any:
        """See `ModelEncoder`.

        Raises:
            InputError: one is no image that can be read; with its path.
        """
        images = [self._opened(value) for value in values]
        return list(loaded.embed(images, batch_size=self.batch))

    def _opened(self, value: str | bytes) -> Any:
        try:
            with import_extra("PIL.Image", _PURPOSE, self.extra).open(
                value if isinstance(value, str) else io.BytesIO(value)
            ) as image:
                return image.convert("RGB")
        # Pillow's decoders fail in many ways on damaged files.
        except Exception as error:
            what = repr(value) if isinstance(value, str) else f"{len(value):,} bytes"
            reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            raise InputError(f"{what} cannot be read as an image: {reason}") from None


def located_images(table: pa.Table, columns: Sequence[ContentColumn], folder: Path | None, source: str) -> pa.Table:
    """Give the images of a catalogue their full paths.

    Args:
        table: with the columns.
        columns: the content columns.
        folder: of the catalogue's file, to which paths are relative, and which they must not leave. A path that is
            full already may be anywhere. None for a table without a file: it must hold bytes, as whoever sent it
            might else learn of this machine's files.
        source: the catalogue, for errors.

    Raises:
        InputError: a path is refused, or no file is there; with its row.
    """
    for column in columns:
        if find_encoder(column.how).kind != "image" or not _is_path(table[column.name].type):
            continue
        paths = [
            value if value is None else _located(value, folder, f"{source}, row {row + 1}, {column.name!r}: {value!r}")
            for row, value in enumerate(table[column.name].to_pylist())
        ]
        place = table.column_names.index(column.name)
        table = table.set_column(place, column.name, pa.chunked_array([pa.array(paths, pa.large_string())]))
    return table


def _located(value: str, folder: Path | None, where: str) -> str:
    if folder is None:
        raise InputError(f"{where} is a path, and the table is no file; give the bytes of images")
    path = folder / value
    if not Path(value).is_absolute() and not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{where} leaves the folder {folder}; give the full path, if it is meant")
    if not path.is_file():
        raise InputError(f"{where}: there is no file {path}")
    return str(path.resolve())


def _is_path(dtype: pa.DataType) -> bool:
    return bool(pa.types.is_string(dtype) or pa.types.is_large_string(dtype) or pa.types.is_string_view(dtype))


def _is_bytes(dtype: pa.DataType) -> bool:
    return bool(pa.types.is_binary(dtype) or pa.types.is_large_binary(dtype) or pa.types.is_binary_view(dtype))

"""The files of a model: a folder on disk, or a model of the Hugging Face hub at one revision."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from embedding_trainers.extra import import_extra
from feast_embeddings.errors import EmbeddingsError, InputError

__all__ = ["ModelFiles", "find_model"]

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_WEIGHTS = (".safetensors", ".onnx")


@dataclass(frozen=True)
class ModelFiles:
    """A model on this machine.

    Attributes:
        folder: its files.
        revision: the commit of the hub that they are of, or the empty text.
        sha256: of the names and bytes of those that decide what it encodes to, in hex; at a revision, of the weights.
    """

    folder: Path
    revision: str
    sha256: str


def find_model(
    model: str, patterns: Sequence[str], extra: str, *, repository: str = "", revision: str = ""
) -> ModelFiles:
    """Find a model; what the hub's cache on this machine has not is downloaded to it.

    Args:
        model: a folder, or ``owner/name`` of the hub.
        patterns: of the files that decide what the model encodes to, relative to its folder.
        extra: what installs the client of the hub.
        repository: of the hub, where its name is another one.
        revision: of the hub; the empty text for what the cache has, or else the newest.

    Raises:
        InputError: it is neither, or the folder has no such files.
        EmbeddingsError: the hub does not give it.
        MissingExtraError: the client of the hub is not installed.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return ModelFiles(folder.resolve(), "", _hash(folder, patterns))
    if not _HUB_NAME.fullmatch(model):
        raise InputError(f"no folder {model!r}, and it is no name of a hub's model, owner/name, either")
    folder = _of_hub(repository or model, patterns, extra, revision)
    # The revision vouches for the other files, of which other programs may have left some in the cache.
    return ModelFiles(folder, folder.name, _hash(folder, _of_weights(patterns)))


def _of_hub(repository: str, patterns: Sequence[str], extra: str, revision: str) -> Path:
    hub = import_extra("huggingface_hub", f"the model {repository}", extra)
    wanted = {"revision": revision or None, "allow_patterns": list(patterns)}
    try:
        with contextlib.suppress(hub.errors.LocalEntryNotFoundError):
            cached = Path(hub.snapshot_download(repository, local_files_only=True, **wanted))
            if _files(cached, _of_weights(patterns)):
                return cached
        return Path(hub.snapshot_download(repository, **wanted))
    # The hub raises its own errors and its HTTP client's, which its versions differ in.
    except Exception as error:
        what = str(error).strip().partition("\n")[0]
        raise EmbeddingsError(
            f"the model {repository!r} cannot be had from the hub ({type(error).__name__}: {what}); check the name "
            "and the network, or download it elsewhere and name its folder"
        ) from error


def _of_weights(patterns: Sequence[str]) -> list[str]:
    return [pattern for pattern in patterns if pattern.endswith(_WEIGHTS)]


def _files(folder: Path, patterns: Sequence[str]) -> list[Path]:
    return sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})


def _hash(folder: Path, patterns: Sequence[str]) -> str:
    files = _files(folder, patterns)
    if not any(path.name.endswith(_WEIGHTS) for path in files):
        raise InputError(f"the folder {folder} holds no model: it has no file {' or '.join(_of_weights(patterns))}")
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n".encode())
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()

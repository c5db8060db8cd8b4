"""A Feast repo with embeddings: its template, and the paths of its parts."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from feast_embeddings.errors import InputError

if TYPE_CHECKING:
    from feast import FeatureStore

__all__ = ["Repo", "init_repo"]

_TEMPLATE = ("feature_store.yaml", "definitions.py", "embeddings.toml")
# A `Path` keeps only one of the two slashes; a single letter is a drive.
_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")


@dataclass(frozen=True)
class Repo:
    """A folder with a feature_store.yaml."""

    path: Path

    @classmethod
    def open(cls, path: Path | str) -> Repo:
        """Open the repo at this path.

        Raises:
            InputError: there is none, or the path is not on this machine.
        """
        folder = _local(path)
        if not (folder / "feature_store.yaml").is_file():
            raise InputError(
                f"{folder} is not a Feast repo (it has no feature_store.yaml); name one with --repo, "
                "or make one with feast-embeddings init"
            )
        return cls(folder)

    @property
    def data(self) -> Path:
        """The folder of the artifacts."""
        return self.path / "data"

    def feature_store(self) -> FeatureStore:
        """Return Feast's own handle on the repo."""
        from feast import FeatureStore

        return FeatureStore(repo_path=str(self.path))


def init_repo(path: Path | str) -> Repo:
    """Make a new repo from the template that ships with this package.

    Raises:
        InputError: a file of the template exists already, or the path is not on this machine.
    """
    folder = _local(path)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder for the new repo")
    for name in _TEMPLATE:
        if (folder / name).exists():
            raise InputError(f"{folder / name} exists already; name an empty or new folder")
    folder.mkdir(parents=True, exist_ok=True)
    for name in _TEMPLATE:
        shutil.copyfile(_template_folder() / name, folder / name)
    return Repo(folder)


def _local(path: Path | str) -> Path:
    """Return the absolute path of a folder. Refuses URIs: as a path, ``s3://bucket`` would be a folder ``s3:``."""
    if match := _URI.match(str(path)):
        raise InputError(
            f"{path} is not a folder of this machine: a repo cannot be at {match[1]}:// addresses; copy or mount it"
        )
    return Path(path).resolve()


def _template_folder() -> Path:
    packaged = Path(__file__).parent / "_template"
    if packaged.is_dir():
        return packaged
    # In an editable install, the only copy of the template is the repo at the top of the source tree.
    return Path(__file__).parents[2] / "feature_repo"

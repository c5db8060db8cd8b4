"""Every exception that this package raises on purpose.

::

    EmbeddingsError
    ├── InputError                 input of the caller cannot be used   (exit code 2)
    │   ├── UnknownIdError         an id that the served version does not hold
    │   ├── IdTypeError            an id that no user or item of the model can have
    │   ├── CursorError            a cursor that did not come with a page, or whose version is gone
    │   ├── FilterError            a filter that cannot be parsed or applied
    │   ├── OptionError            an option of a query that cannot be used, or not with this model
    │   ├── MissingSideError       users asked of a model that has only items, or the reverse
    │   ├── GateError              a version that a gate refuses
    │   └── MetricError            a distance that Qdrant does not have
    ├── ArtifactError              an artifact on disk is missing, damaged or of another format
    ├── NotPublishedError          nothing is live for a model or a feature view
    ├── VersionMismatchError       vectors of different versions or spaces would have met
    ├── FoldInError                the live version cannot fold in here
    ├── TextSearchError            the live version cannot be searched by text here
    ├── OutOfTimeError             a query took longer than its time limit
    ├── WriterLockedError          another process is writing to the embedded store
    ├── EngineError                Qdrant refused or failed
    └── MissingExtraError          an optional dependency is not installed, or cannot be loaded

Messages state what was expected, what came, and what to do. The command line prints them on one line.
"""

from __future__ import annotations

import errno
import importlib
import re
from typing import Any

__all__ = [
    "ArtifactError",
    "CursorError",
    "EmbeddingsError",
    "EngineError",
    "FilterError",
    "FoldInError",
    "GateError",
    "IdTypeError",
    "InputError",
    "MetricError",
    "MissingExtraError",
    "MissingSideError",
    "NotPublishedError",
    "OptionError",
    "OutOfTimeError",
    "TextSearchError",
    "UnknownIdError",
    "VersionMismatchError",
    "WriterLockedError",
    "import_extra",
    "is_refused_write",
]

_REFUSED = {errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM}


class EmbeddingsError(Exception):
    """Base of every error raised on purpose; `exit_code` is the exit code of the command line.

    Stability: stable, see docs/compatibility.md.
    """

    exit_code = 1


class InputError(EmbeddingsError):
    """A file, column, value or option given by the caller cannot be used."""

    exit_code = 2


class UnknownIdError(InputError):
    """The served version has no embedding for this id."""


class IdTypeError(InputError):
    """An id does not have the type of the model's ids; `id` is the given id, `entity` says if of a user or an item."""

    def __init__(self, message: str, entity: str, id: object) -> None:
        super().__init__(message)
        self.entity = entity
        self.id = id


class CursorError(InputError):
    """The cursor did not come with a page, or the version of that page is no longer loaded."""


class FilterError(InputError):
    """The filter does not match the supported grammar, or names a feature that cannot be filtered on."""


class OptionError(InputError):
    """An option of a query cannot be used, or not with this model; `option` is its name."""

    def __init__(self, option: str, message: str) -> None:
        super().__init__(message)
        self.option = option


class MissingSideError(InputError):
    """The model has only items, and users were asked for, or the reverse."""


class GateError(InputError):
    """A version looks worse than the live one, or would break its consumers; nothing was loaded."""


class MetricError(InputError, ValueError):
    """Qdrant does not have the distance. Also a ValueError, as Feast's own stores raise."""


class ArtifactError(EmbeddingsError):
    """An artifact is missing, damaged, or written in a format this release does not know."""


class NotPublishedError(EmbeddingsError):
    """No version of the model is live in Qdrant."""


class VersionMismatchError(EmbeddingsError):
    """Vectors of different versions or spaces would have met in one collection or one query."""


class FoldInError(EmbeddingsError):
    """Visitors cannot be folded into a version: it is not on this disk, or its trainer is missing or cannot fold in."""


class TextSearchError(EmbeddingsError):
    """A version cannot be searched by text: it is not on this disk, or is damaged, or its encoder is not installed."""


class OutOfTimeError(EmbeddingsError):
    """A query took longer than the caller's time limit."""


class WriterLockedError(EmbeddingsError):
    """Another process holds the writer lock, or the file system has no working locks."""


class EngineError(EmbeddingsError):
    """Qdrant, embedded or server, refused or failed the operation."""


class MissingExtraError(EmbeddingsError):
    """An optional dependency is not installed, or cannot be loaded because of `reason`, the import's error."""

    def __init__(self, purpose: str, extra: str, module: str, reason: str = "") -> None:
        what = f"is not installed: run pip install 'feast-embeddings[{extra}]'"
        if reason:
            what = f"cannot be loaded: {reason}"
            # implicit's wheels need the system's library, which slim images do not have.
            if "libgomp.so.1" in reason:
                what += "; on Debian and Ubuntu run apt-get install libgomp1"
        super().__init__(f"{purpose} needs the package {module!r}, which {what}")
        self.extra = extra


def import_extra(module: str, purpose: str, extra: str) -> Any:
    """Import a module of an extra, e.g. ``scipy.sparse``.

    Args:
        purpose: what needs it, for the error.
        extra: the extra that installs it.

    Raises:
        MissingExtraError: its package, or one that it needs, is not installed, or lacks a library of the system.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = (error.name or module).partition(".")[0]
        raise MissingExtraError(purpose, extra, package) from None
    except ImportError as error:
        raise MissingExtraError(purpose, extra, module.partition(".")[0], str(error)) from None


def is_refused_write(error: BaseException | None) -> bool:
    """Return whether a failure is due to a read-only or full folder, or its permissions: its content may be intact.

    Qdrant's engine and `shutil` give the error number only in the text of their errors.
    """
    while error is not None:
        said = re.search(r"(?:os error |\[Errno )(\d+)", str(error))
        number = (error.errno if isinstance(error, OSError) else None) or (int(said[1]) if said else None)
        if number in _REFUSED:
            return True
        error = error.__cause__
    return False

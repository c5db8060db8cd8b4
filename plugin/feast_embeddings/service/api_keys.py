"""Make API keys, keep them as hashes, and compare them in constant time.

A line of the key file, or of FEAST_EMBEDDINGS_API_KEYS, is ``name:scope:hash``: a name for the logs, ``read`` or
``write`` (which includes read), and the SHA-256 of the key in hex. A key is 256 random bits, which cannot be guessed,
so a slow hash would only slow down requests. Several keys may be valid at once, so that keys can be rotated.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from feast_embeddings.errors import InputError

__all__ = ["ENVIRONMENT", "ApiKey", "KeyRing", "Scope", "new_key"]

ENVIRONMENT = "FEAST_EMBEDDINGS_API_KEYS"
Scope = Literal["read", "write"]

_LINE = re.compile(r"(?P<name>[A-Za-z0-9_.-]{1,60}):(?P<scope>read|write):(?P<digest>[0-9a-f]{64})")


@dataclass(frozen=True)
class ApiKey:
    """The stored form of a key, without the key itself."""

    name: str
    scope: Scope
    digest: str

    @property
    def line(self) -> str:
        """The key's line in a key file."""
        return f"{self.name}:{self.scope}:{self.digest}"


def new_key(name: str, scope: Scope) -> tuple[str, ApiKey]:
    """Make a key; return it, which cannot be recovered later, and its stored form.

    Raises:
        InputError: the name has other characters than letters, digits, '.', '_' and '-', or a wrong length.
    """
    key = "fe_" + secrets.token_urlsafe(32)
    kept = ApiKey(name, scope, _digest(key))
    if not _LINE.fullmatch(kept.line):
        raise InputError(f"key name {name[:60]!r}: expected 1 to 60 letters, digits, '.', '_' and '-'")
    return key, kept


class KeyRing:
    """The valid keys. The file is read again when it changes, so that a key can be revoked at once.

    Args:
        file: one key per line; blank lines and comments (#) are ignored.

    Raises:
        InputError: the file cannot be read, or a line is not a valid key line.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._fixed = _parse(re.split(r"[\s,]+", os.environ.get(ENVIRONMENT, "")), ENVIRONMENT)
        self._stamp: tuple[int, ...] | None = None
        self._of_file: list[ApiKey] = []
        self._refresh()

    def __bool__(self) -> bool:
        """Return whether the service requires keys. A file that has lost all its keys admits no one."""
        return self._file is not None or bool(self._fixed)

    def find(self, key: str) -> ApiKey | None:
        """Return the stored form of this key, if it is valid."""
        self._refresh()
        digest, found = _digest(key), None
        for kept in (*self._fixed, *self._of_file):
            if hmac.compare_digest(kept.digest, digest):
                found = kept
        return found

    def _refresh(self) -> None:
        if self._file is None:
            return
        try:
            status = self._file.stat()
            stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
            if stamp != self._stamp:
                self._of_file = _parse(self._file.read_text().splitlines(), str(self._file))
                self._stamp = stamp
        except (OSError, UnicodeDecodeError) as error:
            self._of_file, self._stamp = [], None
            reason = getattr(error, "strerror", None) or "it is not text"
            raise InputError(f"key file {self._file} cannot be read: {reason}") from None


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _parse(lines: list[str], source: str) -> list[ApiKey]:
    keys = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        match = _LINE.fullmatch(text)
        if match is None:
            # Do not show the line: it may hold the key itself.
            raise InputError(f"{source}, line {number}: expected name:scope:hash as feast-embeddings api-key prints it")
        keys.append(ApiKey(match["name"], cast(Scope, match["scope"]), match["digest"]))
    return keys

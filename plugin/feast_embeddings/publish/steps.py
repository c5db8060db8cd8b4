"""The steps of a publish: their names, and how long each takes."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["STEPS", "Steps"]

# In this order; users and items are loaded, indexed and verified one after the other.
STEPS = ("check", "load", "index", "verify", "history", "store", "switch", "carry", "register", "clear")


class Steps:
    """Reports each step as it begins, and times it."""

    def __init__(self, on_step: Callable[[str], object] | None) -> None:
        self.seconds: dict[str, float] = {}
        self._on_step = on_step
        self._name = ""
        self._since = 0.0

    def begin(self, name: str) -> None:
        self.end()
        self._name = name
        if self._on_step:
            self._on_step(name)

    def end(self) -> None:
        now = time.monotonic()
        if self._name:
            self.seconds[self._name] = self.seconds.get(self._name, 0.0) + now - self._since
        self._since = now

"""Give freed memory back to the system."""

from __future__ import annotations

import ctypes
from contextlib import suppress

import pyarrow as pa

__all__ = ["release_freed_memory"]


def release_freed_memory() -> None:
    """Give back what Arrow and the C library keep for later.

    After a large log is split that is a sixth of the memory of a training (`tests.benchmarks.scale`), which comes on
    top of what the fit needs. Where the C library is not glibc, only Arrow's part is given back.
    """
    pa.default_memory_pool().release_unused()
    with suppress(AttributeError, OSError, TypeError):  # no `malloc_trim`, or no library of the process to ask
        ctypes.CDLL(None).malloc_trim(0)

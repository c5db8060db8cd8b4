"""Highest resident memory of a process, seen from outside.

The embedded engine holds Python's lock while it builds graphs, so that a thread of the measured process would look
before and after only. As a program, this is the process that looks.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import IO, cast

__all__ = ["PeakMemory"]

_SECONDS = 0.02


class PeakMemory:
    """Highest resident memory of this process and those that it starts, together, while the block runs, in GiB.

    Pages of files that are mapped count as well, once for each process that has them. Sampled every 20 ms.

    Attributes:
        gib: of the whole block.
        of_step: of each step that `begin` named; of the time before under no name.
    """

    highest = 0.0
    """Over all blocks."""

    def __enter__(self) -> PeakMemory:
        self.gib, self.of_step, self._step = 0.0, dict[str, float](), ""
        self._watcher = subprocess.Popen(
            [sys.executable, "-I", __file__, str(os.getpid())], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._input, self._output = cast(IO[bytes], self._watcher.stdin), cast(IO[bytes], self._watcher.stdout)
        self._ask()  # until it looks
        return self

    def __exit__(self, *_: object) -> None:
        self._ask()
        self._input.close()
        self._output.close()
        self._watcher.wait()
        PeakMemory.highest = max(PeakMemory.highest, self.gib)

    def begin(self, step: str) -> None:
        """The memory from now on is that of this step."""
        self._ask()
        self._step = step

    def _ask(self) -> None:
        self._input.write(b"\n")
        self._input.flush()
        gib = int(self._output.readline()) / 2**30
        self.gib = max(self.gib, gib)
        self.of_step[self._step] = max(self.of_step.get(self._step, 0.0), gib)


def _resident(pid: str) -> int:
    """Bytes of a process and those that it has started, without this one."""
    command = _command(pid)
    pages = _pages(pid)
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread, or a process, that has ended
            for child in set(children.read_text().split()) - {str(os.getpid())}:
                # Of the same command is one that was forked a moment ago, whose memory is that of its parent.
                if _command(child) != command:
                    pages += _pages(child)
    return pages * os.sysconf("SC_PAGE_SIZE")


def _command(pid: str) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def _pages(pid: str) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1])


def main() -> None:
    """Look at the process of the first argument; for each line that comes, print the highest number since the last."""
    highest = 0
    while True:
        highest = max(highest, _resident(sys.argv[1]))
        if select.select([sys.stdin], [], [], _SECONDS)[0]:
            if not sys.stdin.readline():
                return
            print(highest, flush=True)
            highest = 0


if __name__ == "__main__":
    main()

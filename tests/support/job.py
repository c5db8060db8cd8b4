"""Work in processes of their own, which can be killed."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

__all__ = ["CONTEXT", "PRELOADED", "TIMEOUT", "Job"]

# A process that has Feast imported, and forks one more for each job: importing Feast takes seconds.
CONTEXT = multiprocessing.get_context("forkserver")
PRELOADED = ["pytest", "feast_embeddings.publish.run", "feast_embeddings.query.store", "feast.cli.cli"]
TIMEOUT = 60


class Job:
    """A function of process_jobs at work in a process of its own."""

    def __init__(self, function: Callable[..., None], *arguments: Any) -> None:
        self.pipe, theirs = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=function, args=(theirs, *arguments), daemon=True)
        self.process.start()
        theirs.close()

    def receive(self) -> Any:
        """What the job says next."""
        assert self.pipe.poll(TIMEOUT), "the job says nothing"
        return self.pipe.recv()

    def receive_all(self) -> list[Any]:
        """What the job said until it ended."""
        said = []
        try:
            while self.pipe.poll(TIMEOUT):
                said.append(self.pipe.recv())
        except (EOFError, ConnectionResetError):  # it ended, perhaps without having heard what it was told
            return said
        raise AssertionError("the job does not end")

    def kill(self) -> list[Any]:
        """End it with SIGKILL; returns what it said before."""
        self.process.kill()
        self.process.join(TIMEOUT)
        return self.receive_all()

    def exit_code(self) -> int | None:
        """Wait for its end, which may be any."""
        self.receive_all()
        self.process.join(TIMEOUT)
        return self.process.exitcode

    def finish(self) -> list[Any]:
        """Wait for its end, which must be a good one; returns what it said before."""
        said = self.receive_all()
        self.process.join(TIMEOUT)
        assert self.process.exitcode == 0
        return said

"""The worker processes of the service, supervised independently of each other."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable
from socket import socket
from typing import Any
from weakref import WeakKeyDictionary

from uvicorn import Config
from uvicorn._subprocess import subprocess_started
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import SIGNALS, Process

from feast_embeddings.errors import EmbeddingsError

__all__ = ["STARTUP_FAILURE", "Workers"]

_log = logging.getLogger("uvicorn.error")

# The exit code of uvicorn when the app or its address cannot be used.
STARTUP_FAILURE = 3
# A worker that has answered once, and then does not answer for this long, is replaced.
_HUNG_SECONDS = 30.0


class _Forked(Process):
    """Uvicorn's worker, but forked, so that it shares the parent's imports and their memory."""

    def __init__(self, config: Config, sockets: list[socket]) -> None:
        super().__init__(config, sockets)
        context: Any = multiprocessing.get_context("fork")
        self.process = context.Process(target=_work, args=(config, self.target, sockets))


def _work(config: Config, target: Callable[..., None], sockets: list[socket]) -> None:
    for number in SIGNALS:  # a forked process inherits the parent's
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    subprocess_started(config, target, sockets, None)


class Workers(Multiprocess):
    """Uvicorn's supervisor, but it checks each worker twice a second, whatever the others do.

    Uvicorn's own waits for the answer of one worker before it checks the next: a worker that hangs, or is still
    importing Feast, delays the discovery of a dead one. Until its first answer a worker has
    `Config.timeout_worker_healthcheck` seconds.

    Args:
        can_fork: whether this process has nothing that breaks in a fork, such as gRPC connections.
    """

    def __init__(self, config: Config, sockets: list[socket], *, can_fork: bool) -> None:
        super().__init__(config, sockets)
        self._worker = _Forked if can_fork and sys.platform == "linux" else Process
        # Per worker, the time by which it must answer.
        self._deadlines: WeakKeyDictionary[Process, float] = WeakKeyDictionary()

    def init_processes(self) -> None:
        self.processes = [self._worker(self.config, self.sockets) for _ in range(self.processes_num)]
        for worker in self.processes:
            worker.start()

    def run(self) -> None:
        """Serve until a signal arrives.

        Raises:
            EmbeddingsError: a worker could not start, so no other can.
        """
        super().run()
        if any(worker.exitcode == STARTUP_FAILURE for worker in self.processes):
            raise EmbeddingsError("a worker could not start, see the error above")

    def keep_subprocess_alive(self) -> None:
        for number, worker in enumerate(self.processes):
            if self.should_exit.is_set():
                return
            if self._is_well(worker):
                continue
            worker.kill()
            worker.join()
            if worker.exitcode == STARTUP_FAILURE:
                _log.error("Child process [%s] failed to start, stopping the parent process.", worker.pid)
                self.should_exit.set()
                return
            _log.warning("Child process [%s] died or hung, and was replaced", worker.pid)
            self.processes[number] = self._worker(self.config, self.sockets)
            self.processes[number].start()

    def _is_well(self, worker: Process) -> bool:
        if worker.exitcode is not None:
            return False
        now = time.monotonic()
        deadline = self._deadlines.setdefault(worker, now + self.config.timeout_worker_healthcheck)
        # Sends the next ping, and reads the answer to the previous one.
        if worker.ping(timeout=0):
            self._deadlines[worker] = now + _HUNG_SECONDS
            return True
        return now < deadline

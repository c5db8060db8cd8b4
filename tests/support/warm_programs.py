"""`feast-embeddings` and `feast` in processes that are forked from one that has imported Feast.

The pages of the documentation run some 200 programs, and each would import for seconds. What is forked is the program
itself, with its arguments, files, folder and environment. A program that serves until it is told to end is started as
always.

    with warm_programs(folder) as path:      # to put on the PATH
        subprocess.run(["feast-embeddings", "versions"], env={"PATH": path, …})
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

__all__ = ["WARM_PYTHON", "warm_programs"]

WARM_PYTHON = "warm-python"
"""A program that does what ``python -c CODE`` does."""

_PRELOADED = (
    *("feast.feature_store", "feast_embeddings.cli", "feast_embeddings.doctor", "feast_embeddings.publish.run"),
    *("feast_embeddings.query.store", "embedding_trainers.commands.train", "embedding_trainers.train", "pandas"),
    *("embedding_trainers.fold_in", "feast_embeddings.offline.training_frame", "feast.infra.offline_stores.duckdb"),
)
# Runs without the site packages, and so in milliseconds. `kill` reaches the program as well.
_CLIENT = """#!{python} -IS
import json, os, signal, socket, sys
name = os.path.basename(sys.argv[0])
if "serve" in sys.argv[1:]:
    os.execv({bin!r} + name, sys.argv)
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
asked = json.dumps([name, sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [len(asked).to_bytes(4, "big")], [0, 1, 2])
server.sendall(asked)
answers = server.makefile("rb")
child = int(answers.readline())
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, _: os.kill(child, number))
sys.exit(int(answers.readline() or 1))
"""


@contextlib.contextmanager
def warm_programs(folder: Path) -> Iterator[str]:
    """A folder with the programs, in front of the PATH of this process."""
    places, address = folder / "bin", folder / "socket"
    places.mkdir(parents=True)
    real = Path(sys.executable).parent
    client = _CLIENT.format(python=sys.executable, address=str(address), bin=f"{real}{os.sep}")
    for name in ("feast-embeddings", "feast", WARM_PYTHON):
        (places / name).write_text(client)
        (places / name).chmod(0o755)
    with subprocess.Popen([sys.executable, "-m", __name__, str(address)], stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            yield os.pathsep.join([str(places), str(real), os.environ["PATH"]])
        finally:
            server.kill()


def _serve(address: str) -> None:
    for name in _PRELOADED:
        importlib.import_module(name)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        print("ready", flush=True)
        while True:
            client, _ = listening.accept()
            # The one between gives the program's exit code to the client; this one goes on.
            if os.fork() == 0:
                listening.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _watch(client)
            client.close()


def _watch(client: socket.socket) -> None:
    """Fork the program that a client asks for, and tell its exit code."""
    length, files, _, _ = socket.recv_fds(client, 4, 3)
    asked, left = b"", int.from_bytes(length, "big")
    while len(asked) < left:
        asked += client.recv(left - len(asked))
    child = os.fork()
    if child == 0:
        client.close()
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        _run(*json.loads(asked))
    client.sendall(b"%d\n" % child)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    with contextlib.suppress(BrokenPipeError):
        client.sendall(b"%d\n" % (code if code >= 0 else 128 - code))
    os._exit(0)


def _run(name: str, arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    """Be that program."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [name, *arguments]
    sys.path[0] = str(Path(sys.executable).parent)  # as of a program there
    sys.modules["__main__"].__package__ = None  # click would name the program by it
    code: object = 0
    try:
        if name == "feast":
            from feast.cli.cli import cli

            cli()
        elif name == WARM_PYTHON:
            sys.path[0] = ""
            exec(compile(arguments[1], "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102 - as python -c
        else:
            from feast_embeddings.cli import run

            run()
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(int(code or 0) if isinstance(code, int | None) else 1)


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    _serve(sys.argv[1])

"""docker-compose.yml and Dockerfile: what can be read from them, and their commands run for real, without Docker."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from tests.conftest import ROOT

from feast_embeddings.demo import generate_shop, write_shop

TIMEOUT = 300
# Of the Compose specification, what this file uses; a word that is misspelt is not among them.
SERVICE_KEYS = {
    *("build", "cap_drop", "command", "depends_on", "environment", "healthcheck", "image", "init", "ports"),
    *("mem_limit", "restart", "security_opt", "stop_grace_period", "volumes"),
}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The compose file."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return found


def dockerfile() -> list[list[str]]:
    """The instructions of the Dockerfile."""
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    return [line.split() for line in lines if line and not line.startswith("#")]


def test_what_the_compose_file_says(compose: dict[str, Any]) -> None:
    """Versions are pinned, ports are of this machine, what goes on running is watched, and no secret is in it."""
    assert set(compose) == {"name", "services", "volumes"}
    services = compose["services"]
    assert list(services) == ["qdrant", "train", "service"]
    for name, service in services.items():
        assert set(service) <= SERVICE_KEYS
        assert service["image"] == "feast-embeddings:local" or re.search(r":v\d+\.\d+\.\d+$", service["image"])
        assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", []))
        runs_on = service["restart"] != "no"
        assert runs_on == ("healthcheck" in service)
        assert not any("/var/run/docker.sock" in volume for volume in service["volumes"])
        assert {volume.split(":")[0] for volume in service["volumes"]} <= set(compose["volumes"])
        for variable, value in service["environment"].items():
            assert "KEY" not in variable or value == f"${{{variable}:-}}", "a key is a variable of the caller"
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert re.fullmatch(r"\$\{[A-Z]+_MEMORY:-\d+g\}", service["mem_limit"])
        if not runs_on:  # else `up --wait` takes its end for a failure
            assert any(
                other.get("depends_on", {}).get(name) == {"condition": "service_completed_successfully"}
                for other in services.values()
            )
    # Compose 2.32 by itself restarts the dependents of a container that it recreates, 2.39 does not.
    assert services["service"]["depends_on"]["qdrant"] == {"condition": "service_healthy", "restart": True}
    version = tuple(map(int, services["qdrant"]["image"].rpartition(":v")[2].split(".")))
    assert version >= (1, 16)
    assert services["train"]["build"] == "."


def test_what_the_dockerfile_says() -> None:
    """A pinned slim base, the tested versions, and in the end a user who is not root."""
    instructions = dockerfile()
    bases = [words[1] for words in instructions if words[0] == "FROM"]
    assert all(re.fullmatch(r"python:3\.\d+\.\d+-slim-bookworm", base) for base in bases)
    assert len(set(bases)) == 1
    (install,) = (" ".join(words) for words in instructions if "pip" in words)
    assert "--constraint constraints.txt '.[all]'" in install
    users = [(number, words[1]) for number, words in enumerate(instructions) if words[0] == "USER"]
    assert [user for _, user in users] == ["10001:10001"]
    assert not [words for words in instructions[users[0][0] :] if words[0] in ("RUN", "COPY", "ADD")]


def test_the_build_context_is_enough(tmp_path: Path) -> None:
    """What .dockerignore lets through makes the package, with its template and no more than that."""
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert patterns[0] == "*"
    context = tmp_path / "context"
    context.mkdir()
    for name in (pattern[1:] for pattern in patterns if pattern.startswith("!")):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, context / name, ignore=shutil.ignore_patterns("__pycache__", "data", "*storage"))
        else:
            shutil.copy(source, context / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path]
    subprocess.run([*map(str, command), str(context)], check=True, capture_output=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    listed = subprocess.run([sys.executable, "-m", "zipfile", "-l", wheel], check=True, capture_output=True, text=True)
    for name in (
        "_template/definitions.py",
        "service/app.py",
        "page/client/client.js",
        "embedding_trainers/models/bpr.py",
    ):
        assert name in listed.stdout


def free_ports(n: int) -> list[int]:
    """Return this many unused ports."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


class Containers:
    """The services' commands, run here: in folders instead of volumes, and on ports of their own."""

    def __init__(self, compose: dict[str, Any], folder: Path) -> None:
        self.services = compose["services"]
        self.http, self.grpc, self.port = free_ports(3)
        self.folder = folder
        for name in ("qdrant", "run", "repo"):
            (folder / name).mkdir()
        (folder / "qdrant" / "entrypoint.sh").write_text("#!/bin/sh\nexec qdrant\n")
        (folder / "qdrant" / "entrypoint.sh").chmod(0o755)
        program = Path(sys.executable).parent
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("QDRANT", "FEAST"))},
            "PATH": f"{program}{os.pathsep}{os.environ['PATH']}",
            "QDRANT_API_KEY": "",
            "QDRANT_URL": f"http://127.0.0.1:{self.http}",
            "QDRANT_GRPC_PORT": str(self.grpc),
            "QDRANT__SERVICE__HOST": "127.0.0.1",
            "QDRANT__SERVICE__HTTP_PORT": str(self.http),
            "QDRANT__SERVICE__GRPC_PORT": str(self.grpc),
            "QDRANT__TELEMETRY_DISABLED": "true",
        }

    def command(self, words: list[str]) -> list[str]:
        """As Compose gives it to the container, with the places of this test."""
        places = {
            "/run/qdrant": str(self.folder / "run"),
            "/repo": str(self.folder / "repo"),
            "0.0.0.0": "127.0.0.1",  # noqa: S104 (tests listen on this machine only)
            "6333": str(self.http),
            "8080": str(self.port),
        }
        found = []
        for word in words:
            for name, place in places.items():
                word = word.replace(name, place)
            found.append(word.replace("$$", "$"))
        return found

    def start(self, name: str) -> subprocess.Popen[str]:
        with (self.folder / f"{name}.log").open("a") as log:
            folder = self.folder / ("qdrant" if name == "qdrant" else "repo")
            command = self.command(self.services[name]["command"])
            return subprocess.Popen(command, cwd=folder, env=self.environment, stdout=log, stderr=log, text=True)

    def wait_until_healthy(self, name: str, process: subprocess.Popen[str]) -> None:
        kind, *check = self.services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        deadline = time.monotonic() + TIMEOUT
        while subprocess.run(self.command(check), env=self.environment, capture_output=True).returncode:
            assert process.poll() is None, (self.folder / f"{name}.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)

    @contextmanager
    def running(self, name: str) -> Iterator[None]:
        """Until the block ends; it then ends as it should when it is told to."""
        process = self.start(name)
        try:
            self.wait_until_healthy(name, process)
            yield
        finally:
            process.terminate()
            process.wait(60)

    def train(self) -> str:
        """Run the one-shot; what it printed."""
        before = len(log.read_text()) if (log := self.folder / "train.log").exists() else 0
        assert self.start("train").wait(TIMEOUT) == 0, log.read_text()
        return log.read_text()[before:]

    def state(self) -> dict[str, int]:
        """What is in the repo, and when it was written."""
        files = [path for path in (self.folder / "repo").rglob("*") if path.is_file()]
        return {str(path): path.stat().st_mtime_ns for path in files if path.suffix not in (".db", ".pyc")}


@pytest.mark.slow
def test_from_nothing_to_the_first_answer(compose: dict[str, Any], tmp_path: Path) -> None:
    """The commands of all services in their order; a second `up` trains nothing and changes nothing."""
    if shutil.which("qdrant") is None:
        pytest.skip("no qdrant program on the PATH")
    containers = Containers(compose, tmp_path)
    repo = tmp_path / "repo"
    with containers.running("qdrant"):
        assert httpx.get(f"{containers.environment['QDRANT_URL']}/collections").status_code == 401
        assert "is live" in containers.train()
        first = containers.state()
        with containers.running("service"):
            address = f"http://127.0.0.1:{containers.port}/v1/models/shop/rank"
            body = {"user_id": "u-7", "limit": 3}
            assert httpx.post(address, json=body).status_code == 401
            key = (repo / "client.key").read_text().strip()
            answer = httpx.post(address, json=body, headers={"Authorization": f"Bearer {key}"}, timeout=60)
            assert len(answer.json()["results"]) == 3
            assert "is live" not in containers.train()
    assert containers.state() == first
    assert (repo / "service.keys").stat().st_mode & 0o77 == 0
    key = (tmp_path / "run" / "api_key").read_text()
    assert len(key) == 64
    assert key not in (repo / "feature_store.yaml").read_text()


class Compose:
    """Docker's own command, for a project and ports that no other has."""

    def __init__(self) -> None:
        ports = dict(zip(("SERVICE_PORT", "QDRANT_REST_PORT", "QDRANT_GRPC_PORT"), free_ports(3), strict=True))
        self.address = f"localhost:{ports['SERVICE_PORT']}"
        self.environment = {
            **os.environ,
            "COMPOSE_PROJECT_NAME": f"test-{secrets.token_hex(4)}",
            "QDRANT_API_KEY": "",
            **{name: str(port) for name, port in ports.items()},
        }

    def __call__(self, *arguments: str) -> str:
        """What it printed, which went well."""
        return self.run("docker", "compose", *arguments)

    def run(self, *command: str) -> str:
        """The same of any command."""
        done = subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=1800)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout.strip()


@pytest.fixture
def docker() -> Compose:
    """Where there is a docker program that knows Compose."""
    program = shutil.which("docker")
    if program is None or subprocess.run([program, "compose", "version"], capture_output=True).returncode:
        pytest.skip("no docker program with Compose on the PATH")
    return Compose()


def test_docker_reads_the_file(docker: Compose) -> None:
    """As `docker compose config` does."""
    assert set(docker("config", "--services").split()) == {"qdrant", "train", "service"}


def documented() -> list[str]:
    """What docs/operations.md says to run with Docker, in its order."""
    text = (ROOT / "docs" / "operations.md").read_text()
    return re.findall(r"<!-- not run: needs Docker -->\n```bash\n(.*?)```", text, re.DOTALL)


@pytest.mark.slow
def test_up(docker: Compose, tmp_path: Path) -> None:
    """The real `up`, in containers, as the docs say and over restarts; needs a Docker engine and some minutes."""
    if subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.skip("no Docker engine answers")
    if shutil.which("curl") is None:
        pytest.skip("no curl on the PATH")
    first_answer, own_log = documented()
    write_shop(generate_shop(1, n_users=200, n_items=60, n_interactions=4000, end=datetime.now(UTC)), tmp_path)

    def live() -> dict[str, str]:
        headers = {"Authorization": f"Bearer {docker('exec', '-T', 'service', 'cat', '/repo/client.key')}"}
        models = httpx.get(f"http://{docker.address}/v1/models", headers=headers).raise_for_status().json()["models"]
        return {model["name"]: model["live_version"] for model in models}

    try:
        docker("build")
        answer = docker.run("bash", "-euc", first_answer.replace("localhost:8080", docker.address))
        assert len(json.loads(answer)["results"]) == 10
        assert httpx.get(f"http://{docker.address}/v1/models").status_code == 401
        assert docker("exec", "-T", "service", "id", "--user") == "10001"

        docker.run("bash", "-euc", own_log.replace("$PWD/log.parquet", f"{tmp_path}/interactions.parquet"))
        published = live()
        assert set(published) == {"shop", "mine"}
        doctor = ("feast-embeddings", "doctor", "--repo", "/repo", "--key-file", "/repo/service.keys", "--json")
        report = json.loads(docker("exec", "-T", "service", *doctor))
        assert (report["worst"], report["skipped"]) == ("ok", {})

        docker.environment["QDRANT_API_KEY"] = "another-key"
        docker("up", "--detach", "--wait")
        assert live() == published
        printed = docker("logs")
        for key in ("/repo/client.key", "/run/qdrant/api_key"):
            assert docker("exec", "-T", "service", "cat", key) not in printed

        docker("restart", "service")
        docker("stop", "service")  # while it starts; it is told and goes, and is not killed after its time of grace
        assert docker("ps", "--all", "--format", "{{.ExitCode}}", "service") != "137"

        docker("down")
        docker("up", "--detach", "--wait")
        assert live() == published
    finally:
        docker("down", "--volumes")

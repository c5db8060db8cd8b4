"""Check that the vector store answers, who writes to it, and what unfinished publishes left in it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from feast import RepoConfig
from packaging.specifiers import SpecifierSet

from feast_embeddings.artifact import version_folders
from feast_embeddings.doctor.findings import Finding, first_line
from feast_embeddings.doctor.patient import Patient
from feast_embeddings.engines.embedded.shards import ROOM_BYTES
from feast_embeddings.engines.server.engine import ServerEngine
from feast_embeddings.errors import EmbeddingsError
from feast_embeddings.files import is_held
from feast_embeddings.online.open_engine import embedded_folder, open_engine
from feast_embeddings.online.table_names import older_names
from feast_embeddings.publish.plan import superseded

__all__ = ["leftovers", "store", "writer"]

# Collection metadata needs 1.16.
_SERVERS = SpecifierSet(">=1.16")
_SECONDS = 5
_LONG_HOURS = 6


def store(patient: Patient) -> Iterator[Finding]:
    """Check that Qdrant, embedded or server, answers and is new enough."""
    config = patient.need_config()
    settings = config.online_store
    if settings.url is None:
        folder = embedded_folder(settings, patient.repo.path)
        try:
            engine = open_engine(settings, patient.repo.path)
            engine.aliases()
        except Exception as error:  # a file of the folder may hold anything
            message = f"{folder} cannot be read: {first_line(error)}"
            yield Finding("store", "problem", message, patient.load_again(error))
            return
        patient.engine = engine
        if folder.exists() and (reason := _no_room(folder)):
            message = f"{folder} {reason}: nothing can be written, and reads need a copy in {tempfile.gettempdir()}"
            yield Finding("store", "warning", message, patient.look_at_disk())
        else:
            there = "" if folder.exists() else ", which does not exist yet"
            yield Finding("store", "ok", f"embedded, in {folder}{there}")
        yield from _older_names(patient, config)
        return
    try:
        server = open_engine(settings.model_copy(update={"retries": 0, "timeout": _SECONDS}), patient.repo.path)
        found = server.server_version() if isinstance(server, ServerEngine) else ""
        server.aliases()
    except EmbeddingsError as error:
        ports = f", or the grpc_port, {settings.grpc_port}" if settings.prefer_grpc else ""
        start = "docker compose up --detach --wait qdrant"
        yield Finding(
            "store", "problem", f"{settings.url} does not answer: {error}; start it, or correct the url{ports}", start
        )
        return
    patient.engine = server
    if _SERVERS.contains(found, prereleases=True):
        yield Finding("store", "ok", f"Qdrant {found} at {settings.url}")
    else:
        fix = "docker compose pull qdrant && docker compose up --detach --wait qdrant"
        yield Finding("store", "problem", f"Qdrant {found} at {settings.url} is too old; {_SERVERS} is needed", fix)
    yield from _older_names(patient, config)


def _no_room(folder: Path) -> str:
    if not os.access(folder, os.W_OK):
        return "cannot be written by this user, or is on a disk that is mounted read-only"
    return "is on a full disk" if shutil.disk_usage(folder).free < ROOM_BYTES else ""


def _older_names(patient: Patient, config: RepoConfig) -> Iterator[Finding]:
    if older := older_names(patient.need_engine(), config.project):
        message = f"tables have names of an older release: {', '.join(sorted(older))}"
        yield Finding("store", "warning", message, patient.feast("apply"))


def writer(patient: Patient) -> Iterator[Finding]:
    """Report who is writing to the embedded engine; a server has no such lock."""
    settings = patient.need_config().online_store
    if settings.url is not None:
        return
    file = embedded_folder(settings, patient.repo.path) / "writer.lock"
    if not is_held(file):
        yield Finding("writer", "ok", "no process is writing")
        return
    try:
        holder = json.loads(file.read_text())
        since = datetime.fromisoformat(holder["since"])
        program = f"{holder['program']} (pid {int(holder['pid'])} on {holder['host']})"
        who = f"{program} has been writing since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        yield Finding("writer", "warning", "a process of unknown name is writing", shlex.join(["lsof", str(file)]))
        return
    hours = (datetime.now(UTC) - since).total_seconds() / 3600
    if hours > _LONG_HOURS:
        yield Finding("writer", "warning", f"{who}, a long time", f"ps -o pid,etime,args -p {int(holder['pid'])}")
    else:
        yield Finding("writer", "ok", who)


def leftovers(patient: Patient) -> Iterator[Finding]:
    """Find collections that no query uses: of unfinished publishes, and more old ones than are kept."""
    engine = patient.need_engine()
    left = engine.leftovers()
    for model, sides in patient.registered():
        if left:
            message = f"killed writers left {len(left)} copies of collections: {', '.join(left)}"
            yield Finding("leftovers", "warning", message, patient.command("prune", model), model)
            left = []
        live = patient.live(sides)
        on_disk = {folder.name for folder in version_folders(patient.repo.data, model)}
        unneeded: list[str] = []
        waiting: set[str] = set()
        for entity, side in sides.items():
            collections = engine.collections(side.alias)
            name, spec = live.get(entity, ("", None))
            version = spec.version if spec is not None else ""
            unneeded += superseded(collections, name, version)
            waiting |= {s.version for n, s in collections.items() if n not in unneeded and not s.verified and n != name}
        if unneeded:
            message = f"{len(unneeded)} collections are no longer needed: {', '.join(unneeded)}"
            yield Finding("leftovers", "warning", message, patient.command("prune", model), model)
        for version in sorted(waiting):
            message = f"the publish of version {version} did not finish, or is still running"
            named = ["--version", version] if version in on_disk else []
            yield Finding("leftovers", "warning", message, patient.command("publish", model, *named), model)
        if not (unneeded or waiting):
            yield Finding("leftovers", "ok", "no collection is left over", model=model)

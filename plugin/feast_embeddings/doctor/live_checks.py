"""Check that the live version is complete, one version, equal to the files, and fresh."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from feast_embeddings.artifact import Artifact, Entity, load_artifact, version_folders
from feast_embeddings.artifact.brute_force import as_stored
from feast_embeddings.codec.columns import encode_table
from feast_embeddings.doctor.findings import Finding
from feast_embeddings.doctor.patient import Patient
from feast_embeddings.engines.dropped import ask_live
from feast_embeddings.engines.engine import TIMESTAMP_KEY, CollectionSpec, Engine
from feast_embeddings.errors import ArtifactError, EmbeddingsError, EngineError, InputError
from feast_embeddings.model.sides import Side
from feast_embeddings.model.versions import artifact_store_of
from feast_embeddings.times import is_future

__all__ = ["drift", "freshness", "live", "spaces", "stored"]

_SAMPLE = 200
_ROWS = 65_536


@dataclass(frozen=True)
class _Live:
    """The live collections of a registered model, and the artifact if its sides are of one readable version."""

    model: str
    sides: dict[Entity, Side]
    collections: dict[Entity, tuple[str, CollectionSpec]]
    artifact: Artifact | None

    @property
    def versions(self) -> set[str]:
        return {spec.version for _, spec in self.collections.values()}


def _found(patient: Patient) -> Iterator[_Live]:
    """Yield the live collections of each registered model; `live` reports those that cannot be described."""
    patient.need_engine()
    for model, sides in patient.registered():
        with contextlib.suppress(EngineError):
            yield _look(patient, model, sides)


def _look(patient: Patient, model: str, sides: dict[Entity, Side]) -> _Live:
    """Raises `EngineError` if the live collections cannot be described."""
    collections = patient.live(sides)
    try:
        (version,) = {spec.version for _, spec in collections.values()}
        artifact = load_artifact(patient.repo.data, model, version)
    except (ValueError, ArtifactError, InputError, OSError):
        artifact = None  # reported by `spaces` or `artifacts`
    return _Live(model, sides, collections, artifact)


def live(patient: Patient) -> Iterator[Finding]:
    """Check that a version is live, on each side, with a point for each row."""
    patient.need_engine()
    for model, sides in patient.registered():
        publish = patient.command("publish", model)
        try:
            found, counts = _count(patient, model, sides)
        except EngineError as error:
            yield Finding(
                "live", "problem", f"the live version cannot be read: {error}", patient.load_again(error), model
            )
            continue
        if not found.collections:
            yield Finding("live", "warning", "no version is live", publish, model)
        elif len(found.collections) < len(sides):
            yield Finding("live", "problem", f"only the {next(iter(counts))}s are live", publish, model)
        elif other := [entity for entity, (_, spec) in found.collections.items() if not sides[entity].fits(spec)]:
            key = sides[other[0]].id_name
            message = f"the live {other[0]}s were loaded under another join key than {key!r}: no query is answered"
            yield Finding("live", "problem", message, publish, model)
        else:
            yield _counted(patient, found, counts)
            yield from _gone(patient, found)


def _count(patient: Patient, model: str, sides: dict[Entity, Side]) -> tuple[_Live, dict[Entity, int]]:
    """Return the live collections and their numbers of points; `EngineError` if they cannot be read."""
    engine = patient.need_engine()

    def count(_: dict[str, str]) -> tuple[_Live, dict[Entity, int]]:
        found = _look(patient, model, sides)
        return found, {entity: engine.count(collection) for entity, (collection, _) in found.collections.items()}

    return ask_live(engine.aliases, count)


def _counted(patient: Patient, found: _Live, counts: dict[Entity, int]) -> Finding:
    if found.artifact is not None:
        rows = {entity: found.artifact.manifest.rows(entity) for entity in counts}
        if short := [f"{counts[side]} of {rows[side]} {side}s" for side in rows if counts[side] < rows[side]]:
            message = f"the live version has only {' and '.join(short)}"
            return Finding("live", "problem", message, _write_again(patient, found), found.model)
    points = ", ".join(f"{count} {entity}s" for entity, count in counts.items())
    return Finding("live", "ok", f"{' and '.join(sorted(found.versions))}: {points}", model=found.model)


def _gone(patient: Patient, found: _Live) -> Iterator[Finding]:
    """Find a live version that is no longer on disk; if no version is, `artifacts` reports it."""
    folders = {path.name for path in version_folders(patient.repo.data, found.model)}
    if len(found.versions) == 1 and folders and not found.versions & folders and not patient.has_artifact_store:
        (version,) = found.versions
        message = f"{version} is live but not on disk, so fold-in does not work; restore its folder from a backup"
        yield Finding("live", "warning", message, patient.command("publish", found.model), found.model)


def stored(patient: Patient) -> Iterator[Finding]:
    """Check that the artifact store, if there is one, answers and has the live versions."""
    patient.need_engine()
    if not patient.has_artifact_store:
        return
    try:
        if (store := artifact_store_of(patient.feature_store())) is None:
            return
        for found in _found(patient):
            there = store.versions(found.model)
            for version in sorted(found.versions.difference(there)):
                message = f"{version} is live but not in {store}: other machines cannot fold in or search by text"
                fix = patient.command("publish", found.model, "--version", version)
                yield Finding("stored", "problem", message, fix, found.model)
            if found.versions and found.versions <= set(there):
                text = f"{store} has {len(there)} version{'s' * (len(there) != 1)}, the live one among them"
                yield Finding("stored", "ok", text, model=found.model)
    except EmbeddingsError as error:
        fix = shlex.join(["grep", "-n", "artifact_store", str(patient.repo.path / "feature_store.yaml")])
        yield Finding("stored", "problem", f"{error}; services that start now cannot fold in", fix)


def _write_again(patient: Patient, found: _Live) -> str:
    """Return the command that writes the rows again: materialize if the newest version is live, else publish."""
    newest = max(path.name for path in version_folders(patient.repo.data, found.model))
    if newest not in found.versions:
        return patient.command("publish", found.model)
    views = [part for side in found.sides.values() for part in ("--views", side.view.name)]
    return patient.feast("materialize", "1970-01-02T00:00:00", "2200-01-01T00:00:00", *views)


def spaces(patient: Patient) -> Iterator[Finding]:
    """Check that users and items are of one version and one space, and that the files agree."""
    for found in _found(patient):
        if not found.collections or len(found.collections) < len(found.sides):
            continue
        versions, names = found.versions, {spec.space for _, spec in found.collections.values()}
        publish = patient.command("publish", found.model)
        if len(names) > 1:
            message = f"users and items are of different spaces ({', '.join(sorted(names))}): ranking does not work"
            yield Finding("spaces", "problem", message, publish, found.model)
        elif len(versions) > 1:
            message = f"users and items are of different versions ({', '.join(sorted(versions))}) of one space"
            yield Finding("spaces", "warning", message, publish, found.model)
        elif found.artifact is not None and names != {found.artifact.manifest.space_id}:
            message = f"{names.pop()} is live, but that version is of {found.artifact.manifest.space_id} on disk"
            yield Finding("spaces", "problem", message, publish, found.model)
        else:
            sides = " and ".join(f"{entity}s" for entity in found.sides)
            yield Finding("spaces", "ok", f"{sides} are of {names.pop()}", model=found.model)


def drift(patient: Patient) -> Iterator[Finding]:
    """Check that the online vectors equal the files bit for bit, in a bounded sample of each side."""
    engine = patient.need_engine()
    for found in _found(patient):
        if found.artifact is None or len(found.collections) < len(found.sides):
            continue
        if not all(found.sides[entity].fits(spec) for entity, (_, spec) in found.collections.items()):
            continue  # reported by `live`
        differ: list[str] = []
        same = newer = 0
        try:
            for entity, side in found.sides.items():
                rows = _sample(found.artifact, entity)
                counts = _compare(engine, side, *found.collections[entity], rows)
                same, newer = same + counts["same"], newer + counts["newer"]
                differ += [f"{counts[how]} {entity}s {how}" for how in ("missing", "different") if counts[how]]
        except (ArtifactError, EngineError, InputError, OSError):
            continue  # reported by `artifacts` and `live`; or the views are for a newer version, see `freshness`
        if differ:
            message = f"of a sample of the files, {' and '.join(differ)} online"
            yield Finding("drift", "problem", message, _write_again(patient, found), found.model)
        else:
            updated = f", {newer} updated since" if newer else ""
            message = f"{same} sampled vectors equal the files bit for bit{updated}"
            yield Finding("drift", "ok", message, model=found.model)


def _sample(artifact: Artifact, entity: Entity) -> pa.Table:
    """Read random rows of a table."""
    files = artifact.verified(entity)
    return files.take(np.random.default_rng(0).permutation(files.num_rows)[:_SAMPLE])


def _compare(engine: Engine, side: Side, collection: str, spec: CollectionSpec, rows: pa.Table) -> dict[str, int]:
    """Count the rows that are the same online, newer, different, or missing."""
    counts = dict.fromkeys(("same", "newer", "different", "missing"), 0)
    names = list(side.codec.fields)
    for batch in encode_table(side.codec, side.renamed(rows)):
        for number, point in enumerate(engine.retrieve(collection, batch.ids, vectors=names, payload=[TIMESTAMP_KEY])):
            if point is None:
                counts["missing"] += 1
            elif point.payload[TIMESTAMP_KEY] > batch.timestamps[number]:
                counts["newer"] += 1
            elif all(
                point.vectors[name].tobytes() == as_stored(batch.vectors[name][0][number], spec.datatype).tobytes()
                for name in names
            ):
                counts["same"] += 1
            else:
                counts["different"] += 1
    return counts


def freshness(patient: Patient) -> Iterator[Finding]:
    """Check the age of the live version, and whether a newer one is not published yet."""
    for found in _found(patient):
        if not found.collections:
            continue
        version = max(found.versions)
        waiting = [path.name for path in version_folders(patient.repo.data, found.model) if path.name > version]
        if waiting:
            message = f"version {waiting[-1]} is trained but not live; {version} is"
            yield Finding("freshness", "warning", message, patient.command("publish", found.model), found.model)
        stamps = [spec.as_of for _, spec in found.collections.values() if spec.as_of]
        if not stamps:
            continue
        as_of, latest = min(times := list(map(datetime.fromisoformat, stamps))), max(times)
        age = datetime.now(UTC) - as_of
        train = patient.command("train", found.model, "--interactions", "LOG")
        if is_future(latest):
            message = (
                f"the live version has interactions up to {latest:%Y-%m-%d}, which is in the future: "
                "a row of the log has a wrong time"
            )
            yield Finding("freshness", "problem", message, train, found.model)
        elif age > patient.max_age:
            message = f"the newest interaction behind the live version is {age.days} days old ({as_of:%Y-%m-%d})"
            yield Finding("freshness", "warning", message, train, found.model)
        elif not waiting:
            yield Finding("freshness", "ok", f"as of {as_of:%Y-%m-%d %H:%M} UTC", model=found.model)

"""Write into the live collection of a feature view: the only place that knows the version rule.

A view whose rows carry a model version serves one version at a time. Rows of older versions are left out, because the
live version has superseded them, except late ones (see `late_rows`). Rows of a newer one are refused: that version
must be published. If nothing is live yet, the newest version in the rows goes live.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

import numpy as np

from feast_embeddings.codec.collection import collection_spec, same_join_keys
from feast_embeddings.codec.rows import PointCodec
from feast_embeddings.engines.dropped import live_collections
from feast_embeddings.engines.engine import CollectionSpec, Engine, PointBatch
from feast_embeddings.engines.server.on_loop import AsyncServer
from feast_embeddings.errors import EngineError, InputError, VersionMismatchError
from feast_embeddings.online.late_rows import carry_late_rows, late_after
from feast_embeddings.online.table_names import collection_name

__all__ = ["write_live", "write_live_on_loop"]

_ALWAYS, _NEVER = np.iinfo(np.int64).min, np.iinfo(np.int64).max


def write_live(
    engine: Engine, codec: PointCodec, alias: str, batches: Iterable[PointBatch], versions: Mapping[str, int]
) -> None:
    """Write points into the collection behind an alias, which is created if there is none.

    Returns when the points can be read and found; the graph of a search index may come later.

    Args:
        batches: consumed once, during the write; an error raised in it leaves the embedded engine unchanged.
        versions: number of rows by the value of their feature ``version``, over all batches; used for views whose
            rows carry a model version.

    Raises:
        VersionMismatchError: a row is of a newer version than the live one.
        InputError: a vector has a different length than the stored ones.
    """
    live, spec = live_collections(engine, [alias]).get(alias, (None, None))
    version = ""
    if codec.versioned and versions:
        version = max(versions) if spec is None else spec.version
        _refuse_newer(codec, version, versions)
        _refuse_other_keys(codec, spec)
        after = {version: _ALWAYS}
        if spec is not None and _some_older(codec, version, versions):
            after |= late_after(spec, engine.collections(alias).values())
        batches = _served(batches, after)
    batches = (batch for batch in batches if len(batch))
    first = next(batches, None)
    if first is None:
        return
    batches = chain([first], batches)
    if live is not None and spec is not None:
        batches = _with_added(engine, codec, live, batches)
        engine.upsert(live, _checked(codec, spec, batches), wait_for_indexes=False)
        if codec.versioned and (now := engine.aliases().get(alias, live)) != live:
            # Another version went live meanwhile, perhaps after its publish had carried over late rows.
            carry_late_rows(engine, codec, live, now)
    else:
        dims, batches = _learn_dims(codec, batches)
        space = str(first.payloads[0].get("space", "")) if version else ""
        spec = collection_spec(codec.view, alias, codec.fields, dims, version=version, space=space)
        collection = collection_name(alias, version)
        engine.create(collection, spec, _checked(codec, spec, batches), wait_for_indexes=False)
        engine.switch({alias: collection})


async def write_live_on_loop(
    engine: Engine, server: AsyncServer, codec: PointCodec, alias: str, batch: PointBatch, versions: Mapping[str, int]
) -> None:
    """`write_live` of one batch, on an event loop.

    Rare cases run in a thread: the first write, which creates the collection; rows of older versions, which are
    checked against all kept ones; rows of a view with added attributes, which are read first; and carrying rows over if
    another version goes live meanwhile.
    """
    live, spec = (await server.aliases()).get(alias), None
    if live is not None:
        with contextlib.suppress(EngineError):  # it may have just been dropped; `write_live` looks again
            spec = await server.describe(live)
    if live is None or spec is None or codec.added or _some_older(codec, spec.version, versions):
        await asyncio.to_thread(write_live, engine, codec, alias, [batch], versions)
        return
    if codec.versioned:
        _refuse_newer(codec, spec.version, versions)
        _refuse_other_keys(codec, spec)
    for checked in _checked(codec, spec, [batch]):
        await server.upsert(live, checked)
    if codec.versioned and (now := (await server.aliases()).get(alias, live)) != live:
        await asyncio.to_thread(carry_late_rows, engine, codec, live, now)


def _some_older(codec: PointCodec, version: str, versions: Mapping[str, int]) -> bool:
    return codec.versioned and any(name < version for name in versions)


def _refuse_newer(codec: PointCodec, version: str, versions: Mapping[str, int]) -> None:
    if newer := sum(count for name, count in versions.items() if name > version):
        raise VersionMismatchError(
            f"feature view {codec.view.name!r} serves version {version}, but {newer} of {sum(versions.values())} "
            f"rows are of version {max(versions)}; publish that version (feast-embeddings publish). "
            "Nothing was written"
        )


def _refuse_other_keys(codec: PointCodec, spec: CollectionSpec | None) -> None:
    if spec is not None and not same_join_keys(codec.view, spec):
        keys = ", ".join(codec.view.join_keys)
        raise VersionMismatchError(
            f"feature view {codec.view.name!r} has the join key {keys}, but its live rows were loaded under another "
            "one; publish again (feast-embeddings publish). Nothing was written"
        )


def _served(batches: Iterable[PointBatch], after: Mapping[str, int]) -> Iterator[PointBatch]:
    """Yield the rows with a later event timestamp than the given one of their version."""
    for batch in batches:
        oldest = np.array([after.get(str(payload.get("version", "")), _NEVER) for payload in batch.payloads])
        is_served = batch.timestamps > oldest
        yield batch if is_served.all() else batch.take(np.flatnonzero(is_served))


def _with_added(
    engine: Engine, codec: PointCodec, collection: str, batches: Iterable[PointBatch]
) -> Iterator[PointBatch]:
    """Yield the batches with the added attributes that their points have, as a write replaces the whole payload."""
    keys = [key for name in codec.added for key in codec.payload_keys(name)]
    for batch in batches:
        stored = engine.retrieve(collection, batch.ids, vectors=[], payload=keys) if keys else []
        for payload, point in zip(batch.payloads, stored, strict=bool(keys)):
            payload |= {} if point is None else point.payload
        yield batch


def _learn_dims(codec: PointCodec, batches: Iterator[PointBatch]) -> tuple[dict[str, int], Iterator[PointBatch]]:
    """Return the length of each field's vectors, from the first batches that have any, and all the batches."""
    dims: dict[str, int] = {}
    seen = []
    for batch in batches:
        seen.append(batch)
        for field in codec.fields.values():
            if field.name in batch.vectors:
                dims.setdefault(field.name, batch.vectors[field.name][0].shape[1] - (field.bias is not None))
        if len(dims) == len(codec.fields):
            break
    return dims, chain(seen, batches)


def _checked(codec: PointCodec, spec: CollectionSpec, batches: Iterable[PointBatch]) -> Iterator[PointBatch]:
    for batch in batches:
        for field in codec.fields.values():
            if field.name not in batch.vectors:
                continue
            if field.name not in spec.vectors:
                raise InputError(
                    f"feature view {codec.view.name!r}, field {field.name!r}: the first rows written had no "
                    "vectors, so their length was unknown; set vector_length in the schema and materialize again"
                )
            extra = field.bias is not None
            expected, got = spec.vectors[field.name].size, batch.vectors[field.name][0].shape[1]
            if got != expected:
                raise codec.wrong_length(field, expected - extra, got - extra)
        yield batch

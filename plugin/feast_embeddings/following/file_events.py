"""The events of one file."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feast_embeddings.arguments import Id
from feast_embeddings.events import OLDEST, WEIGHTS, Event
from feast_embeddings.following.form import EVENT_ID, Form
from feast_embeddings.reading import Rules, Scan, Wanted
from feast_embeddings.times import future_starts, to_microseconds

__all__ = ["FileEvents", "read_events"]

_WEIGHT_FAULT = f"whose weight is not from {WEIGHTS[0]:g} to {WEIGHTS[1]:g}"


class FileEvents(NamedTuple):
    """The events of a file, and how many rows are none: of weight 0, and those that cannot be used."""

    events: list[Event]
    without_weight: int
    dropped: int


class _Fault(NamedTuple):
    kind: str
    row: int
    value: str | None


def read_events(path: Path, form: Form, now: datetime) -> FileEvents:
    """Read a file of interactions.

    Args:
        now: the time of those without one.

    Raises:
        InputError: it cannot be read, lacks a column, or has rows that cannot be used and the form does not drop them.
    """
    wanted = [
        Wanted(form.user, "id", id_type=form.user_ids),
        Wanted(form.item, "id", id_type=form.item_ids),
        Wanted(form.times, "time", required=form.timestamp is not None),
        *([] if form.weight is None else [Wanted(form.weight, "number")]),
        *([] if form.event is None else [Wanted(form.event, "text", known=tuple(form.event_weights))]),
        Wanted(EVENT_ID, "text", required=False),
    ]
    latest = None if form.allow_future else to_microseconds(future_starts())
    events: list[Event] = []
    faults: list[_Fault] = []
    rows = without_weight = 0
    with Scan(path, wanted, Rules(form.time_format, latest)) as scan:
        for batch in scan:
            own_weights, times = _own_weights(batch, form), _times(batch, form, now)
            weights = own_weights * _type_weights(batch, form)
            bad = _faults(weights, times, form, rows)
            keep = weights > 0
            keep[[fault.row - rows - 1 for fault in bad]] = False
            faults += bad
            without_weight += int((weights == 0).sum())
            kept = np.flatnonzero(keep)
            found = _events(path.name, batch, form, weights, times, kept, rows)
            if form.event is not None:
                kinds = batch.column(form.event).take(pa.array(kept)).to_pylist()
                own = own_weights[kept].tolist()
                found = [e._replace(type=k, own_weight=w) for e, k, w in zip(found, kinds, own, strict=True)]
            events += found
            rows += len(batch)
    if form.user_ids is None and form.user in scan.wholes:
        users = _whole([event.user_id for event in events])
        events = [event._replace(user_id=id) for event, id in zip(events, users, strict=True)]
    if form.item_ids is None and form.item in scan.wholes:
        items = _whole([event.item_id for event in events])
        events = [event._replace(item_id=id) for event, id in zip(events, items, strict=True)]
    # Rows are counted among those that can be read.
    word = "usable row" if scan.faults.bad else "row"
    for fault in faults:
        scan.faults.bad += 1
        scan.faults.add(fault.kind)
        scan.faults.add_example(fault.kind, f"{word} {fault.row}", fault.value)
    scan.faults.settle(scan.name, form.on_bad_rows)
    return FileEvents(events, without_weight, scan.faults.bad)


def _whole(ids: Sequence[Id]) -> Sequence[Id]:
    """Return the numbers that JSON has as text, since they may be too large; if one is, all stay text."""
    numbers = [int(id) for id in ids]
    return numbers if all(-(2**63) <= number < 2**63 for number in numbers) else ids


def _own_weights(batch: pa.RecordBatch, form: Form) -> npt.NDArray[np.float64]:
    return np.ones(len(batch)) if form.weight is None else batch.column(form.weight).to_numpy()


def _type_weights(batch: pa.RecordBatch, form: Form) -> npt.NDArray[np.float64]:
    if form.event is None:
        return np.ones(len(batch))
    types = pa.array(list(form.event_weights), pa.string())
    of_type = np.array(list(form.event_weights.values()), np.float64)
    return np.asarray(of_type[pc.index_in(batch.column(form.event), types).to_numpy()])


def _times(batch: pa.RecordBatch, form: Form, now: datetime) -> npt.NDArray[np.int64]:
    if form.times in batch.schema.names:
        times: npt.NDArray[np.int64] = batch.column(form.times).to_numpy()
        return times
    return np.full(len(batch), to_microseconds(now))


def _faults(weights: npt.NDArray[np.float64], times: npt.NDArray[np.int64], form: Form, rows: int) -> list[_Fault]:
    early = np.flatnonzero(times < to_microseconds(OLDEST))
    faults = [_Fault(f"whose {form.times} is before {OLDEST.year}", int(row) + rows + 1, None) for row in early]
    outside = (weights != 0) & ((weights < WEIGHTS[0]) | (weights > WEIGHTS[1]))
    outside[early] = False  # a row counts once
    return faults + [_Fault(_WEIGHT_FAULT, int(row) + rows + 1, f"{weights[row]:g}") for row in np.flatnonzero(outside)]


def _events(
    name: str,
    batch: pa.RecordBatch,
    form: Form,
    weights: npt.NDArray[np.float64],
    times: npt.NDArray[np.int64],
    kept: npt.NDArray[np.int64],
    rows: int,
) -> list[Event]:
    users = batch.column(form.user).take(pa.array(kept)).to_pylist()
    items = batch.column(form.item).take(pa.array(kept)).to_pylist()
    if EVENT_ID in batch.schema.names:
        ids = batch.column(EVENT_ID).take(pa.array(kept)).to_pylist()
    else:
        ids = [f"{name}:{row}" for row in (kept + rows + 1).tolist()]
    return list(map(Event, users, items, times[kept].tolist(), weights[kept].tolist(), ids))

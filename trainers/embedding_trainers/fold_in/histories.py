"""What folded-in users have seen: what the log says, and what the version knew of them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedding_trainers.interactions.seen import newest_last
from feast_embeddings.artifact.seen import NEXT_TO_SEEN, SEEN, SEEN_TIMES, SEEN_WEIGHTS

__all__ = ["union"]


def union(log: pa.Table, before: pa.Table, newest: int | None = None) -> dict[str, pa.Array]:
    """Row by row, all items of two tables, with their weights, and with their times if both tables have some.

    An item in both has the weight of the log, which has all that its users did; and the later time. The newest item is
    last; items of one time, and all where there are no times, are in the order of their ids.

    Args:
        log: lists of items; in their order of weights, all 1 without, and of times.
        before: the same rows, where a null list is an empty one.
        newest: how many items of a row to keep; None keeps all. It needs times.
    """
    timed = all(SEEN_TIMES in table.column_names for table in (log, before))
    pairs = pa.concat_tables(_pairs(table, timed) for table in (before, log))
    # In one thread the rows keep their order, so that the weight of the log is the last.
    groups = pairs.group_by(["row", SEEN], use_threads=False)
    pairs = groups.aggregate([(SEEN_WEIGHTS, "last"), *([(SEEN_TIMES, "max")] if timed else [])])
    pairs = pairs.sort_by([("row", "ascending"), (SEEN, "ascending")])
    counts = np.bincount(pairs["row"].to_numpy(), minlength=len(log))
    offsets = np.append(0, np.cumsum(counts)).astype(np.int32)
    if timed:
        times = pairs[f"{SEEN_TIMES}_max"].cast(pa.int64()).to_numpy()
        offsets, order = newest_last(offsets, times, newest)
        pairs = pairs.take(pa.array(order))
    of = {SEEN: SEEN, SEEN_WEIGHTS: f"{SEEN_WEIGHTS}_last", SEEN_TIMES: f"{SEEN_TIMES}_max"}
    return {
        name: pa.ListArray.from_arrays(pa.array(offsets), pairs[column].combine_chunks())
        for name, column in of.items()
        if column in pairs.column_names
    }


def _pairs(table: pa.Table, timed: bool) -> pa.Table:
    lists = table[SEEN].combine_chunks()
    columns = {"row": pc.list_parent_indices(lists), SEEN: lists.flatten()}
    names = [SEEN_WEIGHTS, *([SEEN_TIMES] if timed else [])]
    for name in names:
        dtype = NEXT_TO_SEEN[name].value_type
        if name in table.column_names:
            columns[name] = table[name].combine_chunks().flatten().cast(dtype)
        else:
            columns[name] = pa.repeat(pa.scalar(1, dtype), len(columns[SEEN]))
    return pa.table(columns)

"""Which of someone's items speak for a result: what each adds to its score, exactly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from feast_embeddings.arguments import Id
from feast_embeddings.errors import OptionError
from feast_embeddings.query.answers import Neighbours, Reason
from feast_embeddings.query.collection import LiveCollection
from feast_embeddings.query.deadline import check_time
from feast_embeddings.query.visitors import Visitors

__all__ = ["MOST", "check_exact", "known_items", "score_parts", "with_reasons"]

# A result names this many items that speak for it.
MOST = 3


def check_exact(visitors: Visitors) -> None:
    """Raise unless the version can say exactly what each item adds.

    Raises:
        OptionError: its trainer cannot. To leave out one item after the other would take a fold-in for each.
        FoldInError: see `Visitors.fold_in`.
    """
    if not visitors.has_parts:
        raise OptionError(
            "explain",
            f"the trainer of version {visitors.version} cannot say exactly what each item adds to a score, as als and "
            "svd can; leave explain out, or run feast-embeddings explain --user ID --item ID",
        )


def known_items(visitors: Visitors, history: Mapping[Id, float]) -> dict[Id, float]:
    """Return the part of a history that the version knows."""
    known = visitors.knows(list(history))
    return {id: weight for (id, weight), is_known in zip(history.items(), known, strict=True) if is_known}


def score_parts(
    items: LiveCollection, visitors: Visitors, history: Mapping[Id, float], item_ids: Sequence[Id]
) -> Iterator[tuple[list[Id], npt.NDArray[np.float64]]]:
    """Say what each item of a history adds to the score of each of `item_ids`, which never speaks for itself.

    Args:
        history: items that the version knows, with weights.

    Yields:
        For each of `item_ids`, the n other items of the history, and what they add, shape (n,). It sums to the score
        for someone folded in from these, without the bias of the item (Hu, Koren and Volinsky, ICDM 2008, section 5).
    """
    whole = visitors.parts(history).astype(np.float64) if history else None
    for id, vector in zip(item_ids, items.embeddings(item_ids).vectors, strict=True):
        check_time()
        others = {other: weight for other, weight in history.items() if other != id}
        if whole is None or not others:
            yield [], np.empty(0)
        else:
            parts = whole if id not in history else visitors.parts(others).astype(np.float64)
            yield list(others), parts @ vector


def with_reasons(
    items: LiveCollection, visitors: Visitors, answer: Neighbours, history: Mapping[Id, float]
) -> Neighbours:
    """Return a ranking with the items that add most to each score, hidden ones left out; none for a fallback."""
    known = {} if answer.fallback is not None else known_items(visitors, history)
    hidden = items.hidden_ids
    because: list[list[Reason]] = []
    for ids, adds in score_parts(items, visitors, known, answer.ids):
        best = [i for i in np.argsort(-adds, kind="stable").tolist() if adds[i] > 0 and ids[i] not in hidden]
        because.append([Reason(ids[i], float(adds[i])) for i in best[:MOST]])
    return replace(answer, because=because)

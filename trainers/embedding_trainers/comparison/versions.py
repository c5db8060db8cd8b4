"""Score versions that exist on pairs that each of them can predict."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedding_trainers.comparison.paired import Scored
from embedding_trainers.evaluation.report import MAX_TEST_USERS, score_users
from embedding_trainers.interactions import Interactions, Split
from embedding_trainers.trainer import Factors
from feast_embeddings.errors import InputError

__all__ = ["score_versions"]


def score_versions(versions: Mapping[str, tuple[Factors, Split]], log: Interactions) -> tuple[list[Scored], int, int]:
    """Score the same users on the same pairs: those whose user and item all versions know, and that none has seen.

    Each version ranks all of its items, without those that it has seen. Of more than 100,000 users a random 100,000 are
    scored.

    Args:
        versions: by name; see `version_split`, by which `log` was split.
        log: the interactions to predict.

    Returns:
        What each user got; how many users have a pair; and how many pairs were to be found.

    Raises:
        InputError: the versions have no pair in common.
    """
    n_items = len(log.items)
    numbered = {name: _numbers(split, log) for name, (_, split) in versions.items()}
    keys = {
        name: users[rows] * n_items + items[columns]
        for name, (users, items) in numbered.items()
        for rows, columns in [versions[name][1].test.nonzero()]
    }
    shared = functools.reduce(np.intersect1d, keys.values())
    if not len(shared):
        raise InputError("no pair of the test has a user and an item that all versions know and that none has seen")
    users = np.unique(shared // n_items)
    n_users = len(users)
    if n_users > MAX_TEST_USERS:
        drawn = np.random.default_rng(0).choice(users, MAX_TEST_USERS, replace=False)
        shared = shared[np.isin(shared // n_items, drawn)]
    scored = []
    for name, (factors, split) in versions.items():
        keep = np.isin(keys[name], shared)
        rows, columns = (numbers[keep] for numbers in split.test.nonzero())
        test = type(split.test)((np.ones(len(rows), np.float32), (rows, columns)), shape=split.test.shape)
        test.sort_indices()
        # Users in the order of the log: versions number them differently.
        order = np.argsort(numbered[name][0][np.unique(rows)])
        scored.append(Scored(name, score_users(factors, split.masked, test)[order]))
    return scored, n_users, len(shared)


def _numbers(split: Split, log: Interactions) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The number in the log of each user and each item of a version, -1 for none; ids are compared as text."""

    def numbers(ids: pa.Array, of_log: pa.Array) -> npt.NDArray[np.int64]:
        found = pc.index_in(ids.cast(pa.string()), value_set=of_log.cast(pa.string()))
        places: npt.NDArray[np.int64] = pc.fill_null(found, -1).to_numpy().astype(np.int64)
        return places

    return numbers(split.users, log.users), numbers(split.items, log.items)

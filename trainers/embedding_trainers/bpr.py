"""Bayesian personalised ranking with the popularity that its sampling removes put back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from embedding_trainers.extra import import_extra
from embedding_trainers.trainer import Factors, RunOptions, Trainer, TrainerConfig
from feast_embeddings.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["BPR", "BPRConfig", "train_bpr"]


class BPRConfig(TrainerConfig):
    """Hyper-parameters of `train_bpr`.

    The defaults are a compromise between MovieLens 100K and Gowalla, found on a fifth of each user's training
    items held back. A sparse log like Gowalla gains from more iterations, a dense one from more regularization.
    """

    iterations: int = Field(default=150, ge=1, description="passes over the interactions")
    learning_rate: float = Field(default=0.05, gt=0, description="step of gradient descent")
    regularization: float = Field(default=0.01, ge=0, description="pull of every factor towards zero")
    popularity_correction: float = Field(default=0.75, ge=0, description="share of log-popularity put back")


def train_bpr(user_items: csr_matrix, config: BPRConfig, options: RunOptions) -> Factors:
    """Factorise by BPR (Rendle et al., UAI 2009, arXiv:1205.2618). It asks whether a pair occurs, not how often.

    implicit draws negative items in proportion to their popularity. The score learned so is the wanted one
    less the logarithm of that popularity, as in sampled softmax; adding it to the item bias puts it right
    (logQ correction: Bengio & Senécal, IEEE TNN 2008; Yi et al., RecSys 2019).

    Args:
        user_items: shape (n_users, n_items); see `Trainer`.
        config: hyper-parameters.
        options: seed, threads and progress; implicit's threads race, so only one thread repeats exactly.

    Raises:
        MissingExtraError: implicit is not installed.
        InputError: training diverged.
    """
    implicit = import_extra("implicit.cpu.bpr")
    diverged = import_extra("implicit.recommender_base").ModelFitError
    model = implicit.BayesianPersonalizedRanking(
        factors=config.factors,
        iterations=config.iterations,
        learning_rate=config.learning_rate,
        regularization=config.regularization,
        num_threads=options.threads,
        random_state=options.seed,  # implicit crashes on a RandomState
    )
    try:
        model.fit(user_items, show_progress=options.progress)
    except diverged as error:
        raise InputError(f"training diverged ({error}); lower the learning rate or raise the regularization") from None
    # implicit appends the item bias to the item factors, and a one to the user factors to pick it up.
    popularity = np.bincount(user_items.indices, minlength=user_items.shape[1])
    bias = model.item_factors[:, -1] + config.popularity_correction * np.log1p(popularity)
    return Factors(
        user_factors=np.ascontiguousarray(model.user_factors[:, :-1]),
        item_factors=np.ascontiguousarray(model.item_factors[:, :-1]),
        item_bias=bias.astype(np.float32),
    )


BPR = Trainer(BPRConfig, train_bpr, uses_weights=False)

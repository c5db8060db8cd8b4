"""Users as what a transformer makes of their last items, in order: SASRec, with the loss over the whole catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydantic import Field
from tqdm import tqdm

from embedding_trainers.extra import import_extra
from embedding_trainers.models.device import torch_device
from embedding_trainers.models.sequential.encoder import DEVIATION, Arrays, encode, mask_of, new_weights
from embedding_trainers.models.sequential.histories import Histories
from embedding_trainers.models.sequential.loss import Learner, torch_run
from embedding_trainers.models.softmax import start_of_items
from embedding_trainers.trainer import Factors, Folded, KnownSide, LogShape, RunOptions, Trainer, TrainerConfig
from feast_embeddings.artifact import Network
from feast_embeddings.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["SASREC", "SASRecConfig", "fold_in_sasrec", "train_sasrec"]

_WHOLE_CATALOGUE = 60_000  # items that all take part in the loss, unless asked otherwise
_DRAWN = 4096  # items that do, of more
_AT_A_TIME = 512  # histories that are encoded, which takes 70 MB
_ITEM_LENGTH = "item_length"

_Floats = npt.NDArray[np.float32]


class SASRecConfig(TrainerConfig):
    """Hyper-parameters of `train_sasrec`."""

    iterations: int = Field(
        default=20,
        ge=1,
        description="passes over the histories",
        json_schema_extra={"search": {"low": 5, "high": 100, "log": True}},
    )
    learning_rate: float = Field(
        default=0.001,
        gt=0,
        le=1,
        description="step of Adam",
        json_schema_extra={"search": {"low": 0.0003, "high": 0.003, "log": True}},
    )
    length: int = Field(
        default=50,
        ge=1,
        le=1000,
        description="how many of a user's newest items are looked at",
        json_schema_extra={"search": {"low": 10, "high": 200, "log": True}},
    )
    layers: int = Field(
        default=2,
        ge=1,
        le=16,
        description="how many times the items of a history look at each other",
        json_schema_extra={"search": {"low": 1, "high": 3}},
    )
    dropout: float = Field(
        default=0.2,
        ge=0,
        lt=1,
        description="share of values that are left out in training, at random",
        json_schema_extra={"search": {"low": 0.1, "high": 0.5}},
    )
    batch: int = Field(
        default=128,
        ge=1,
        description="histories for each step",
        json_schema_extra={"search": {"low": 64, "high": 512, "log": True}},
    )
    negatives: int | None = Field(
        default=None,
        ge=0,
        description="items drawn for the denominator of each step; 0 takes the whole catalogue, the default up to "
        f"{_WHOLE_CATALOGUE:,} items",
    )


def with_negatives(log: LogShape, config: SASRecConfig) -> SASRecConfig:
    """Decide how many items are drawn, where that is not given."""
    if config.negatives is not None:
        return config
    return config.model_copy(update={"negatives": 0 if log.n_items <= _WHOLE_CATALOGUE else _DRAWN})


def train_sasrec(user_items: csr_matrix, config: SASRecConfig, options: RunOptions) -> Factors:
    """Learn to predict the next item of each user (SASRec: Kang & McAuley, ICDM 2018, arXiv:1808.09781).

    A causal transformer turns the items up to each place of a history into a vector, whose dot products with the items
    are logits of the next one. The loss is the cross entropy over all items, which is what makes SASRec strong
    (Klenitskiy & Vasilev, RecSys 2023, arXiv:2309.07602), or over a sample of them where the catalogue is large. Adam
    descends it (Kingma & Ba, ICLR 2015, arXiv:1412.6980), from the directions of the items of `als`: a random start
    takes more passes, and ends elsewhere each time, so that no version can be aligned to another.

    A user is the vector at the last of their newest `length` distinct items, each at its latest time. So the order
    counts, and weights do not. Longer histories are learned in pieces.

    Training needs torch; folding in and serving need NumPy only.

    Args:
        user_items: shape (n_users, n_items); see `Trainer`.
        config: hyper-parameters.
        options: seed, threads, progress, device and the log; one thread repeats exactly on one machine.

    Raises:
        InputError: the log has no times, or there is no such device.
        MissingExtraError: torch or scipy is not installed.
    """
    if options.log is None:
        raise InputError("sasrec reads the single interactions; call Trainer.fit with the log")
    if options.log.times is None:
        raise InputError("sasrec learns from the order of interactions, and the log has no times; name their column")
    torch = import_extra("torch", "the trainer sasrec", "torch")
    device = torch_device(torch, options)
    config = with_negatives(LogShape.of(user_items), config)
    n_users, n_items = user_items.shape
    histories, rng = Histories(options.log, n_users), np.random.default_rng(options.seed)
    pairs = type(user_items)((np.ones_like(user_items.data), user_items.indices, user_items.indptr), user_items.shape)
    items = start_of_items(pairs, config.factors, options, rng) * np.float32(DEVIATION * config.factors**0.5)
    encoder = new_weights(rng, config.factors, config.length, config.layers)
    learner = Learner(
        torch,
        {"items": items} | encoder,
        device,
        learning_rate=config.learning_rate,
        dropout=config.dropout,
        negatives=config.negatives or 0,
    )

    def result() -> Factors:
        weights = learner.learned
        items = weights.pop("items")
        weights[_ITEM_LENGTH] = np.median(np.linalg.norm(items, axis=1), keepdims=True)
        users = _last_vectors(weights, items, histories, n_users)
        return Factors(users, items, np.zeros(n_items, np.float32), config=config, network=Network(weights))

    with torch_run(torch, options.threads, options.seed, device):
        for iteration in tqdm(range(1, config.iterations + 1), "sasrec", disable=not options.progress):
            for pieces in histories.pieces(config.length, config.batch, rng):
                learner.step(pieces, rng)
            if options.watch and options.watch(iteration, result):
                break
        return result()


def _last_vectors(weights: Mapping[str, _Floats], items: _Floats, histories: Histories, n_users: int) -> _Floats:
    softmax = import_extra("scipy.special").softmax
    users = np.empty((n_users, items.shape[1]), np.float32)
    for rows, numbers in histories.newest(len(weights["positions"]), _AT_A_TIME):
        vectors = np.where(numbers[:, :, None] >= 0, items[numbers], np.float32(0))
        users[rows] = encode(weights, vectors, mask_of(numbers >= 0), Arrays(softmax))[:, -1]
    return users


def fold_in_sasrec(interactions: csr_matrix, known: KnownSide, config: SASRecConfig, options: RunOptions) -> Folded:
    """Make vectors of new users or items, with the other side as it was trained.

    A user is what the transformer makes of their items, as in training: the same history gives the same vector, but for
    rounding. An item has the direction in which its users differ from all users, which is that of the first step that
    its loss descends from 0, and the median length of an item.

    Args:
        interactions: shape (n_new, n_known); see `Trainer`.
        known: the other side, with the network.
        config: as trained.
        options: the log, which has the order of the interactions of new users.

    Raises:
        InputError: there is no network, or the order of the interactions of new users is not known.
    """
    if known.network is None:
        raise InputError("sasrec folds in by its network, and here is none")
    weights, n_new = known.network.weights, interactions.shape[0]
    if known.entity == "item":
        if options.log is None:
            raise InputError("sasrec makes a user of the order of their interactions, and here are only their sums")
        users = _last_vectors(weights, known.factors, Histories(options.log, n_new), n_new)
        return Folded(users, np.zeros(n_new, np.float32))
    users = known.factors
    mean = known.kept("mean", lambda: users.mean(axis=0))
    totals = np.asarray(interactions.sum(axis=1), np.float32)
    directions = np.asarray(interactions @ users, np.float32) / totals - mean
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    items = directions / np.maximum(lengths, np.finfo(np.float32).tiny) * weights[_ITEM_LENGTH]
    return Folded(items, np.zeros(n_new, np.float32))


SASREC = Trainer(
    SASRecConfig,
    train_sasrec,
    fold_in_sasrec,
    uses_weights=False,
    derive=with_negatives,
    reads_log=True,
    fold_in_reads_log=True,
)

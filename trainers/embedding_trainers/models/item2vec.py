"""Item vectors by skip-grams over what users did, in order; a user is the mean of their items (gensim's word2vec)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydantic import Field
from tqdm import tqdm

from embedding_trainers.extra import import_extra
from embedding_trainers.models.device import refuse_gpu
from embedding_trainers.models.sampled_softmax import unit
from embedding_trainers.trainer import (
    Factors,
    Folded,
    KnownSide,
    RunOptions,
    Trainer,
    TrainerConfig,
    TrainingLog,
)
from feast_embeddings.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["ITEM2VEC", "Item2VecConfig", "fold_in_item2vec", "parts_item2vec", "train_item2vec"]

_SUBSAMPLING = 0.15  # of the mean frequency: more frequent items are left out at random, the more often the more so
_FIRST_STEP, _LAST_STEP = 0.025, 0.0001  # gensim's, as word2vec's
_LONGEST = 10_000  # gensim ignores what is beyond in a sentence
_HOUR = 3_600_000_000  # microseconds

_Floats = npt.NDArray[np.float32]


class Item2VecConfig(TrainerConfig):
    """Hyper-parameters of `train_item2vec`."""

    iterations: int = Field(
        default=20,
        ge=1,
        description="passes over the log",
        json_schema_extra={"search": {"low": 5, "high": 60, "log": True}},
    )
    window: int = Field(
        default=20,
        ge=1,
        le=_LONGEST,
        description="how many places before and after an item its neighbours are, at most",
        json_schema_extra={"search": {"low": 2, "high": 50, "log": True}},
    )
    session_hours: float | None = Field(
        default=None,
        gt=0,
        description="a session ends where so many hours pass without an interaction; one for each user if not given",
    )
    negatives: int = Field(
        default=5,
        ge=1,
        le=1000,
        description="items drawn for each pair of neighbours",
        json_schema_extra={"search": {"low": 2, "high": 20, "log": True}},
    )
    exponent: float = Field(
        default=0.75,
        ge=-1,
        le=1,
        description="of the frequency by which those are drawn",
        json_schema_extra={"search": {"low": -0.5, "high": 1}},
    )
    popularity: float = Field(
        default=0.1,
        ge=0,
        le=10,
        description="share of log-popularity in the scores, as the bias of items",
        json_schema_extra={"search": {"low": 0, "high": 0.3}},
    )


def train_item2vec(user_items: csr_matrix, config: Item2VecConfig, options: RunOptions) -> Factors:
    """Learn which items are near each other in what users did (item2vec: Barkan & Koenigstein, MLSP 2016).

    The items of a session, by time, are a sentence of word2vec (skip-gram with negative sampling: Mikolov et al.,
    NeurIPS 2013; gensim). So items are alike that are had in the same neighbourhood, whoever has them, and cosines are
    what the vectors are for. In a log without times a session is a set, as in the paper: it is shuffled for each pass.

    All items have length 1. A user is the mean of their items, by weight; sentences have no weights. A cosine cannot
    say how popular an item is, so its bias does: popularity · log(1 + degree). Without it rankings are worse.

    Args:
        user_items: shape (n_users, n_items); see `Trainer`.
        config: hyper-parameters.
        options: seed, threads, progress and the log; one thread repeats exactly.

    Raises:
        InputError: a GPU is asked for, or sessions in a log without times.
        MissingExtraError: gensim or scipy is not installed.
    """
    refuse_gpu(options, "item2vec")
    word2vec = import_extra("gensim.models.word2vec", "the trainer item2vec", "item2vec")
    if options.log is None:
        raise InputError("item2vec reads the single interactions; call Trainer.fit with the log")
    n_items = user_items.shape[1]
    sessions = _Sessions(options.log, config.session_hours, options.seed)
    model = word2vec.Word2Vec(
        vector_size=config.factors,
        window=config.window,
        sg=1,
        hs=0,
        negative=config.negatives,
        ns_exponent=config.exponent,
        sample=_SUBSAMPLING / n_items,
        min_count=1,
        seed=options.seed,
        workers=options.threads or os.cpu_count() or 1,
    )
    counts = np.bincount(options.log.item_columns, minlength=n_items)
    model.build_vocab_from_freq(dict(enumerate(counts.tolist())), corpus_count=len(sessions))
    rows = np.array([model.wv.key_to_index[column] for column in range(n_items)])
    degrees = np.bincount(user_items.indices, minlength=n_items)

    def result() -> Factors:
        items = unit(np.asarray(model.wv.vectors[rows], np.float32), 1 / np.sqrt(config.factors))
        return Factors(_means(user_items, items), items, _bias(degrees, config))

    steps = np.linspace(_FIRST_STEP, _LAST_STEP, config.iterations + 1)
    for iteration in tqdm(range(1, config.iterations + 1), "item2vec", disable=not options.progress):
        model.train(
            sessions,
            total_words=len(options.log),
            total_examples=len(sessions),
            epochs=1,
            start_alpha=steps[iteration - 1],
            end_alpha=steps[iteration],
        )
        if options.watch and options.watch(iteration, result):
            break
    return result()


class _Sessions:
    """Sentences of columns, a list for each session, in another order in each pass.

    Args:
        log: whose items they are.
        hours: without an interaction end a session; None takes one for each user.
        seed: of the order.
    """

    def __init__(self, log: TrainingLog, hours: float | None, seed: int) -> None:
        if hours is not None and log.times is None:
            raise InputError(
                f"parameter session_hours={hours}: the log has no times; leave it out, or name their column"
            )
        order = np.argsort(log.user_rows, kind="stable")
        users, self._columns = log.user_rows[order], log.item_columns[order]
        is_first = np.append(True, users[1:] != users[:-1])
        if hours is not None and log.times is not None:
            is_first[1:] |= np.diff(log.times[order]) > hours * _HOUR
        self._is_ordered, self._rng = log.times is not None, np.random.default_rng(seed)
        self._session = np.cumsum(is_first) - 1
        starts = np.flatnonzero(is_first)
        # Of one too long for gensim, parts are sentences.
        place = np.arange(len(users)) - np.repeat(starts, np.diff(starts, append=len(users)))
        self._starts = np.flatnonzero(place % _LONGEST == 0)

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[list[int]]:
        columns = self._columns
        if not self._is_ordered:
            columns = columns[np.lexsort((self._rng.random(len(columns)), self._session))]
        ends = np.append(self._starts[1:], len(columns))
        for sentence in self._rng.permutation(len(self)):
            yield columns[self._starts[sentence] : ends[sentence]].tolist()


def _means(user_items: csr_matrix, items: _Floats) -> _Floats:
    """The mean of each row's vectors, by weight."""
    totals = np.asarray(user_items.sum(axis=1), np.float32)
    return np.asarray(user_items @ items, np.float32) / totals


def _bias(degrees: npt.NDArray[np.integer], config: Item2VecConfig) -> _Floats:
    return np.asarray(config.popularity * np.log1p(degrees), np.float32)


def fold_in_item2vec(interactions: csr_matrix, known: KnownSide, config: Item2VecConfig, options: RunOptions) -> Folded:
    """Make vectors of new users or items, with the other side as it is.

    A user is the mean of their items, as in training: the same history gives the same vector. An item has the direction
    of the mean of its users.

    Args:
        interactions: shape (n_new, n_known); see `Trainer`.
        known: the other side.
        config: as trained.
        options: not used.
    """
    folded = _means(interactions, known.factors)
    if known.entity == "item":
        return Folded(folded, np.zeros(len(folded), np.float32))
    return Folded(unit(folded, 1 / np.sqrt(folded.shape[1])), _bias(np.diff(interactions.indptr), config))


def parts_item2vec(interactions: csr_matrix, known: KnownSide, config: Item2VecConfig) -> _Floats:
    """What each item of a user adds to the mean, see `Trainer`."""
    shares = interactions.data / interactions.data.sum(dtype=np.float32)
    return np.asarray(known.factors[interactions.indices] * shares[:, None], np.float32)


ITEM2VEC = Trainer(Item2VecConfig, train_item2vec, fold_in_item2vec, parts=parts_item2vec, reads_log=True)

"""Tests that a trainer of another package can run on itself, with pytest::

    from embedding_trainers.testing import TrainerTests
    from my_package import MINE


    class TestMine(TrainerTests):
        trainer = MINE

Nothing here is needed for training, and pytest is not imported.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedding_trainers.extra import import_extra
from embedding_trainers.search import search_space
from embedding_trainers.trainer import (
    Factors,
    Folded,
    KnownSide,
    LogShape,
    RunOptions,
    Trainer,
    TrainerConfig,
    TrainingLog,
)
from feast_embeddings.errors import InputError

__all__ = ["TrainerTests", "checkerboard"]

_Scores = npt.NDArray[np.float32]


def checkerboard(n: int = 50) -> Any:
    """User and item meet if both are even or both are odd, but for the diagonal, which is withheld.

    implicit tests every one of its recommenders with it: the one item left over must be the first.

    Returns:
        csr float32, shape (n, n).
    """
    numbers = np.arange(n)
    met = (numbers[:, None] % 2 == numbers % 2) & (numbers[:, None] != numbers)
    return import_extra("scipy.sparse").csr_matrix(met.astype(np.float32))


class TrainerTests:
    """What holds for every trainer. Subclass it, and set `trainer`.

    Attributes:
        trainer: the trainer under test.
        parameters: hyper-parameters for the tests, where the defaults would take long.

    Stability: stable, see docs/compatibility.md.
    """

    trainer: Trainer[Any]
    parameters: ClassVar[dict[str, Any]] = {"factors": 8}

    def test_finds_what_was_withheld(self) -> None:
        """The first item for each user of the checkerboard is the one that was withheld, with any number of threads."""
        board = checkerboard()
        for threads in (1, 2):
            scores = _scores(self._train(board, RunOptions(seed=1, threads=threads)))
            np.testing.assert_array_equal(_first_unseen(scores, board), np.arange(50), f"{threads} threads")

    def test_shapes(self) -> None:
        """Factors are float32 in C order, a row for each user and item, as long as the config says."""
        factors = self._train(checkerboard()[:40], RunOptions(threads=1))
        size = self._config().factors
        _check(factors.user_factors, (40, size), "user_factors")
        _check(factors.item_factors, (50, size), "item_factors")
        _check(factors.item_bias, (50,), "item_bias")

    def test_tiny(self) -> None:
        """A matrix of one user, one item or a few is trained on, with any number of threads."""
        csr_matrix = import_extra("scipy.sparse").csr_matrix
        for shape in ((1, 1), (1, 4), (4, 1), (2, 2)):
            for threads in (1, 4):
                factors = self._train(csr_matrix(np.ones(shape, np.float32)), RunOptions(threads=threads))
                _check(_scores(factors), shape, f"the scores of {shape}")

    def test_same_seed_same_bytes(self) -> None:
        """One thread and the same seed repeat to the byte."""
        first, second = (self._train(checkerboard(), RunOptions(seed=1, threads=1)) for _ in range(2))
        for name in ("user_factors", "item_factors", "item_bias"):
            one, two = getattr(first, name), getattr(second, name)
            assert one.tobytes() == two.tobytes(), f"{name} differ between two runs with one thread and one seed"

    def test_input_is_not_changed(self) -> None:
        """The matrix is the caller's."""
        board = checkerboard()
        before = board.copy()
        self._train(board, RunOptions(threads=1))
        _same_matrix(before, board)

    def test_weights(self) -> None:
        """Weights change the result, or the trainer says with `uses_weights` that they do not."""
        board = checkerboard()
        heavy = board.copy()
        heavy.data[::3] = 7
        plain, weighted = (self._train(matrix, RunOptions(seed=1, threads=1)) for matrix in (board, heavy))
        same = plain.user_factors.tobytes() == weighted.user_factors.tobytes()
        assert same != self.trainer.uses_weights, (
            f"uses_weights is {self.trainer.uses_weights}, but weights {'do not ' * same}change the factors"
        )

    def test_config_round_trip(self) -> None:
        """The config is the same after JSON, which is how a manifest keeps it."""
        config = self._config()
        assert config == self.trainer.config.model_validate_json(config.model_dump_json()), "the JSON lost something"

    def test_unknown_parameter_is_refused(self) -> None:
        """A misspelt hyper-parameter is an error, not a default."""
        try:
            self.trainer.configure({"no_such_parameter": 1})
        except InputError:
            return
        raise AssertionError("configure took a parameter that the config does not have")

    def test_race(self) -> None:
        """What a trainer sets for the race of ``auto`` is allowed, and its cost is more than 0."""
        if (entry := self.trainer.race) is not None:
            assert entry.cost > 0, f"race: a cost of {entry.cost}, expected more than 0"
            self.trainer.configure(entry.parameters)

    def test_search(self) -> None:
        """The ends of a declared search range are allowed values, and the default lies between them."""
        default = self.trainer.config()
        for name, where in search_space(self.trainer.config).items():
            edges = where.choices if hasattr(where, "choices") else (where.low, where.high)
            for value in edges:
                self.trainer.configure({name: value})
            if (value := getattr(default, name)) is None:
                continue  # derived from the log
            inside = value in edges if hasattr(where, "choices") else where.low <= value <= where.high
            assert inside, f"the default {name}={value!r} is not in {where}"

    def test_progress(self) -> None:
        """Nothing is printed unless progress is asked for."""
        with _output() as printed:
            self._train(checkerboard(), RunOptions(threads=1, progress=False))
        assert not printed, f"printed without being asked: {printed[0][:200]!r}"

    def test_fold_in(self) -> None:
        """New users and items with the interactions of trained ones get the same: the withheld one first."""
        board = checkerboard()
        options = RunOptions(seed=1, threads=1)
        factors = self._train(board, options)
        for entity in ("item", "user"):
            history = board if entity == "item" else board.T.tocsr()
            known = replace(_known(factors, board, entity), network=factors.network)
            before = history.copy()
            folded = self._fold_in(history, known, options, factors.config)
            if folded is None:
                return
            _same_matrix(before, history)
            _check(folded.factors, (50, known.factors.shape[1]), f"folded factors against {entity}s")
            _check(folded.bias, (50,), f"folded bias against {entity}s")
            scores = folded.factors @ known.factors.T + known.bias
            np.testing.assert_array_equal(_first_unseen(scores, history), np.arange(50), f"against {entity}s")

    def test_fold_in_repeats(self) -> None:
        """One thread and the same seed repeat to the byte."""
        board, options = checkerboard(), RunOptions(seed=1, threads=1)
        factors = self._train(board, options)
        known = replace(_known(factors, board, "item"), network=factors.network)
        first, second = (self._fold_in(board[:3], known, options, factors.config) for _ in range(2))
        assert (first and first.factors.tobytes()) == (second and second.factors.tobytes()), "folding in differs"

    def test_parts(self) -> None:
        """What each interaction adds sums to the vector of folding in."""
        if self.trainer.parts is None:
            return
        board = checkerboard()
        options = RunOptions(seed=1, threads=1)
        known = _known(self._train(board, options), board, "item")
        config = self.trainer.complete(self._config(), LogShape.of(board))
        for row in (board[0], board[7, :3], board[7, :2]):
            history = row.copy()
            history.resize(1, board.shape[1])
            folded = self._fold_in(history, known, options)
            assert folded is not None, "a trainer with parts folds in"
            parts = self.trainer.parts(history, known, config)
            _check(parts, (history.nnz, known.factors.shape[1]), "parts")
            np.testing.assert_allclose(parts.sum(axis=0), folded.factors[0], rtol=1e-4, atol=1e-5)

    def test_log(self) -> None:
        """One that reads the log leaves it as it is, needs no weights or attributes, and may refuse no times."""
        board = checkerboard()
        if not self.trainer.needs_log(self._config()):
            return
        log, again = _log(board), _log(board)
        plain = replace(log, weights=None, user_attributes=None, item_attributes=None)
        for each in (log, plain, replace(plain, times=None)):
            try:
                scores = _scores(self._train(board, RunOptions(seed=1, threads=1), each))
            except InputError:
                if each.times is None:
                    continue
                raise
            _check(scores, board.shape, "the scores")
        for name in ("user_rows", "item_columns", "weights", "times"):
            np.testing.assert_array_equal(getattr(log, name), getattr(again, name), f"the log was changed: {name}")

    def _config(self) -> Any:
        return self.trainer.configure(self.parameters)

    def _train(self, matrix: Any, options: RunOptions, log: TrainingLog | None = None) -> Factors:
        return self.trainer.fit(matrix, self._config(), options, _log(matrix) if log is None else log)

    def _fold_in(
        self, history: Any, known: KnownSide, options: RunOptions, found: TrainerConfig | None = None
    ) -> Folded | None:
        config = found or self.trainer.complete(self._config(), LogShape.of(checkerboard()))
        if self.trainer.fold_in_reads_log:
            options = replace(options, log=_log(history))
        return None if self.trainer.fold_in is None else self.trainer.fold(history, known, config, options)


def _log(user_items: Any) -> TrainingLog:
    """Interactions that sum up to the matrix, an hour after each other, and attributes: whether a number is odd."""
    entries = user_items.tocoo()
    order = np.random.default_rng(0).permutation(user_items.nnz)
    users, items = (pa.table({"odd": np.arange(n) % 2 == 1, "number": np.arange(n)}) for n in user_items.shape)
    return TrainingLog(
        user_rows=entries.row[order].astype(np.int32),
        item_columns=entries.col[order].astype(np.int32),
        weights=entries.data[order],
        times=np.arange(user_items.nnz, dtype=np.int64) * 3_600_000_000,
        user_attributes=users,
        item_attributes=items,
    )


def _scores(factors: Factors) -> _Scores:
    return factors.user_factors @ factors.item_factors.T + factors.item_bias


def _first_unseen(scores: _Scores, seen: Any) -> npt.NDArray[np.int64]:
    first: npt.NDArray[np.int64] = np.where(seen.toarray() > 0, -np.inf, scores).argmax(axis=1)
    return first


def _known(factors: Factors, user_items: Any, entity: Any) -> KnownSide:
    if entity == "item":
        return KnownSide("item", factors.item_factors, factors.item_bias, user_items.getnnz(axis=0).astype(np.int64))
    bias = np.zeros(len(factors.user_factors), np.float32)
    return KnownSide("user", factors.user_factors, bias, user_items.getnnz(axis=1).astype(np.int64))


def _check(array: npt.NDArray[np.float32], shape: tuple[int, ...], what: str) -> None:
    assert array.shape == shape, f"{what}: expected shape {shape}, got {array.shape}"
    assert array.dtype == np.float32, f"{what}: expected float32, got {array.dtype}"
    assert array.flags.c_contiguous, f"{what}: expected C order"
    assert np.isfinite(array).all(), f"{what}: NaN or infinity"


def _same_matrix(before: Any, after: Any) -> None:
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name), f"the input was changed: {name}")


@contextmanager
def _output() -> Iterator[list[str]]:
    """What is written to standard output and error meanwhile, by libraries too."""
    printed: list[str] = []
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as file:
        try:
            for descriptor in (1, 2):
                os.dup2(file.fileno(), descriptor)
            with redirect_stdout(file), redirect_stderr(file):
                yield printed
        finally:
            for descriptor, original in zip((1, 2), kept, strict=True):
                os.dup2(original, descriptor)
                os.close(original)
            file.seek(0)
            if text := file.read():
                printed.append(text)

"""Several trainers side by side: their vectors are concatenated, and their scores are a weighted sum."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from embedding_trainers.trainer import (
    Factors,
    Folded,
    KnownSide,
    LogShape,
    RunOptions,
    Trainer,
    TrainerConfig,
    find_trainer,
)
from feast_embeddings.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["CONCAT", "ConcatConfig", "fold_in_concat", "train_concat"]

_NAME = "concat"
_MOST = 4096  # dimensions
_WEIGHT_OF_OTHERS = 0.35  # next to 1: best on the mean of three logs (`tests.benchmarks.one_parameter`)
_SAMPLE_USERS, _SAMPLE_ITEMS = 512, 4096  # whose scores give the spread of a part's scores


def _split(value: Any) -> Any:
    """The values of a text with commas between them, as the command line has it."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


_Split = BeforeValidator(_split)
_Positive = Annotated[float, Field(gt=0)]
_Weight = Annotated[float, Field(ge=1e-4, le=1e4)]  # float32 scores still tell one part from the other


class ConcatConfig(TrainerConfig):
    """Hyper-parameters of `train_concat`; on the command line a list is a text with commas.

    Raises:
        InputError: there are fewer than two parts, or the settings do not fit them.
    """

    factors: int = Field(
        default=128, ge=1, le=_MOST, description="length of the vectors: of all parts together, which have equal shares"
    )
    parts: Annotated[tuple[str, ...], _Split] = Field(
        default=("softmax", "als"), description="the trainers, in the order of their dimensions"
    )
    dims: Annotated[tuple[int, ...], _Split] = Field(
        default=(), description="length of the vectors of each part, in place of equal shares of factors"
    )
    weights: Annotated[tuple[_Weight, ...], _Split] = Field(
        default=(),
        description="of the scores of each part, whose spreads are made equal first; 1 for the first part and 0.35 "
        "for each other if not given",
    )
    settings: dict[str, dict[str, Any]] = Field(
        default={}, description="hyper-parameters of parts, as settings.als.iterations = 5"
    )
    scales: tuple[tuple[_Positive, _Positive], ...] = Field(
        default=(),
        description="what makes the spreads equal: factors of the users and of the items of each part, measured in the "
        "training if not given",
    )

    @model_validator(mode="after")
    def _filled(self) -> Self:
        n = len(self.parts)
        if n < 2 or len(set(self.parts)) < n or _NAME in self.parts:
            raise InputError(f"parameter parts={', '.join(self.parts)}: expected two or more other trainers, each once")
        for name in ("dims", "weights", "scales"):
            if (given := getattr(self, name)) and len(given) != n:
                raise InputError(
                    f"parameter {name}: expected {n} values, one for each of {', '.join(self.parts)}; got {len(given)}"
                )
        if not self.dims:
            if self.factors < n:
                raise InputError(f"parameter factors={self.factors}: expected at least 1 for each of {n} parts")
            share, rest = divmod(self.factors, n)
            self.__dict__["dims"] = (*[share + 1] * rest, *[share] * (n - rest))
        if (total := sum(self.dims)) > _MOST:
            raise InputError(f"parameter dims: they add up to {total}; expected at most {_MOST}")
        if "factors" in self.model_fields_set and self.factors != total:
            raise InputError(
                f"parameter factors={self.factors}, but dims add up to {total}; give one of them, or both as they fit"
            )
        self.__dict__.update(factors=total, weights=self.weights or (1.0, *[_WEIGHT_OF_OTHERS] * (n - 1)))
        if other := next((name for name in self.settings if name not in self.parts), None):
            raise InputError(f"parameter settings.{other}: expected one of the parts, {', '.join(self.parts)}")
        self.trainers()  # what a part refuses is an error now, not after the training of another
        return self

    def trainers(self) -> list[tuple[Trainer[Any], Any]]:
        """Each part's trainer, and its config.

        Raises:
            InputError: there is no such trainer, or it does not take a setting.
        """
        found = []
        for name, dim in zip(self.parts, self.dims, strict=True):
            trainer, settings = find_trainer(name), self.settings.get(name, {})
            if trainer.fold_in_reads_log:
                raise InputError(f"parameter parts: {name!r} reads the order of items, and cannot be a part")
            if "factors" in settings:
                raise InputError(f"parameter settings.{name}.factors: write it as one of dims")
            try:
                found.append((trainer, trainer.configure({"factors": dim, **settings})))
            except InputError as error:
                raise InputError(f"part {name!r}: {error}") from None
        return found

    @property
    def blocks(self) -> dict[str, int]:
        """See `TrainerConfig.blocks`."""
        return dict(zip(self.parts, self.dims, strict=True))


def with_settings(log: LogShape, config: ConcatConfig) -> ConcatConfig:
    """Give a config whose settings are all that each part was trained with."""
    settings = {
        name: trainer.complete(own, log).model_dump(mode="json", exclude={"factors"})
        for name, (trainer, own) in zip(config.parts, config.trainers(), strict=True)
    }
    return config.model_copy(update={"settings": settings})


def train_concat(user_items: csr_matrix, config: ConcatConfig, options: RunOptions) -> Factors:
    """Train each part on the same interactions, and put their vectors side by side.

    The score is the sum of weight / spread · score over the parts, bias included. The spread of a part is the standard
    deviation of its scores over items, the mean of that over users, on a sample of both. A factor for users and one for
    items make it so; their ratio makes the vectors of both sides of a part equally long on the whole, so that no part
    rules the neighbours of one side. These factors go into the config, as folding in needs them.

    Each part turns, and is folded in, by itself. Only one may have a bias of items: a version has one, and folding in
    needs the part's.

    Args:
        user_items: shape (n_users, n_items); see `Trainer`.
        config: hyper-parameters.
        options: given to each part, so that a device that one of them cannot use is refused; the log to those that read
            it.

    Raises:
        InputError: a part cannot be trained, or two have a bias.
        MissingExtraError: what a part needs is not installed.
    """
    config = with_settings(LogShape.of(user_items), config)
    n_users, n_items = user_items.shape
    users, items = (np.empty((n, config.factors), np.float32) for n in (n_users, n_items))
    bias = np.zeros(n_items, np.float32)
    biased, scales, start = "", list(config.scales), 0
    options = replace(options, watch=None)
    for number, (trainer, own) in enumerate(config.trainers()):
        factors = trainer.fit(user_items, own, options, options.log)
        if factors.item_bias.any():
            if biased:
                raise InputError(
                    f"the parts {biased!r} and {config.parts[number]!r} both give items a bias, and a version has one; "
                    "leave out one of them"
                )
            biased = config.parts[number]
        if len(scales) == number:
            scales.append(_scales(factors, options.seed))
        of_users, of_items = _weighted(scales[number], config.weights[number])
        block = slice(start, start := start + own.factors)
        np.multiply(factors.user_factors, of_users, out=users[:, block])
        np.multiply(factors.item_factors, of_items, out=items[:, block])
        bias += factors.item_bias * np.float32(of_users * of_items)
    return Factors(users, items, bias, config=config.model_copy(update={"scales": tuple(scales)}))


def _scales(factors: Factors, seed: int) -> tuple[float, float]:
    """What users and items of a part are multiplied by, so that its scores have a spread of 1."""
    rng = np.random.default_rng(seed)
    users, items = (
        np.sort(rng.permutation(n)[:most])
        for n, most in ((len(factors.user_factors), _SAMPLE_USERS), (len(factors.item_factors), _SAMPLE_ITEMS))
    )
    left, right = (f.astype(np.float64) for f in (factors.user_factors[users], factors.item_factors[items]))
    spread = float((left @ right.T + factors.item_bias[items]).std(axis=1).mean())
    lengths = [float(np.sqrt((f * f).sum(axis=1).mean())) for f in (left, right)]
    # A part without information, as with a single item, stays unchanged.
    longer = np.sqrt(lengths[1] / lengths[0]) if all(lengths) else 1.0
    even = np.sqrt(1 / spread) if spread > 0 else 1.0
    return float(even * longer), float(even / longer)


def _weighted(scales: tuple[float, float], weight: float) -> tuple[float, float]:
    root = float(np.sqrt(weight))
    return scales[0] * root, scales[1] * root


@dataclass(frozen=True)
class _Part:
    fold_in: Callable[[csr_matrix, KnownSide, Any, RunOptions], Folded]
    config: Any
    known: KnownSide
    of_users: float
    of_items: float


def fold_in_concat(interactions: csr_matrix, known: KnownSide, config: ConcatConfig, options: RunOptions) -> Folded:
    """Fold in by each part, with its own share of the other side, and put the vectors side by side.

    Args:
        interactions: shape (n_new, n_known); see `Trainer`.
        known: the other side.
        config: of the version, with the scales.
        options: given to each part.

    Raises:
        InputError: a part cannot fold in, or the scales are not given.
    """
    parts = known.kept(("parts", config.model_dump_json()), lambda: list(_parts(known, config)))
    n, start = interactions.shape[0], 0
    factors, bias = np.empty((n, config.factors), np.float32), np.zeros(n, np.float32)
    for part in parts:
        folded = part.fold_in(interactions, part.known, part.config, options)
        block = slice(start, start := start + part.config.factors)
        np.multiply(folded.factors, part.of_users if known.entity == "item" else part.of_items, out=factors[:, block])
        bias += folded.bias * np.float32(part.of_users * part.of_items)
    return Folded(factors, bias)


def _parts(known: KnownSide, config: ConcatConfig) -> Iterator[_Part]:
    """What each part knows of a side, as it was trained."""
    if not config.scales:
        raise InputError("parameter scales is not given: take the config of the version")
    start = 0
    for number, (trainer, own) in enumerate(config.trainers()):
        if trainer.fold_in is None:
            raise InputError(f"the part {config.parts[number]!r} of {_NAME} cannot fold in; train a new version")
        of_users, of_items = _weighted(config.scales[number], config.weights[number])
        block = slice(start, start := start + own.factors)
        factors = known.factors[:, block] / np.float32(of_items if known.entity == "item" else of_users)
        # Of the one part that has a bias; a part without does not read it.
        bias = known.bias / np.float32(of_users * of_items)
        yield _Part(trainer.fold_in, own, KnownSide(known.entity, factors, bias, known.degrees), of_users, of_items)


def _reads_log(config: ConcatConfig) -> bool:
    return any(trainer.needs_log(own) for trainer, own in config.trainers())


CONCAT = Trainer(ConcatConfig, train_concat, fold_in_concat, derive=with_settings, reads_log=_reads_log)

"""What a trainer is: its config, what it gets, and what it gives."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, get_args

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from embedding_trainers.trainer.log import LogShape, TrainingLog
from feast_embeddings.artifact import Network
from feast_embeddings.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = [
    "IMPORTED",
    "Device",
    "Factors",
    "Folded",
    "KnownSide",
    "RaceEntry",
    "RunOptions",
    "Trainer",
    "TrainerConfig",
]

IMPORTED = "import"
"""The trainer in the manifest of vectors that were made elsewhere."""

Device = Literal["auto", "cpu", "gpu"]
T = TypeVar("T")


class TrainerConfig(BaseModel):
    """Hyper-parameters: what decides how good the factors are. Goes into the manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    factors: int = Field(default=64, ge=1, le=4096, description="length of the vectors, without the bias")

    @property
    def blocks(self) -> dict[str, int]:
        """Which neighbouring dimensions turn by themselves when a version is aligned: how many, by a name.

        One block, except for a trainer that concatenates the vectors of others.
        """
        return {"": self.factors}


@dataclass(frozen=True)
class RunOptions:
    """Options of a run that are not hyper-parameters.

    Attributes:
        seed: of all randomness, 0 to 2³² - 1. Results repeat to the byte with `threads` = 1, but on a GPU.
        threads: 0 takes one per core.
        progress: show a bar on standard error.
        device: ``auto`` takes a GPU if the trainer and the machine have one and `threads` is not 1; a trainer that
            cannot use one refuses ``gpu``.
        watch: called after each iteration with its number, from 1, and a function that gives the factors so far.
            Training ends with that iteration if it returns True. Trainers without iterations do not call it.
        log: what the matrix sums up, for a trainer that says `reads_log`; None for others.
    """

    seed: int = 0
    threads: int = 0
    progress: bool = False
    device: Device = "auto"
    watch: Callable[[int, Callable[[], Factors]], bool] | None = None
    log: TrainingLog | None = None


@dataclass(frozen=True)
class Factors:
    """What was learned. The score of an item for a user is ``user · item + bias``; higher is better.

    Attributes:
        user_factors: float32, shape (n_users, factors).
        item_factors: float32, shape (n_items, factors).
        item_bias: float32, shape (n_items,).
        config: the hyper-parameters with what the training found and folding in needs, for the manifest; None for
            those that it was given.
        network: what folding in needs besides the other side, kept with the version; None for most.

    Raises:
        InputError: a value is NaN or infinite, for example after a too large learning rate.
    """

    user_factors: npt.NDArray[np.float32]
    item_factors: npt.NDArray[np.float32]
    item_bias: npt.NDArray[np.float32]
    config: TrainerConfig | None = field(default=None, kw_only=True)
    network: Network | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        weights = () if self.network is None else self.network.weights.values()
        # Least and greatest show both, and take no memory, as a mask of all values does.
        ends = [
            end
            for a in (self.user_factors, self.item_factors, self.item_bias, *weights)
            for end in (a.min(initial=0), a.max(initial=0))
        ]
        if not np.isfinite(ends).all():
            raise InputError(
                "training diverged to NaN or infinity; lower the learning rate or raise the regularization"
            )


@dataclass(frozen=True)
class KnownSide:
    """The side that stays as it was trained while new users or items are folded in against it.

    Attributes:
        entity: what these are: items when users are folded in, users when items are.
        factors: float32, shape (n_known, factors).
        bias: float32, shape (n_known,): the item bias; zeros for users.
        degrees: int64, shape (n_known,): with how many of the other side training saw each. 0 for one whose vector
            was made of content: new rows may have it, but those without it did not pass it over.
        network: of the version, see `Factors`.
    """

    entity: Literal["user", "item"]
    factors: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    degrees: npt.NDArray[np.int64]
    network: Network | None = None
    _kept: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def trained(self) -> npt.NDArray[np.bool_] | None:
        """Which ones training saw; None if it saw all."""
        # A version of another program may not say how much it saw of any.
        return None if self.degrees.all() or not self.degrees.any() else self.degrees > 0

    @property
    def trained_factors(self) -> npt.NDArray[np.float32]:
        """The factors of those that training saw."""
        return self.factors if self.trained is None else self.factors[self.trained]

    def kept(self, key: Hashable, make: Callable[[], T]) -> T:
        """What follows from this side alone, made for the first fold-in and kept for those that come after it.

        Args:
            key: says what it is, and with which hyper-parameters.
        """
        if key not in self._kept:
            self._kept[key] = make()
        kept: T = self._kept[key]
        return kept


@dataclass(frozen=True)
class Folded:
    """What was folded in, in the space of the known side.

    Attributes:
        factors: float32, shape (n_new, factors).
        bias: float32, shape (n_new,): the bias of new items; zeros for new users.
    """

    factors: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]


@dataclass(frozen=True)
class RaceEntry:
    """How a cheap trainer takes part in the race of ``auto``.

    Attributes:
        cost: of its training, in multiples of what svd takes on the same log, roughly. Of trainers that rank equally
            well the one with the lowest cost wins; it is declared, as measured times would change the winner.
        parameters: hyper-parameters for the race alone that make it short and hardly worse, such as few iterations;
            the defaults apply to the others. The winner is fitted with its defaults.
        suits: whether it takes part on a log of this shape; None for any. For a trainer that is worth its time on some.
    """

    cost: float
    parameters: Mapping[str, Any] = field(default_factory=dict)
    suits: Callable[[LogShape], bool] | None = None


C = TypeVar("C", bound=TrainerConfig)


@dataclass(frozen=True)
class Trainer(Generic[C]):
    """A config class, and the functions that train and fold in with it.

    `train` gets the user-item matrix (csr, float32, shape (n_users, n_items), no empty row or column,
    sorted indices, positive weights) and returns factors in the order of its rows and columns.

    `fold_in` gets the interactions of new users or items (csr, float32, shape (n_new, n_known), no empty row, sorted
    indices, positive weights) with the known side, which may have been rotated since it was trained; it returns a
    vector per row. None for a trainer that cannot. Call `fold`: a side with a network is turned back for it.

    `parts` gets the interactions of one new user (shape (1, n_items), as in `fold_in`) with the known items, and
    returns what each adds to the vector that `fold_in` gives: float32, shape (entries of the row, factors), in the
    order of its indices, with the vector as their sum. None for a trainer whose vectors are no such sum.

    `derive` fills in hyper-parameters that are None, for a trainer whose defaults depend on the log;
    None for one whose do not. `train` does the same for a config that was not completed.

    The matrix holds the summed weights of each pair. A trainer with `uses_weights` False asks only whether a pair
    occurs, and says so here, so that settings that would change nothing are refused.

    `race` makes it a candidate of ``auto``, see `search.racing`; None for one that has to be named.

    A trainer that `reads_log` finds each interaction in `RunOptions.log`, in order and with its time, and the
    attributes of users and items; one that does so with some hyper-parameters only gives a function of the config.
    For others the log is not kept. One with `fold_in_reads_log` makes a user of more than the sums, such as the order:
    `fold_in` finds the interactions of new users in `RunOptions.log` too, their rows numbered as those of its matrix.

    Stability: stable, see docs/compatibility.md.
    """

    config: type[C]
    train: Callable[[csr_matrix, C, RunOptions], Factors]
    fold_in: Callable[[csr_matrix, KnownSide, C, RunOptions], Folded] | None = None
    uses_weights: bool = True
    derive: Callable[[LogShape, C], C] | None = None
    race: RaceEntry | None = None
    parts: Callable[[csr_matrix, KnownSide, C], npt.NDArray[np.float32]] | None = None
    reads_log: bool | Callable[[C], bool] = False
    fold_in_reads_log: bool = False

    def complete(self, config: C, log: LogShape) -> C:
        """Return the config with nothing left to derive from the log, as a manifest keeps it."""
        return config if self.derive is None else self.derive(log, config)

    def needs_log(self, config: C) -> bool:
        """Whether training with this config reads the log."""
        return self.reads_log if isinstance(self.reads_log, bool) else self.reads_log(config)

    def fit(self, user_items: csr_matrix, config: C, options: RunOptions, log: TrainingLog | None) -> Factors:
        """Train, with the log if this trainer reads it.

        Args:
            user_items, config, options: see `train`.
            log: what the matrix sums up.

        Raises:
            InputError: the trainer reads the log, and there is none.
        """
        if not self.needs_log(config):
            return self.train(user_items, config, options)
        if log is None:
            raise InputError(
                f"{self.config.__name__}: this trainer reads the single interactions, and here are only their sums; "
                "take another trainer"
            )
        return self.train(user_items, config, replace(options, log=log))

    def fold(self, interactions: csr_matrix, known: KnownSide, config: C, options: RunOptions) -> Folded:
        """Fold in, by `fold_in`, in the space of the known side.

        A network knows only the vectors that it learned with: where these were rotated since, they are turned back for
        it, and what it gives is rotated.

        Raises:
            InputError: the trainer cannot fold in.
        """
        if self.fold_in is None:
            raise InputError(f"{self.config.__name__}: this trainer cannot fold in")
        if (network := known.network) is None or (rotation := network.rotation) is None:
            return self.fold_in(interactions, known, config, options)

        def as_learned() -> KnownSide:
            return replace(known, factors=known.factors @ rotation.T, network=replace(network, rotation=None))

        folded = self.fold_in(interactions, known.kept("as learned", as_learned), config, options)
        return replace(folded, factors=folded.factors @ rotation)

    def configure(self, parameters: Mapping[str, Any]) -> C:
        """Make the config; text is converted to the type of the parameter.

        Raises:
            InputError: an unknown name or a value that is not allowed.
        """
        known = self.config.model_fields
        for name, value in parameters.items():
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                guess = f"; did you mean {close[0]!r}?" if close else ""
                raise InputError(f"no parameter {name!r}; there are {', '.join(known)}{guess}")
            kind = known[name].annotation
            if isinstance(value, bool) and bool not in (kind, *get_args(kind)):  # pydantic takes it for 0 or 1
                raise InputError(f"parameter {name}={value}: expected no truth value")
        try:
            return self.config.model_validate(dict(parameters))
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"])) or "config"
            raise InputError(f"parameter {name}={first['input']!r}: {first['msg']}") from None

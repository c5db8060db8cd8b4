"""What a model of some size takes: CPU, memory, disk and machines, from costs that benchmarks of this project print.

Costs of training are for ``als``, costs of a point for a collection with two vectors, as both sides have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from feast_embeddings.errors import InputError

__all__ = ["COSTS", "Capacity", "Cost", "Machine", "Step", "Workload", "plan_capacity"]

_GIB = 2**30
_HOURS_A_MONTH = 730.0
_ARTIFACT = ("artifact_row", "artifact_id")
# Servers answer with short queues up to about this share of their cores, and page files in the rest of the memory.
_BUSY, _FULL = 0.5, 0.8


@dataclass(frozen=True)
class Cost:
    """One measured number.

    Attributes:
        value: in `unit`.
        source: the command that prints it, or where it comes from if nothing here does.
    """

    value: float
    unit: str
    source: str


_SCALE = "python -m tests.benchmarks.scale"
_PUBLISH = "python -m tests.benchmarks.publish --rows 1000000"
_POINT = "python -m tests.benchmarks.point_cost"
COSTS = {
    "train_base": Cost(0.45, "GiB", f"{_SCALE} --users 300000: the rest, without rows and ids"),
    "train_row": Cost(25, "bytes of memory a row", f"{_SCALE} --users 10000000 --items 1000000"),
    "train_id": Cost(60, "bytes of memory a user or item", f"{_SCALE} --users 300000 1000000"),
    "train_factor": Cost(4, "bytes of memory a dimension of a user or item", f"{_SCALE} --factors 16"),
    "read_row": Cost(2.7e-6, "s of CPU a row", f"{_SCALE} --rows 60: next to --rows 20"),
    "fit_row": Cost(4.2e-9, "s of CPU a row, iteration and dimension", f"{_SCALE} --iterations 10"),
    "fit_id": Cost(2.1e-9, "s of CPU a user or item, iteration and squared dimension", f"{_SCALE} --items 300000"),
    "judge": Cost(7.0e-11, "s of CPU a test user, item and dimension", f"{_SCALE} --users 1000000: evaluate"),
    "artifact_row": Cost(1.9, "bytes a row", f"{_SCALE}: artifact"),
    "artifact_id": Cost(16, "bytes a user or item, more than 4 a dimension", f"{_SCALE}: artifact"),
    "spark_cpu": Cost(14, "times the CPU of one machine", f"{_SCALE} --spark --users 300000"),
    "spark_row": Cost(200, "bytes of memory a row, over all executors", f"{_SCALE} --spark (an early trial)"),
    "load_point": Cost(34e-6, "s of CPU a point", _PUBLISH),
    "index_point": Cost(474e-6, "s of CPU a point of 64 dimensions", _PUBLISH),
    "disk_point": Cost(700, "bytes of disk a point, more than 8 a dimension", _POINT),
    "own_point": Cost(
        290, "bytes of memory a point that cannot be given back", "python -m tests.benchmarks.point_cost"
    ),
    "query": Cost(1.2e-3, "s of CPU a query over HTTP", "python -m tests.benchmarks.load"),
}


@dataclass(frozen=True)
class Workload:
    """What is to be trained and served.

    Attributes:
        interactions: rows of the log.
        dim: length of the vectors.
        iterations: of the trainer.
        qps: queries a second at the busiest time.
        replicas: copies of each point on a server.
        versions: how many are loaded at a time: the new one, the live one and those kept for going back.
        trainings: a month.
        quantized: search on int8 vectors, with the vectors themselves on disk.
    """

    users: float
    items: float
    interactions: float
    dim: int = 64
    iterations: int = 10
    qps: float = 0
    replicas: int = 2
    versions: int = 4
    trainings: float = 30
    quantized: bool = False

    def __post_init__(self) -> None:
        for name in ("users", "items", "interactions"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 1):
                raise InputError(f"{name} must be a number of 1 or more, but it is {getattr(self, name):g}")
        if not (math.isfinite(self.qps) and self.qps >= 0):
            raise InputError(f"qps must be a number of 0 or more, but it is {self.qps:g}")


@dataclass(frozen=True)
class Machine:
    """The kind of machine to plan with."""

    cores: int = 16
    memory_gib: float = 128
    price_hour: float = 1.0


@dataclass(frozen=True)
class Step:
    """One part of the work.

    Attributes:
        where: on what it runs.
        machines: how many, of the kind planned with.
        cpu_hours: of one run; for serving, of an hour at the busiest time.
        hours: wall time of one run; None for what never ends.
        memory_gib, disk_gib: over all machines.
        price_month: with the trainings of a month.
        costs: names in `COSTS` of what it is computed from.
    """

    name: str
    where: str
    machines: int
    cpu_hours: float
    hours: float | None
    memory_gib: float
    disk_gib: float
    price_month: float
    costs: tuple[str, ...]


@dataclass(frozen=True)
class Capacity:
    """The steps of a workload, in order."""

    workload: Workload
    machine: Machine
    steps: tuple[Step, ...]

    @property
    def price_month(self) -> float:
        """Of all steps."""
        return sum(step.price_month for step in self.steps)


def plan_capacity(workload: Workload, machine: Machine) -> Capacity:
    """Compute what a workload takes on machines of this kind.

    It is linear in the measured costs: graphs, caches and networks are not.
    """
    return Capacity(
        workload, machine, (_train(workload, machine), _publish(workload, machine), _serve(workload, machine))
    )


def _of(name: str) -> float:
    return COSTS[name].value


def _train(load: Workload, machine: Machine) -> Step:
    ids = load.users + load.items
    memory = (
        _of("train_base")
        + (load.interactions * _of("train_row") + ids * (_of("train_id") + _of("train_factor") * load.dim)) / _GIB
    )
    fit = load.iterations * (load.interactions * load.dim * _of("fit_row") + ids * load.dim**2 * _of("fit_id"))
    judge = min(load.users, 100_000) * load.items * load.dim * _of("judge")
    # The evaluation fits once more, without the newest tenth.
    cpu = load.interactions * _of("read_row") + 1.9 * fit + judge
    disk = (load.interactions * _of("artifact_row") + ids * (_of("artifact_id") + 4 * load.dim)) / _GIB
    costs = ["train_base", "train_row", "train_id", "train_factor", "read_row", "fit_row", "fit_id", "judge"]
    machines, where = 1, "one machine"
    if memory > _FULL * machine.memory_gib:
        cpu *= _of("spark_cpu")
        memory = load.interactions * _of("spark_row") / _GIB
        machines, where = max(2, math.ceil(memory / (_FULL * machine.memory_gib))), "Spark"
        costs += ["spark_cpu", "spark_row"]
    hours = cpu / 3600 / (machines * machine.cores)
    price = load.trainings * hours * machines * machine.price_hour
    return Step(
        "train", where, machines, cpu / 3600, hours, memory, disk, price, (*costs, "artifact_row", "artifact_id")
    )


def _nodes(load: Workload, machine: Machine) -> tuple[int, float, float]:
    """How many machines hold the points and answer, and their memory and disk in GiB."""
    points = (load.users + load.items) * load.versions * load.replicas
    vectors = 2 * load.dim * (1 if load.quantized else 4) * 1.5
    memory = points * (vectors + (_of("own_point") if load.quantized else 0)) / _GIB
    # Twice: an optimizer writes a new segment before it drops the old ones.
    disk = 2 * points * (_of("disk_point") + 8 * load.dim) / _GIB
    for_memory = math.ceil(memory / (_FULL * machine.memory_gib))
    for_queries = math.ceil(load.qps * _of("query") / (_BUSY * machine.cores))
    # Each replica is on a node of its own, and a vote needs three.
    least = 1 if load.replicas == 1 else 3
    return max(least, for_memory, for_queries), memory, disk


def _publish(load: Workload, machine: Machine) -> Step:
    nodes, _, _ = _nodes(load, machine)
    points = load.users + load.items
    # Every copy builds a graph of its own.
    cpu = points * (_of("load_point") + load.replicas * _of("index_point") * load.dim / 64)
    memory = points * load.replicas * 2 * 4 * load.dim / _GIB
    disk = points * load.replicas * (_of("disk_point") + 8 * load.dim) / _GIB
    hours = cpu / 3600 / (nodes * machine.cores)
    return Step("publish", "the store", nodes, cpu / 3600, hours, memory, disk, 0.0, ("load_point", "index_point"))


def _serve(load: Workload, machine: Machine) -> Step:
    nodes, memory, disk = _nodes(load, machine)
    where = "one machine" if nodes == 1 else "a Qdrant cluster and the service"
    price = nodes * machine.price_hour * _HOURS_A_MONTH
    costs = ("own_point", "disk_point", "query")
    return Step("serve", where, nodes, load.qps * _of("query"), None, memory, disk, price, costs)

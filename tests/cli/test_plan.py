"""`plan`: numbers follow from measured costs, each of which names the benchmark that prints it."""

from __future__ import annotations

import json
import math
import re

import pytest
from tests.conftest import ROOT, Command

from feast_embeddings.capacity import COSTS, Machine, Workload, plan_capacity
from feast_embeddings.errors import InputError

SMALL = Workload(users=1e6, items=1e5, interactions=20e6, qps=100)


def cost(name: str) -> float:
    return COSTS[name].value


def test_training_on_one_machine() -> None:
    """Memory, CPU and disk are the sums of what rows, ids and dimensions cost."""
    train, _, _ = plan_capacity(SMALL, Machine(cores=4, memory_gib=16, price_hour=0.5)).steps
    ids, rows = 1.1e6, 20e6
    memory = (
        cost("train_base")
        + (rows * cost("train_row") + ids * cost("train_id") + ids * 64 * cost("train_factor")) / 2**30
    )
    fit = 10 * (rows * 64 * cost("fit_row") + ids * 64**2 * cost("fit_id"))
    cpu = rows * cost("read_row") + 1.9 * fit + 1e5 * 1e5 * 64 * cost("judge")
    assert (train.where, train.machines) == ("one machine", 1)
    assert train.memory_gib == pytest.approx(memory)
    assert train.cpu_hours == pytest.approx(cpu / 3600)
    assert train.hours == pytest.approx(cpu / 3600 / 4)
    assert train.price_month == pytest.approx(30 * cpu / 3600 / 4 * 0.5)
    assert train.disk_gib == pytest.approx((rows * cost("artifact_row") + ids * (cost("artifact_id") + 256)) / 2**30)


def test_training_that_does_not_fit_goes_to_spark() -> None:
    """A machine with too little memory is told by the same rule."""
    train, _, _ = plan_capacity(SMALL, Machine(memory_gib=1)).steps
    assert train.where == "Spark"
    assert train.machines == max(2, math.ceil(20e6 * cost("spark_row") / 2**30 / 0.8))


@pytest.mark.parametrize(
    ("change", "nodes"),
    [({}, 3), ({"replicas": 1}, 1), ({"replicas": 1, "qps": 1e6}, math.ceil(1e6 * 1.2e-3 / 8))],
)
def test_nodes(change: dict[str, float], nodes: int) -> None:
    """As memory, queries, and the vote of a cluster ask for."""
    assert cost("query") == 1.2e-3
    load = Workload(**{**vars(SMALL), **change})
    _, publish, serve = plan_capacity(load, Machine()).steps
    assert (publish.machines, serve.machines) == (nodes, nodes)


def test_quantized_vectors_need_less_memory() -> None:
    """A byte a dimension instead of four, and what cannot be given back."""
    large = Workload(users=1e8, items=1e6, interactions=1e9)
    whole, int8 = (
        plan_capacity(load, Machine()).steps[2].memory_gib
        for load in (large, Workload(**{**vars(large), "quantized": True}))
    )
    points = 1.01e8 * 4 * 2 / 2**30
    assert whole == pytest.approx(points * 2 * 64 * 4 * 1.5)
    assert int8 == pytest.approx(points * (2 * 64 * 1.5 + cost("own_point")))


def test_every_cost_names_a_benchmark_that_exists() -> None:
    """A number without a source is a guess."""
    for name, found in COSTS.items():
        module = re.match(r"python -m tests\.benchmarks\.(\w+)", found.source)
        assert module, name
        assert (ROOT / "tests" / "benchmarks" / f"{module[1]}.py").is_file(), name


def test_the_command(command: Command) -> None:
    """Numbers may be written 100e6 or 100M; every cost that was used is listed with its source."""
    size = ("--users", "100M", "--items", "1e6", "--interactions", "10e9", "--qps", "1k")
    found = json.loads(command("plan", *size, "--json").out)
    load = Workload(users=100e6, items=1e6, interactions=10e9, qps=1000)
    expected = plan_capacity(load, Machine())
    assert found["price_month"] == pytest.approx(expected.price_month)
    assert [step["machines"] for step in found["steps"]] == [step.machines for step in expected.steps]
    text = command("plan", *size).out
    for step in expected.steps:
        assert re.search(rf"^{step.name} .* {step.machines:,} ", text, re.MULTILINE)
        for name in step.costs:
            assert f"{COSTS[name].value:g} {COSTS[name].unit}: {COSTS[name].source}" in text


@pytest.mark.parametrize("bad", ["many", "-5", "0", "nan", "inf", "1e400"])
def test_numbers_that_are_none(bad: str, command: Command) -> None:
    """One line, exit code 2."""
    answer = command("plan", "--users", bad, "--items", "1e6", "--interactions", "10e9")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    with pytest.raises(InputError, match="users must be a number"):
        Workload(users=float("nan"), items=1, interactions=1)

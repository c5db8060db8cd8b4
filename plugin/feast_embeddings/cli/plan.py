"""`plan`: what a model of some size would take."""

from __future__ import annotations

import dataclasses

import click

from feast_embeddings.capacity import COSTS, Capacity, Machine, Step, Workload, plan_capacity
from feast_embeddings.cli.options import json_option, print_json


class _Amount(click.ParamType[float]):
    """A number that may be written 10e9, 10_000 or 2.5M."""

    name = "number"
    _UNITS = {"k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}  # noqa: RUF012

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value).strip().lower()
        number, unit = (text[:-1], self._UNITS[text[-1]]) if text[-1:] in self._UNITS else (text, 1.0)
        try:
            return float(number) * unit
        except ValueError:
            self.fail(f"{value!r} is no number; write 10e9, 2.5M or 300000", param, ctx)


_AMOUNT = _Amount()


@click.command()
@click.option("--users", required=True, type=_AMOUNT, help="E.g. 100e6 or 100M.")
@click.option("--items", required=True, type=_AMOUNT)
@click.option("--interactions", required=True, type=_AMOUNT, help="Rows of the log.")
@click.option("--qps", default=0.0, type=_AMOUNT, help="Queries a second at the busiest time.")
@click.option("--dim", default=Workload.dim, show_default=True, type=click.IntRange(1, 4096), help="Length of vectors.")
@click.option("--iterations", default=Workload.iterations, show_default=True, type=click.IntRange(min=1))
@click.option("--replicas", default=Workload.replicas, show_default=True, type=click.IntRange(min=1))
@click.option("--versions", default=Workload.versions, show_default=True, type=click.IntRange(min=1), help="Loaded.")
@click.option("--trainings", default=Workload.trainings, show_default=True, type=float, help="A month.")
@click.option("--quantized", is_flag=True, help="Search on int8 vectors, the vectors themselves on disk.")
@click.option("--cores", default=Machine.cores, show_default=True, type=click.IntRange(min=1), help="Of a machine.")
@click.option("--memory", default=Machine.memory_gib, show_default=True, type=float, help="GiB of a machine.")
@click.option("--price", default=Machine.price_hour, show_default=True, type=float, help="Of a machine, an hour.")
@json_option
def plan(
    users: float,
    items: float,
    interactions: float,
    qps: float,
    dim: int,
    iterations: int,
    replicas: int,
    versions: int,
    trainings: float,
    quantized: bool,
    cores: int,
    memory: float,
    price: float,
    as_json: bool,
) -> None:
    """Compute machines, memory, disk, hours and money for a model of this size, from measured costs."""
    workload = Workload(users, items, interactions, dim, iterations, qps, replicas, versions, trainings, quantized)
    found = plan_capacity(workload, Machine(cores, memory, price))
    if as_json:
        costs = {name: dataclasses.asdict(cost) for name, cost in COSTS.items()}
        print_json({**dataclasses.asdict(found), "price_month": found.price_month, "costs": costs})
    else:
        click.echo(_text(found))


def _text(found: Capacity) -> str:
    load, machine = found.workload, found.machine
    lines = [
        f"{load.users:,.0f} users, {load.items:,.0f} items, {load.interactions:,.0f} interactions, {load.dim} "
        f"dimensions, {load.qps:,.0f} queries a second",
        f"machines of {machine.cores} cores and {machine.memory_gib:g} GiB at {machine.price_hour:g} an hour, "
        f"{load.replicas} replicas, {load.versions} versions loaded",
        "",
        f"{'step':9}{'on':34}{'machines':>9}{'CPU hours':>11}{'hours':>8}{'memory GiB':>12}{'disk GiB':>10}"
        f"{'a month':>10}",
        *map(_line, found.steps),
        f"{'all':9}{'':84}{found.price_month:>10,.0f}",
        "",
        "from",
    ]
    used = dict.fromkeys(name for step in found.steps for name in step.costs)
    lines += [f"  {COSTS[name].value:g} {COSTS[name].unit}: {COSTS[name].source}" for name in used]
    return "\n".join(lines)


def _line(step: Step) -> str:
    hours = "" if step.hours is None else f"{step.hours:,.1f}"
    return (
        f"{step.name:9}{step.where:34}{step.machines:>9,}{step.cpu_hours:>11,.1f}{hours:>8}{step.memory_gib:>12,.1f}"
        f"{step.disk_gib:>10,.1f}{step.price_month:>10,.0f}"
    )

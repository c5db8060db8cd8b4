"""`publish`, `versions`, `rollback` and `prune`: manage the versions of a model."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

import click

from feast_embeddings.cli.options import (
    gate_options,
    json_option,
    keep_option,
    model_option,
    one_model,
    print_json,
    repo_option,
)
from feast_embeddings.cli.version_words import LIVE, VERSION, version_named
from feast_embeddings.errors import InputError
from feast_embeddings.repo import Repo

if TYPE_CHECKING:
    from feast_embeddings.artifact import Manifest
    from feast_embeddings.publish.gates import GateResult
    from feast_embeddings.publish.run import PublishResult
    from feast_embeddings.publish.versions import Version


@click.command()
@repo_option
@model_option
@click.option("--version", type=VERSION, default="latest", show_default=True, help="The version to make live.")
@click.option("--dry-run", is_flag=True, help="Check the version and say what would happen; change nothing.")
@gate_options
@click.option(
    "--wait-replicas",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="Wait so long for all replicas of a cluster; if they are not active by then, the live version stays.",
)
@click.option(
    "--history",
    type=click.Choice(["feast", "none"]),
    help="Write the version to the tables that its feature views read; or write none.  "
    "[default: feast for views with a source of the repo]",
)
@click.option("--quiet", is_flag=True, help="No progress bar.")
@json_option
def publish(
    repo: str,
    model: str | None,
    version: str,
    dry_run: bool,
    wait_replicas: float | None,
    history: Literal["feast", "none"] | None,
    quiet: bool,
    as_json: bool,
    **gates: Any,
) -> None:
    """Make a trained version live in Qdrant, users and items in one step.

    Refuses a version that looks worse than the live one, unless a flag allows it; then nothing is loaded.
    """
    opened = Repo.open(repo)
    name = one_model(opened, model)
    wanted = version_named(opened.path, name, version)

    from tqdm import tqdm

    from feast_embeddings.model.versions import versions_of
    from feast_embeddings.publish.checks import check_room, check_rows
    from feast_embeddings.publish.gates import Gates, refuse_failed
    from feast_embeddings.publish.history import history_tables
    from feast_embeddings.publish.plan import plan_publish
    from feast_embeddings.publish.run import publish_artifact

    feature_store = opened.feature_store()
    artifact = versions_of(feature_store, name).load(wanted)
    if dry_run:
        plan, targets = plan_publish(feature_store, artifact, Gates(**gates))
        tables = history_tables(
            feature_store, artifact.manifest, [(target.side, target.rows) for target in targets], history
        )
        if as_json:
            print_json(dataclasses.asdict(plan))
        else:
            _print_gates(plan.gates)
            for side in plan.sides:
                click.echo(f"{side.collection}: {side.points} {side.entity}s, {side.to_load} of them to load")
            for table in tables:
                click.echo(f"{table.name}: gets the rows of {plan.version} that it lacks")
            for name, why in plan.unreadable.items():
                click.echo(f"{name}: cannot be read, and stays as it is: {why}")
            for name in plan.drop:
                click.echo(f"{name}: to be deleted")
            would = f"would become live, after {plan.live or 'none'}" if plan.changed else "is live already"
            click.echo(f"{plan.model} {plan.version} {would}; nothing was changed")
        refuse_failed(plan.version, plan.gates)
        if plan.changed:
            check_room(feature_store, targets)
            check_rows(targets)
        return
    total = artifact.manifest.n_users + artifact.manifest.n_items
    with tqdm(total=total, unit=" points", desc="publish", disable=quiet or as_json or None) as bar:
        result = publish_artifact(
            feature_store,
            artifact,
            gates=Gates(**gates),
            wait_replicas=wait_replicas,
            history=history,
            progress=bar.update,
            on_step=lambda step: bar.set_description(f"publish: {step}"),
        )
    if not as_json:
        _print_gates(result.gates)
    _print_result(result, as_json)


@click.command()
@repo_option
@model_option
@click.option(
    "--version",
    type=VERSION,
    default="live",
    show_default=True,
    help="The version; latest and previous are of those in the store.",
)
@json_option
def pull(repo: str, model: str | None, version: str, as_json: bool) -> None:
    """Copy a version from the artifact store onto this disk, for example on a new machine.

    A version that is here already stays, unless users or items were forgotten in the store that it still has.
    """
    opened = Repo.open(repo)
    name = one_model(opened, model)

    from feast_embeddings.model.versions import versions_of

    wanted = version_named(opened.path, name, version) if version == LIVE else version
    artifact = versions_of(opened.feature_store(), name).pull(wanted)
    manifest = artifact.manifest
    if as_json:
        print_json({"model": manifest.model, "version": manifest.version, "path": str(artifact.path)})
    else:
        click.echo(f"{manifest.model} {manifest.version} is in {artifact.path}: {_sizes(manifest)}")


@click.command()
@repo_option
@model_option
@json_option
def versions(repo: str, model: str | None, as_json: bool) -> None:
    """List the versions of a model, or of all: live, kept in Qdrant, and on disk."""
    from feast_embeddings.artifact import trained_models

    opened = Repo.open(repo)
    names = trained_models(opened.data) if model is None else []
    several = len(names) > 1
    if not several:
        names = [one_model(opened, model)]

    from feast_embeddings.publish.versions import list_versions

    feature_store = opened.feature_store()
    lists = {name: list_versions(feature_store, opened.data, name) for name in names}
    live = {name: next((row.version for row in rows if row.live), None) for name, rows in lists.items()}
    if as_json:
        found = [
            {"model": name, "live": live[name], "versions": [_row(row) for row in rows]} for name, rows in lists.items()
        ]
        print_json({"models": found} if several else found[0])
        return
    for name, rows in lists.items():
        if not rows:
            raise InputError(f"no trained version of model {name!r} in {opened.path}; run train")
        if several:
            click.echo(f"{name}:")
        for row in rows:
            click.echo(_line(row))
        if not live[name]:
            click.echo("none is live; run publish")
    if any(live.values()):
        click.echo("* is live, + is kept in Qdrant")


@click.command()
@repo_option
@model_option
@click.option(
    "--to",
    "version",
    type=VERSION,
    help="The version to go back to.  [default: the newest kept one before the live one]",
)
@json_option
def rollback(repo: str, model: str | None, version: str | None, as_json: bool) -> None:
    """Make an older version live again; instant if Qdrant still holds it. Gates do not apply."""
    opened = Repo.open(repo)
    name = one_model(opened, model)

    from feast_embeddings.publish.versions import roll_back

    if version is not None:
        version = version_named(opened.path, name, version)
    _print_result(roll_back(opened.feature_store(), opened.data, name, version), as_json)


@click.command()
@repo_option
@model_option
@keep_option
@click.option("--artifacts", is_flag=True, help="Also delete from disk, and from the history of training frames.")
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
@json_option
def prune(repo: str, model: str | None, keep: int, artifacts: bool, dry_run: bool, as_json: bool) -> None:
    """Delete old versions from Qdrant; never the live one."""
    opened = Repo.open(repo)
    name = one_model(opened, model)

    from feast_embeddings.publish.versions import prune_versions

    pruned = prune_versions(opened.feature_store(), opened.data, name, keep=keep, artifacts=artifacts, dry_run=dry_run)
    if as_json:
        print_json(dataclasses.asdict(pruned))
        return
    done = "to be deleted" if dry_run else "deleted"
    gone = [
        *pruned.collections,
        *(f"version {version} on disk" for version in pruned.artifacts),
        *(f"leftovers of a killed writer in {name}" for name in pruned.leftovers),
    ]
    for what in gone:
        click.echo(f"{done}: {what}")
    if not gone:
        click.echo("nothing to delete")


def _print_result(result: PublishResult, as_json: bool) -> None:
    for warning in result.warnings:
        click.echo(f"warning: {warning}", err=True)
    if as_json:
        print_json(dataclasses.asdict(result))
        return
    if result.n_history:
        click.echo(f"{result.n_history} rows written to the tables of the feature views")
    if result.changed:
        click.echo(f"{result.model} {result.version} is live: {_sizes(result)}, in {result.seconds:.1f} s")
    else:
        click.echo(f"{result.model} {result.version} is live already{'' if result.n_history else '; nothing changed'}")


def _print_gates(gates: list[GateResult]) -> None:
    for gate in gates:
        click.echo(f"{gate.name} {gate.status}: {gate.detail}")


def _row(row: Version) -> dict[str, Any]:
    found = {field.name: getattr(row, field.name) for field in dataclasses.fields(row) if field.name != "manifest"}
    if row.manifest is not None:
        manifest = row.manifest
        found |= {
            "created_at": manifest.created_at.isoformat(),
            "trainer": manifest.trainer.name,
            "dim": manifest.dim,
            "n_users": manifest.n_users,
            "n_items": manifest.n_items,
            "metrics": manifest.metrics,
            "evaluated_on": manifest.evaluated_on,
            "aligned_to": manifest.aligned_to,
        }
    return found


def _line(row: Version) -> str:
    mark = "*" if row.live else "+" if row.kept else " "
    where = f"{row.bytes_on_disk / 2**20:.1f} MiB on disk" if row.on_disk else "not on disk"
    where += ", in the artifact store" if row.stored else ""
    line = f"{mark} {row.version}  as of {row.as_of[:19] or 'unknown'}  space {row.space or 'unknown'}  {where}"
    if row.unreadable:
        line += f"  cannot be read: {row.unreadable}"
    if row.problem:
        return f"{line}  damaged: {row.problem}"
    if row.manifest is None:
        return line + "".join(f"  {count} {entity}s" for entity, count in row.points.items())
    manifest = row.manifest
    measured = {name: value for name, value in manifest.metrics.items() if not name.startswith("popular_")}
    quality = "".join(f"  {name} {value:.3f}" for name, value in measured.items())
    return f"{line}  {manifest.trainer.name} {manifest.dim} dims  {_sizes(manifest).replace(', ', '  ')}{quality}"


def _sizes(found: PublishResult | Manifest) -> str:
    """A model of one side has none of the other."""
    sizes = {"users": found.n_users, "items": found.n_items}
    return ", ".join(f"{n} {side}" for side, n in sizes.items() if n)

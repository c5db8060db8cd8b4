"""`quickstart`: run every step from a log to served neighbours, on a generated shop."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import click

from feast_embeddings.errors import EmbeddingsError, InputError

_USER, _ITEM = "u-7", "sku-1"


@click.command()
@click.argument("directory", default="quickstart")
@click.option("--seed", default=0, show_default=True, help="Seed of the shop and of the training.")
def quickstart(directory: str, seed: int) -> None:
    """Run every step on a generated shop, in DIRECTORY (default: ./quickstart).

    Each command is printed before it runs, so the output reads as a tutorial. Running it again trains and
    publishes new versions in the same repo.
    """
    import pandas as pd

    from feast_embeddings.demo import generate_shop, write_shop

    folder = Path(directory)
    log = folder / "shop"
    if (folder / "feature_store.yaml").exists() and not log.is_dir():
        raise InputError(f"{folder} is a Feast repo that quickstart did not make; name a new folder")

    if not log.is_dir():
        _step("init", directory)
    shop = generate_shop(seed=seed)
    write_shop(shop, log)
    click.echo(
        f"wrote {shop.interactions.num_rows} purchases of {shop.users.num_rows} users, "
        f"{shop.items.num_rows} items, to {log}"
    )

    last = pd.Timestamp(shop.interactions["timestamp"].to_pandas().max())
    earlier = (last - timedelta(days=60)).floor("D")
    train = [
        *("train", "--repo", directory, "--model", "shop"),
        *("--interactions", f"{log}/interactions.parquet", "--items", f"{log}/items.parquet"),
        *("--users", f"{log}/users.parquet", "--seed", str(seed), "--threads", "1", "--quiet"),
    ]
    _say("The shop as it was two months ago, and as it is now: two versions of one model.")
    _step(*train, "--until", earlier.isoformat(), "--no-evaluate")
    _step(*train)

    _say("Register the feature views with Feast; publish the newest version to Qdrant.")
    _feast(directory, "apply")
    where = ("--repo", directory, "--model", "shop")
    _step("publish", *where, "--quiet")
    _step("versions", *where)

    _say("Vectors by id, and nearest neighbours.")
    _embedding(directory)
    _step("similar-items", _ITEM, *where, "-k", "5")
    _step("similar-users", _USER, *where, "-k", "5")
    _step("rank", _USER, *where, "-k", "5", "--filter", "price < 50")

    _say("A training frame: each label with the embedding that existed at its time.")
    labels = folder / "labels.csv"
    times = [earlier - timedelta(days=1), earlier + timedelta(days=1), last + timedelta(days=1)]
    pd.DataFrame({"user_id": _USER, "event_timestamp": times, "churned": [0, 0, 1]}).to_csv(labels, index=False)
    files = ("--entities", str(labels), "--output", str(folder / "frame.parquet"))
    _step("training-frame", *where, *files)

    _say("Try next:")
    quoted = shlex.quote(directory)
    ours, feast = _program("feast-embeddings"), _program("feast")
    click.echo(f'{ours} similar-items sku-42 --repo {quoted} --filter "price < 20"')
    click.echo(f"{ours} rank u-42 --repo {quoted} -k 20 --json")
    click.echo(f"{feast} -c {quoted} feature-views list")


def _say(text: str) -> None:
    click.echo()
    click.secho(text, bold=True)


def _step(*arguments: str) -> None:
    from feast_embeddings.cli import main

    click.echo(f"$ feast-embeddings {shlex.join(arguments)}")
    main.main(list(arguments), prog_name="feast-embeddings", standalone_mode=False)


def _feast(directory: str, *arguments: str) -> None:
    click.echo(f"$ feast -c {shlex.quote(directory)} {shlex.join(arguments)}")
    # Feast's own command, as the user would run it, in the environment of this interpreter.
    command = [sys.executable, "-m", "feast.cli.cli", "-c", directory, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EmbeddingsError(f"feast {arguments[0]} failed: {(done.stderr or done.stdout).strip()[-500:]}")
    click.echo(done.stdout.rstrip())


def _program(name: str) -> str:
    """Return how to call a program of this environment: by name if the shell finds it, else by path."""
    here = Path(sys.executable).parent / name
    if shutil.which(name) == str(here) or not here.exists():
        return name
    return os.path.relpath(here)


def _embedding(directory: str) -> None:
    from feast_embeddings.cli.options import open_store

    click.echo(f"$ feast-embeddings user-embedding {_USER} --repo {shlex.quote(directory)} --model shop")
    found = open_store(directory, "shop").user_embeddings([_USER])
    start = ", ".join(f"{x:.4f}" for x in found.vectors[0, :6])
    click.echo(
        f'{{"embeddings": [{{"id": "{_USER}", "vector": [{start}, … {found.vectors.shape[1]} numbers], '
        f'"version": "{found.version}", "as_of": "{found.as_of}", …'
    )

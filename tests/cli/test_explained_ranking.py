"""`rank --explain` and `visitor --explain`: the reasons of the same calls in Python, as a column, JSON and a file."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest
from tests.conftest import Command
from tests.support.publishing import publish_any
from tests.support.shop import Shop, apply
from tests.support.two_tastes import SEEN, train_two_tastes

from feast_embeddings.query.answers import Neighbours
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.repo import init_repo


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingStore:
    """A published shop of als."""
    repo = init_repo(tmp_path_factory.mktemp("trained") / "repo")
    artifact = train_two_tastes(repo.path)
    publish_any(feature_store := apply(repo), artifact)
    return EmbeddingStore(feature_store, "shop")


def asked(store: EmbeddingStore) -> list[tuple[list[object], Neighbours]]:
    """The words of each command, and the answer of the same call in Python."""
    weights = [word for weight in SEEN.values() for word in ("--weight", weight)]
    more = ["--repo", store.feature_store.repo_path, "-k", 4, "--explain"]
    return [
        (["rank", "both", *more], store.rank("both", 4, explain=True)),
        (["visitor", *SEEN, *weights, *more], store.rank_visitor(SEEN, 4, explain=True)),
    ]


def test_reasons_are_those_of_the_library(command: Command, store: EmbeddingStore) -> None:
    """JSON has the numbers as they are; the column of the table has them in four decimals."""
    for words, found in asked(store):
        assert found.because is not None
        assert all(found.because)
        neighbours = json.loads(command(*words, "--json").out)["neighbours"]
        assert [row["because"] for row in neighbours] == [
            [{"id": id, "adds": adds} for id, adds in reasons] for reasons in found.because
        ]
        head, *lines = command(*words, "--columns", "item_id,because").out.splitlines()
        assert head.split() == ["item_id", "because"]
        assert [line.split(maxsplit=1) for line in lines] == [
            [id, ", ".join(f"{other} {adds:+.4f}" for other, adds in reasons)]
            for id, reasons in zip(found.ids, found.because, strict=True)
        ]
        assert command(*words).out.splitlines()[0].split()[-1] == "because"
        assert "because" not in command(*words[:-1]).out


def test_a_file_has_the_numbers(
    command: Command, store: EmbeddingStore, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Lists of ids and numbers in Parquet, no text."""
    file = tmp_path_factory.mktemp("files") / "ranking.parquet"
    for words, found in asked(store):
        assert found.because is not None
        assert command(*words, "--output", file).err == ""
        told = [[reason._asdict() for reason in reasons] for reasons in found.because]
        assert pq.read_table(file)["because"].to_pylist() == told


def test_a_fallback_has_no_reasons(command: Command, store: EmbeddingStore) -> None:
    """The column is there, and empty."""
    words = ("rank", "stranger", "--fallback", "popular", "--explain", "-k", 3)
    ran = command(*words, "--json", "--repo", store.feature_store.repo_path)
    assert [row["because"] for row in json.loads(ran.out)["neighbours"]] == [[], [], []]


def test_a_version_that_cannot_is_refused(command: Command, common_shop: Shop) -> None:
    """In one line that says why."""
    ran = command("rank", "u-1", "--explain", "--repo", common_shop.repo.path)
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (1, "", 1)
    assert "cannot be folded into the live version" in ran.err

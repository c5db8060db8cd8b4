"""The commands that pick people, beside the same calls in Python, and what they write to files."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.conftest import Command
from tests.support.publishing import publish_any
from tests.support.shop import AS_OF, Shop, apply, item_table, user_table, write_tables

from feast_embeddings.cli import table
from feast_embeddings.query.answers import Neighbours
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.repo import init_repo


@pytest.fixture
def repo(common_shop: Shop) -> str:
    return str(common_shop.repo.path)


@pytest.fixture
def store(common_shop: Shop) -> EmbeddingStore:
    return EmbeddingStore(common_shop.feature_store, "shop")


def rows(found: Neighbours) -> list[dict[str, object]]:
    return json.loads(json.dumps(found.to_dicts()))  # type: ignore[no-any-return]


def test_audience_of_a_file(command: Command, repo: str, store: EmbeddingStore, tmp_path: Path) -> None:
    """Seeds are read as text; unknown ones are named, and none known is an error."""
    seeds = tmp_path / "seeds.csv"
    seeds.write_text("user_id,why\nu-1,vip\nu-4,vip\nnobody,\n")
    ran = command("audience", "--repo", repo, "--seeds", seeds, "-k", 5, "--filter", "country = 'NL'", "--json")
    expected = store.lookalike_users(["u-1", "u-4", "nobody"], 5, filter="country = 'NL'")
    assert json.loads(ran.out) == {"version": expected.version, "missing": ["nobody"], "neighbours": rows(expected)}
    assert "1 of 3 users are not known: nobody" in command("audience", "--repo", repo, "--seeds", seeds).err
    ran = command("audience", "--repo", repo, "--seeds", seeds, "--columns", "nosuch")
    assert (ran.code, [line.partition(";")[0] for line in ran.err.splitlines()]) == (
        2,
        ["error: --columns: there is no 'nosuch'"],
    )
    for text, problem in [
        ("user_id\nnobody\n", "none of the 1 users"),
        ("customer\nu-1\n", "expected a column user_id, there are customer"),
        ("user_id,x\n,1\nu-1,2\n", "1 rows have no id"),
        ("user_id\n", "no rows"),
    ]:
        seeds.write_text(text)
        ran = command("audience", "--repo", repo, "--seeds", seeds)
        assert (ran.code, problem in ran.err) == (2, True), ran.err


def test_similar_to_several(command: Command, repo: str, store: EmbeddingStore) -> None:
    """Positive and negative examples, by words of the command line; unknown ones are named."""
    given = ("similar-items", "sku-1", "sku-2", "none", "--unlike", "sku-3", "--repo", repo, "-k", 5)
    expected = store.similar_items(k=5, positive=["sku-1", "sku-2", "none"], negative=["sku-3"])
    ran = command(*given, "--version", expected.version, "--json")
    assert json.loads(ran.out) == {"version": expected.version, "missing": ["none"], "neighbours": rows(expected)}
    assert command(*given).err == f"not known to version {expected.version}: none\n"
    refused = command(*given, "--version", "v1")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert f"version 'v1' of model 'shop' is not loaded; loaded are: {expected.version} (live)" in refused.err


def test_audience_of_a_condition(command: Command, repo: str, store: EmbeddingStore) -> None:
    """The seeds are all users that pass, however many pages they take."""
    ran = command("audience", "--repo", repo, "--seed-filter", "country = 'DE'", "-k", 4, "--json")
    seeds = store.export("user", filter="country = 'DE'").read_all()["user_id"].to_pylist()
    assert len(seeds) == 10
    assert json.loads(ran.out)["neighbours"] == rows(store.lookalike_users(seeds, 4))
    assert command("audience", "--repo", repo, "--seed-filter", "country = 'XX'").code == 2
    assert command("audience", "--repo", repo).code == 2
    assert command("audience", "--repo", repo, "--seeds", "x.csv", "--seed-filter", "country = 'DE'").code == 2


def test_users_for_an_item(command: Command, repo: str, store: EmbeddingStore) -> None:
    ran = command("users-for-item", "sku-7", "--repo", repo, "-k", 30, "--json")
    expected = store.users_for_item("sku-7", 30)
    assert json.loads(ran.out) == {"version": expected.version, "neighbours": rows(expected)}
    ran = command("users-for-item", "sku-7", "--repo", repo, "-k", 30, "--include-seen", "--json")
    assert len(json.loads(ran.out)["neighbours"]) == 20 > len(expected)


def test_visitors_need_a_trainer_that_folds_in(command: Command, repo: str) -> None:
    """The answers are tested with trained models; here what is refused."""
    ran = command("visitor", "sku-7", "--repo", repo)
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (1, "", 1)
    ran = command("visitor", "sku-7", "sku-8", "--weight", 2, "--repo", repo)
    assert (ran.code, "give one for each of the 2 items, got 1" in ran.err) == (2, True)


def test_listing(command: Command, repo: str, store: EmbeddingStore, tmp_path: Path) -> None:
    """All that pass, up to -k; a file gets all of them."""
    ran = command("list", "--entity", "item", "--filter", "category = 'Toys'", "--repo", repo, "--json")
    listed = json.loads(ran.out)
    page = store.page("item", 100, filter="category = 'Toys'")
    assert listed["version"] == page.version
    expected = [{"item_id": id} | a for id, a in zip(page.ids, page.attributes, strict=True)]
    assert sorted(listed["items"], key=lambda row: row["item_id"]) == sorted(expected, key=lambda row: row["item_id"])
    assert len(json.loads(command("list", "--entity", "item", "-k", 3, "--repo", repo, "--json").out)["items"]) == 3
    target = tmp_path / "users.csv"
    assert command("list", "--entity", "user", "--repo", repo, "--output", target).out == f"wrote 20 rows to {target}\n"
    with target.open() as file:
        written = list(csv.DictReader(file))
    assert {row["user_id"]: row["country"] for row in written} == {
        id: a["country"] for page in [store.page("user", 100)] for id, a in zip(page.ids, page.attributes, strict=True)
    }
    ran = command("list", "--entity", "item", "--filter", "category = 'none'", "--repo", repo)
    assert (ran.code, ran.out, ran.err) == (0, "", "none match\n")


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A published repo with titles that a spreadsheet would run, or split."""
    repo = init_repo(tmp_path_factory.mktemp("odd") / "repo")
    rng = np.random.default_rng(0)
    items = item_table(rng, pa.array(["=1+1", "007", "c"]))
    attributes = pa.table(
        {
            "title": ['=HYPERLINK("http://x")', 'a, "b"\nc', "long " * 60],
            "tags": [["x", "y,z"], [], None],
            "added": pa.array([AS_OF] * 3, pa.timestamp("us", "UTC")),
        }
    )
    items = type(items)(
        ids=items.ids, embedding=items.embedding, n_interactions=items.n_interactions, attributes=attributes
    )
    artifact = write_tables(repo.data, user_table(rng, pa.array(["u"])), items)
    publish_any(apply(repo), artifact)
    return str(repo.path)


def test_files(command: Command, odd: str, tmp_path: Path) -> None:
    """Every value comes back from each kind of file, and none becomes a formula."""
    asked = ("list", "--entity", "item", "--repo", odd)
    command(*asked, "--output", tmp_path / "x.parquet")
    kept = {row["item_id"]: row for row in pq.read_table(tmp_path / "x.parquet").to_pylist()}
    assert set(kept) == {"=1+1", "007", "c"}
    assert kept["=1+1"]["tags"] == ["x", "y,z"]
    assert kept["c"]["added"] == AS_OF
    command(*asked, "--columns", "title, item_id,tags", "--output", tmp_path / "x.csv")
    with (tmp_path / "x.csv").open(newline="") as file:
        header, *cells = csv.reader(file)
    assert header == ["title", "item_id", "tags"]
    assert sorted(cells) == sorted(
        [row["title"], row["item_id"], json.dumps(row["tags"]) if row["tags"] is not None else ""]
        for row in kept.values()
    )
    assert command(*asked, "--output", tmp_path / "x.xlsx").err == ""
    with zipfile.ZipFile(tmp_path / "x.xlsx") as book:
        sheet, texts = book.read("xl/worksheets/sheet1.xml").decode(), book.read("xl/sharedStrings.xml").decode()
    assert "<f>" not in sheet
    assert all(text in texts for text in ("<t>=1+1</t>", "<t>007</t>", "=HYPERLINK"))
    for options, problem in [
        (("--columns", "nothing"), "--columns: there is no 'nothing'; there are item_id, "),
        (("--output", "x.txt"), "ends in .csv, .parquet or .xlsx"),
    ]:
        ran = command(*asked, *options)
        assert (ran.code, problem in ran.err) == (2, True), ran.err


def test_a_terminal_gets_lines_that_fit(command: Command, odd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long texts are cut on a terminal; a pipe gets them whole."""
    asked = ("list", "--entity", "item", "--repo", odd, "--columns", "item_id,title")
    assert "long " * 59 in command(*asked).out
    monkeypatch.setattr(table, "_terminal_width", lambda: 60)
    lines = command(*asked).out.splitlines()
    assert max(map(len, lines)) <= 60
    assert len(lines) == 4
    assert "…" in "".join(lines)


def test_a_shaped_ranking(command: Command, repo: str, store: EmbeddingStore) -> None:
    """For a user and for a stranger, who is told so on standard error, as the same call in Python."""
    words = ["--exclude", "sku-9", "--exclude", "sku-38", "--offset", 2, "--max-per", "category=4", "--diversity", 0.3]
    words += ["--boost", 0.7, "category = 'Books'", "--boost", -0.4, "price < 20"]
    for user, fallback in [("u-3", None), ("stranger", "popular")]:
        ran = command("rank", user, "--repo", repo, "-k", 5, "--json", "--fallback", "popular", *words)
        expected = store.rank(
            user,
            5,
            exclude_ids=["sku-9", "sku-38"],
            offset=2,
            boosts=[{"filter": "category = 'Books'", "weight": 0.7}, {"filter": "price < 20", "weight": -0.4}],
            max_per={"category": 4},
            diversity=0.3,
            fallback="popular",
        )
        assert len(expected) == 5
        assert json.loads(ran.out) == {
            "version": expected.version,
            "fallback": fallback,
            "neighbours": rows(expected),
        }
        plain = command("rank", user, "--repo", repo, "--fallback", "popular")
        assert ("popular items instead" in plain.err) == (fallback is not None)


def test_shaped_neighbours(command: Command, repo: str, store: EmbeddingStore) -> None:
    """The same call in Python, of items and of users."""
    words = ["--offset", 1, "--diversity", 0.3, "-k", 4, "--json", "--repo", repo]
    options: dict[str, Any] = {"offset": 1, "diversity": 0.3}
    books: Any = {"boosts": [{"filter": "category = 'Books'", "weight": 0.7}], "max_per": {"category": 4}}
    more = ["--boost", 0.7, "category = 'Books'", "--max-per", "category=4", "--exclude", "sku-9"]
    one = store.similar_items("sku-1", 4, exclude_ids=["sku-9"], **options, **books)
    assert json.loads(command("similar-items", "sku-1", *more, *words).out)["neighbours"] == rows(one)
    two = store.similar_items(None, 4, positive=["sku-1", "sku-2"], exclude_ids=["sku-9"], **options, **books)
    assert json.loads(command("similar-items", "sku-1", "sku-2", *more, *words).out)["neighbours"] == rows(two)
    users = store.similar_users("u-3", 4, exclude_ids=["u-4"], max_per={"country": 2}, **options)
    ran = command("similar-users", "u-3", "--exclude", "u-4", "--max-per", "country=2", *words)
    assert json.loads(ran.out)["neighbours"] == rows(users)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--boost", "1"], "--boost"),
        (["--boost", "price > 1", "1"], "--boost"),
        (["--boost", "nan", "price > 1"], "boosts[0]: the weight must be a number"),
        (["--boost", "1", "price > 1", "--boost", "1", "colour = 1"], "boosts[1]: there is no feature 'colour'"),
        (["--max-per", "category"], "--max-per: expected an attribute and a number, as category=2, got 'category'"),
        (["--max-per", "category=-1"], "--max-per: expected an attribute and a number"),
        (["--max-per", "category=0"], "max_per of 'category' must be at least 1"),
        (["--max-per", "colour=1"], "items have no attribute 'colour'"),
        (["--diversity", "2"], "--diversity"),
        (["--offset", "-1"], "--offset"),
        (["--fallback", "newest"], "--fallback"),
    ],
)
def test_a_ranking_of_no_sense_is_refused(command: Command, repo: str, words: list[str], problem: str) -> None:
    ran = command("rank", "u-3", "--repo", repo, *words)
    assert (ran.code, ran.out, problem in ran.err, "Traceback" in ran.err) == (2, "", True, False), ran.err

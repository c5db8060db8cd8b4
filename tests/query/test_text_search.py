"""Search by text, against brute force in numpy over the version's files: each ranking, and their fusion."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import Command
from tests.support.described_shop import ITEMS, trained
from tests.support.shop import ENGINES, Shop, apply, served_shop, write_version

from embedding_trainers.content.model import ContentModel
from feast_embeddings.artifact import Artifact
from feast_embeddings.errors import FilterError, OptionError, TextSearchError
from feast_embeddings.online.text_search import bm25, words
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.query.text.keywords import KeywordIndex
from feast_embeddings.query.text.search import DEPTH
from feast_embeddings.repo import Repo, init_repo


@pytest.fixture(scope="module", params=ENGINES)
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A published shop over each engine in turn; tests only read from it."""
    folder = tmp_path_factory.mktemp("texts")
    content = "title:text,notes:text,price:number,colours:list"
    yield from served_shop(request, folder, lambda data: trained(data.parent, folder / "input", content))


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """The same in a repo that a command can open."""
    folder = tmp_path_factory.mktemp("embedded")
    repo = init_repo(folder / "repo")
    shop, _ = published(repo, trained(repo.path, folder / "input", "title:text,notes:text,price:number"))
    return shop


@pytest.fixture(scope="module")
def store(shop: Shop) -> EmbeddingStore:
    """The queries of the shop."""
    return EmbeddingStore(shop.feature_store, "shop")


def nearest(vectors: npt.NDArray[np.float64], query: npt.NDArray[np.float64], rows: Sequence[int] | Any) -> list[int]:
    """The rows by cosine."""
    cosines = vectors[rows] @ query / np.linalg.norm(vectors[rows], axis=1)
    return [int(rows[i]) for i in np.argsort(-cosines, kind="stable")]


@dataclass
class Oracle:
    """Each ranking over all items, and their fusion, from the version's files."""

    artifact: Artifact

    def __post_init__(self) -> None:
        items, users = (self.artifact.table(entity) for entity in ("item", "user"))
        self.items = items.to_pandas()
        self.vectors = np.stack(list(self.items.embedding)).astype(np.float64)
        self.users = dict(zip(users["user_id"].to_pylist(), np.stack(list(users.to_pandas().embedding)), strict=True))

    def words(self, text: str, passing: npt.NDArray[np.bool_]) -> list[int]:
        rows = self.items[["title", "notes"]].fillna("").agg("\n".join, axis=1)
        return [i for i in bm25(enumerate(rows), text) if passing[i]]  # type: ignore[misc, index]

    def content(self, text: str, passing: npt.NDArray[np.bool_], depth: int) -> list[int]:
        path = self.artifact.content()
        assert path is not None
        nulls = {"price": pa.array([None], pa.float64()), "colours": pa.array([None], pa.list_(pa.string()))}
        rows = [pa.table({"title": [t], "notes": [t], **nulls}) for t in (text, "")]
        said, empty = (ContentModel.load(path).of(row).factors[0].astype(np.float64) for row in rows)
        if (said == empty).all():
            return []
        among = dict.fromkeys(
            i for query in (said, said - empty) for i in nearest(self.vectors, query, np.flatnonzero(passing))[:depth]
        )
        return nearest(self.vectors - empty, said - empty, list(among))[:depth]

    def search(
        self, text: str, k: int, user: str | None = None, *, cheap: bool = False
    ) -> tuple[list[str], list[float], list[dict[str, int]]]:
        passing = (self.items.price < 10).to_numpy() if cheap else np.ones(ITEMS, np.bool_)
        depth = max(k, DEPTH)
        rankings = {"words": self.words(text, passing)[:depth], "content": self.content(text, passing, depth)}
        if user is not None:
            both = {i for ranking in rankings.values() for i in ranking}
            scores = self.vectors @ self.users[user] + self.items.bias.to_numpy()
            rankings["user"] = sorted(both, key=lambda i: -scores[i])
        places: dict[int, dict[str, int]] = defaultdict(dict)
        for name, ranking in rankings.items():
            for place, i in enumerate(ranking, start=1):
                places[i][name] = place
        fused = {i: sum(1 / (60 + place) for place in own.values()) for i, own in places.items()}
        best = sorted(fused, key=lambda i: -fused[i])[:k]
        return [self.items.item_id[i] for i in best], [fused[i] for i in best], [places[i] for i in best]


@pytest.mark.parametrize("text", ["warm waterproof jacket", "STIEFEL", "thing 3", "unknown red words", "for all a"])
@pytest.mark.parametrize(
    "asked",
    [{}, {"user": "u-1"}, {"cheap": True}, {"user": "u-2", "cheap": True}, {"k": 150}, {"k": ITEMS + 9}],
    ids=str,
)
def test_is_exact(shop: Shop, store: EmbeddingStore, text: str, asked: dict[str, Any]) -> None:
    """Ids, scores, and the place in each ranking."""
    asked = {"k": 10, **asked}
    ids, scores, places = Oracle(shop.artifact).search(text, **asked)
    condition = "price < 10" if asked.pop("cheap", False) else None
    found = store.search(text, filter=condition, **asked)
    assert found.version == shop.artifact.manifest.version
    np.testing.assert_allclose(found.scores, scores, rtol=1e-6)
    # Equal scores may come in any order.
    assert same_order(list(zip(found.ids, found.places, strict=True)), list(zip(ids, places, strict=True)), scores)
    assert found.attributes[0]["title"] == Oracle(shop.artifact).items.set_index("item_id").title[found.ids[0]]
    assert found.missing == []
    bare = store.search(text, filter=condition, attributes=False, **asked)
    assert (bare.ids, bare.places) == (found.ids, found.places)
    assert bare.attributes == [{}] * len(bare)


def same_order(found: list[Any], wanted: list[Any], scores: list[float]) -> bool:
    """Whether both have the same entries for each score; the last score may go on behind the end."""
    groups: tuple[dict[float, list[Any]], ...] = (defaultdict(list), defaultdict(list))
    for group, entries in zip(groups, (found, wanted), strict=True):
        for entry, score in zip(entries, scores, strict=True):
            if score != scores[-1]:
                group[score].append(repr((entry[0], sorted(entry[1].items()))))
    return [sorted(each) for each in groups[0].values()] == [sorted(each) for each in groups[1].values()]


def test_hidden_items_are_not_found(store: EmbeddingStore) -> None:
    """The answer is that of a search without them: by words, by content and for a user."""
    asked: Any = {"user": "u-1", "k": 20}
    whole = store.search("warm red jacket", **asked)
    gone = whole.ids[:7:2]
    store.hide(items=gone)
    try:
        found = store.search("warm red jacket", **asked)
        names = ", ".join(f"'{id}'" for id in gone)
        assert (found.ids, found.places) == (
            (without := store.search("warm red jacket", filter=f"item_id NOT IN ({names})", **asked)).ids,
            without.places,
        )
        assert (len(found), set(found.ids) & set(gone)) == (20, set())
    finally:
        store.unhide(items=gone)
    assert store.search("warm red jacket", **asked).ids == whole.ids


def test_words_that_the_version_never_saw(store: EmbeddingStore) -> None:
    """No ranking has an answer, so there is none; not even for a user."""
    assert len(store.search("zzyzx", user="u-1")) == 0


def test_unknown_user(store: EmbeddingStore) -> None:
    """Is answered as without one, and named."""
    found, without = store.search("warm jacket", user="stranger"), store.search("warm jacket")
    assert (found.missing, found.ids, found.places) == (["stranger"], without.ids, without.places)


@pytest.mark.parametrize("text", ["", " ?! ", "x" * 1001, None, 7])
def test_not_a_text(store: EmbeddingStore, text: Any) -> None:
    """It says what is expected."""
    with pytest.raises(OptionError, match="expected a text with at least one word and at most 1,000 characters"):
        store.search(text)


def test_unknown_attribute(store: EmbeddingStore) -> None:
    """As in all queries."""
    with pytest.raises(FilterError, match="colour"):
        store.search("jacket", filter="colour = 'red'")


def published(repo: Repo, artifact: Artifact) -> tuple[Shop, EmbeddingStore]:
    shop = Shop(repo, artifact, apply(repo))
    shop.publish()
    return shop, EmbeddingStore(shop.feature_store, "shop")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "was trained without content, so"),
        ("price:number", "was trained without a column of text among its content"),
    ],
)
def test_version_without_text(tmp_path: Path, command: Command, content: str | None, message: str) -> None:
    """It says how to train one that has text; one line, exit code 2."""
    repo = init_repo(tmp_path / "repo")
    artifact = write_version(repo.data) if content is None else trained(repo.path, tmp_path / "input", content)
    _, store = published(repo, artifact)
    with pytest.raises(OptionError, match=message):
        store.search("jacket")
    answer = command("search", "jacket", "--repo", repo.path)
    assert (answer.code, answer.out, len(answer.err.splitlines())) == (2, "", 1)
    assert "train with --items, and name a column with --content, e.g. title:text" in answer.err


def test_other_versions(tmp_path: Path) -> None:
    """A new version answers as soon as it is live, and the old one after a rollback; without its files, none."""
    repo = init_repo(tmp_path / "repo")
    first = trained(repo.path, tmp_path / "input", "title:text")
    shop, store = published(repo, first)
    before = store.search("red lamp")
    second = trained(repo.path, tmp_path / "input", "title:text,notes:text")
    Shop(repo, second, shop.feature_store).publish()
    found = store.search("red lamp")
    assert (before.version, found.version) == (first.manifest.version, second.manifest.version)
    shop.publish()
    assert store.search("red lamp").ids == before.ids
    (first.path / "content.parquet").write_bytes(b"PAR1")
    fresh = EmbeddingStore(shop.feature_store, "shop")
    with pytest.raises(TextSearchError, match="its files are damaged; restore them, or publish another version"):
        fresh.search("red lamp")
    shutil.rmtree(first.path)
    with pytest.raises(TextSearchError, match="is not in this repo's data folder"):
        fresh.search("red lamp")
    assert store.search("red lamp").ids == before.ids, "what was read is kept"


def test_new_items_are_found(tmp_path: Path) -> None:
    """By their vectors, as soon as they are added."""
    repo = init_repo(tmp_path / "repo")
    _, store = published(repo, trained(repo.path, tmp_path / "input", "title:text"))
    store.add_items({"new-1": {"title": "warm waterproof jacket"}})
    found = store.search("warm waterproof jacket", k=ITEMS)
    assert found.places[found.ids.index("new-1")] == {"content": 1}


def test_command(embedded: Shop, command: Command) -> None:
    """Prints what the library answers."""
    store = EmbeddingStore(embedded.feature_store, "shop")
    arguments = (
        "search",
        "warm jacket",
        "--user",
        "u-1",
        "--filter",
        "price < 30",
        "-k",
        3,
        "--repo",
        embedded.repo.path,
    )
    answer = command(*arguments, "--json")
    assert answer.code == 0, answer.err
    found = store.search("warm jacket", "u-1", 3, filter="price < 30")
    assert json.loads(answer.out) == {
        "version": found.version,
        "missing": [],
        "neighbours": json.loads(json.dumps(found.to_dicts())),
    }
    table = command(*arguments)
    assert [line.split()[0] for line in table.out.splitlines()[1:]] == found.ids
    unknown = command("search", "jacket", "--user", "stranger", "--repo", embedded.repo.path)
    assert unknown.code == 0
    assert "'stranger' has no embedding in version" in unknown.err


TEXTS = st.lists(st.lists(st.sampled_from(["a", "b", "C", "dd"]), max_size=6).map(" ".join), max_size=8)


@given(TEXTS, st.lists(st.sampled_from(["A", "b", "dd", "x"]), max_size=5).map(" ".join))
def test_keywords_rank_as_bm25(texts: list[str], query: str) -> None:
    """The index finds what a pass over all texts finds, in the same order."""
    assert KeywordIndex(texts).rank(query).tolist() == list(bm25(enumerate(texts), query))


def test_too_many_words() -> None:
    """Are refused, not cut off."""
    texts = ["a b c", "d e"]
    assert KeywordIndex(texts, most_words=len(words(" ".join(texts)))).rank("e").tolist() == [1]
    with pytest.raises(OptionError, match="have more than 4 words, too many to keep in memory"):
        KeywordIndex(texts, most_words=4)

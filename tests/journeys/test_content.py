"""Content as users meet it: cold items are trained, published, filtered and ranked; new ones are pushed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tests.conftest import Command
from tests.support.asking import Asking

from embedding_trainers.content.model import ContentModel
from embedding_trainers.train import train_model
from embedding_trainers.trainer import Folded, RunOptions
from feast_embeddings import EmbeddingStore, embedding_views, publish_artifact
from feast_embeddings.artifact import Artifact, Entity
from feast_embeddings.errors import InputError, OptionError, UnknownIdError
from feast_embeddings.repo import Repo, init_repo
from feast_embeddings.service.app import create_app
from feast_embeddings.service.settings import ServiceSettings

CATEGORIES, ITEMS, COLD, USERS, COLD_USERS = 5, 60, 10, 80, 5


@dataclass(frozen=True)
class Served:
    """A published shop in which users buy of one category only; the last items and users never met."""

    repo: Repo
    artifact: Artifact
    items: pa.Table
    users: pa.Table

    @property
    def store(self) -> EmbeddingStore:
        return EmbeddingStore(self.repo.feature_store(), "shop")


def category_of(ids: Sequence[str | int]) -> npt.NDArray[np.int64]:
    return np.array([int(str(each).rpartition("-")[2]) % CATEGORIES for each in ids])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """Trained by svd, in a second."""
    folder = tmp_path_factory.mktemp("content")
    rng = np.random.default_rng(4)
    likes = np.arange(USERS)[:, None] % CATEGORIES == np.arange(ITEMS) % CATEGORIES
    users, items = np.nonzero(likes & (rng.random(likes.shape) < 0.6) & (np.arange(ITEMS) < ITEMS - COLD))
    log = pa.table({"user_id": [f"u-{n}" for n in users], "item_id": [f"sku-{n}" for n in items]})
    catalogue = pa.table(
        {
            "item_id": [f"sku-{n}" for n in range(ITEMS)],
            "category": [f"c{n % CATEGORIES}" for n in range(ITEMS)],
            "price": rng.uniform(1, 50, ITEMS).round(2),
        }
    )
    pq.write_table(catalogue, folder / "items.parquet")
    everyone = pa.table(
        {
            "user_id": [f"u-{n}" for n in range(USERS + COLD_USERS)],
            "team": [f"t{n % CATEGORIES}" for n in range(USERS + COLD_USERS)],
        }
    )
    pq.write_table(everyone, folder / "users.parquet")
    repo = init_repo(folder / "repo")
    artifact = train_model(
        repo.path,
        "shop",
        log,
        trainer="svd",
        parameters={"factors": 8},
        options=RunOptions(threads=1),
        item_attributes=folder / "items.parquet",
        content="category:category,price:number",
        user_attributes=folder / "users.parquet",
        evaluation=False,
    ).artifact
    feature_store = repo.feature_store()
    feature_store.apply(list(embedding_views("shop", repo.data).by_name().values()))
    publish_artifact(feature_store, artifact)
    return Served(repo, artifact, catalogue, everyone)


def test_cold_items_are_served(served: Served) -> None:
    """Each has the vector that the model says of it, to the bit, and ranks by its category."""
    store, cold = served.store, [f"sku-{n}" for n in range(ITEMS - COLD, ITEMS)]
    path = served.artifact.content()
    assert path is not None
    rows = served.items.take(pc.index_in(pa.array(cold), value_set=served.items["item_id"].combine_chunks()))
    said = ContentModel.load(path).of(rows)
    assert store.item_embeddings(cold).vectors.tobytes() == said.factors.tobytes()
    of_content = store.rank("u-3", ITEMS, filter="source = 'content'")
    assert sorted(of_content.ids) == sorted(cold)
    first = of_content.ids[: COLD // CATEGORIES]
    assert (category_of(first) == 3).all()
    near = store.similar_items("sku-59", 5)
    assert (category_of(near.ids) == 4).all()
    assert set(store.rank("u-3", ITEMS, filter="source = 'behaviour'").ids).isdisjoint(cold)


def vectors_of(table: pa.Table, column: str) -> npt.NDArray[np.float32]:
    return np.array([row or [np.nan] * 8 for row in table[column].to_pylist()], np.float32)


@pytest.mark.parametrize("entity", ["item", "user"])
def test_alike_by_content(served: Served, entity: Entity) -> None:
    """The nearest by cosine of what content alone says, to trained and cold ones, by brute force."""
    store, table = served.store, served.artifact.table(entity)
    ids = table[f"{entity}_id"].to_pylist()
    content = vectors_of(table, "content_embedding")
    np.testing.assert_allclose(np.linalg.norm(content, axis=1), 1, rtol=1e-6)
    said = ContentModel.load(served.artifact.content(entity) or Path()).of(
        (served.items if entity == "item" else served.users).take(
            pc.index_in(table[f"{entity}_id"], value_set=getattr(served, f"{entity}s")[f"{entity}_id"].combine_chunks())
        )
    )
    np.testing.assert_allclose(content, said.factors / np.linalg.norm(said.factors, axis=1, keepdims=True), rtol=1e-6)
    similar = store.similar_items if entity == "item" else store.similar_users
    for asked in (3, len(ids) - 1):
        scores = content @ content[asked]
        scores[asked] = -np.inf
        found = similar(ids[asked], 7, by="content")
        np.testing.assert_allclose(found.scores, np.sort(scores)[::-1][:7], rtol=1e-5)
        np.testing.assert_allclose(scores[[ids.index(each) for each in found.ids]], found.scores, rtol=1e-5)
    if entity == "item":
        liked = store.similar_items(positive=ids[:2], negative=ids[2:3], k=5, by="content")
        direction = 2 * content[:2].mean(axis=0) - content[2]
        scores = content @ (direction / np.linalg.norm(direction))
        scores[:3] = -np.inf
        np.testing.assert_allclose(liked.scores, np.sort(scores)[::-1][:5], rtol=1e-5)
        near = store.similar_items(vector=content[7], k=1, by="content", filter=f"item_id = '{ids[7]}'")
        np.testing.assert_allclose(near.scores, [1], rtol=1e-5)


def test_alike_by_behaviour(served: Served) -> None:
    """No item that content alone made is found, and none can be asked for."""
    store, table = served.store, served.artifact.table("item")
    trained = table.filter(pc.not_equal(table["source"], "content"))
    ids, vectors = trained["item_id"].to_pylist(), vectors_of(trained, "embedding")
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = np.delete(units @ units[0], 0)
    found = store.similar_items(ids[0], ITEMS, by="behaviour")
    assert sorted(found.ids) == sorted(ids[1:])
    np.testing.assert_allclose(found.scores, np.sort(scores)[::-1], rtol=1e-4, atol=1e-6)
    with pytest.raises(UnknownIdError, match="item 'sku-59' has no embedding from behaviour in version "):
        store.similar_items("sku-59", by="behaviour")
    assert store.similar_items_batch(["sku-59", ids[0]], by="behaviour").answers[0] is None
    with pytest.raises(OptionError, match="by must be one of blend, behaviour, content, got 'looks'"):
        store.similar_items(ids[0], by="looks")  # type: ignore[arg-type]


def test_content_is_a_feature(served: Served, command: Command, tmp_path: Path) -> None:
    """By Feast online and point in time, and in an export; null where content says nothing."""
    table = served.artifact.table("item")
    ids, content = table["item_id"].to_pylist(), vectors_of(table, "content_embedding")
    feature_store, asked = served.repo.feature_store(), [ids[0], ids[-1], "nobody"]
    view, moment = feature_store.get_feature_view("shop_item_embeddings"), datetime.now(UTC)
    name = f"{view.name}:content_embedding"
    key = view.join_keys[0]
    online = feature_store.get_online_features([name], [{key: each} for each in asked]).to_dict()["content_embedding"]
    frame = pd.DataFrame({key: asked, "event_timestamp": moment})
    then = feature_store.get_historical_features(frame, [name]).to_df().set_index(key)["content_embedding"]
    for found in (online, [then[each] for each in asked]):
        np.testing.assert_array_equal(np.array(found[0], np.float32), content[0])
        np.testing.assert_array_equal(np.array(found[1], np.float32), content[-1])
        assert found[2] is None
    clicks = pa.table({"user_id": ["u-1", "u-2"], "item_id": ["plain-1", "plain-1"]})
    served.store.fold_in_items(clicks, push=True)
    exported = served.store.export("item").read_all()
    place = exported["item_id"].to_pylist()
    assert exported["content_embedding"][place.index("plain-1")].as_py() is None
    np.testing.assert_array_equal(exported["content_embedding"][place.index(ids[3])].as_py(), content[3])
    assert "plain-1" not in served.store.similar_items(ids[0], ITEMS * 2, by="content").ids
    assert "plain-1" in served.store.similar_items(ids[0], ITEMS * 2, by="behaviour").ids


def test_cold_users_are_served(served: Served) -> None:
    """Each has the vector that the model says of it, to the bit; its first items are of its team, and none is seen."""
    store, cold = served.store, [f"u-{n}" for n in range(USERS, USERS + COLD_USERS)]
    path = served.artifact.content("user")
    assert path is not None
    said = ContentModel.load(path).of(served.users.slice(USERS))
    assert store.user_embeddings(cold).vectors.tobytes() == said.factors.tobytes()
    for user in cold:
        mine = category_of([user])[0]
        assert (category_of(store.rank(user, 5).ids) == mine).all()
        assert (category_of(store.similar_users(user, 5).ids) == mine).all()
    assert sorted(store.page("user", COLD_USERS + 1, filter="source = 'content'").ids) == cold
    users = served.artifact.table("user").slice(USERS)
    assert users["seen_items"].to_pylist() == [[]] * COLD_USERS
    described = served.artifact.manifest.user_content or {}
    assert (described["asked"], described["users"]) == (None, COLD_USERS)


def test_new_users_are_pushed(served: Served, command: Command, tmp_path: Path) -> None:
    """By attributes alone they are what the model says; with clicks what it mixes, and what they clicked is seen."""
    (tmp_path / "new.csv").write_text("user_id,team\nx-2,t2\nx-3,t3\n")
    (tmp_path / "clicks.csv").write_text("user_id,item_id\nx-3,sku-3\nx-3,sku-8\n")
    arguments = ("fold-in", "--repo", served.repo.path, "--entity", "user", "--users", tmp_path / "new.csv", "--push")
    assert command(*arguments).code == 0
    path = served.artifact.content("user")
    assert path is not None
    model, new = ContentModel.load(path), pa.table({"team": ["t2", "t3"]})
    assert served.store.user_embeddings(["x-2", "x-3"]).vectors.tobytes() == model.of(new).factors.tobytes()
    assert (category_of(served.store.rank("x-2", 5).ids) == 2).all()

    clicks = served.store.fold_in_users(tmp_path / "clicks.csv")
    answer = command(*arguments, "--interactions", tmp_path / "clicks.csv")
    assert answer.code == 0, answer.err
    own = Folded(np.zeros((2, 8), np.float32), np.zeros(2, np.float32))
    own.factors[1] = clicks.vectors[0]
    mixed = model.mixed(own, np.array([0, 2]), new)
    assert served.store.user_embeddings(["x-2", "x-3"]).vectors.tobytes() == mixed.factors.tobytes()
    assert set(served.store.rank("x-3", ITEMS).ids).isdisjoint({"sku-3", "sku-8"})


def test_what_was_learned_is_not_lost_to_attributes(served: Served) -> None:
    """They replace a vector that was folded in with interactions only if told; one of attributes alone always."""
    store, new = served.store, pa.table({"user_id": ["y-1", "y-2"], "team": ["t1", "t2"]})
    log = pa.table({"user_id": ["y-2"], "item_id": ["sku-4"]})
    learned = store.fold_in_users(log, attributes=new, push=True)
    with pytest.raises(InputError, match=r"1 of 2 users have a vector that was .* interactions \('y-2'\); .*--update"):
        store.fold_in_users(attributes=new, push=True)
    assert store.user_embeddings(["y-1", "y-2"]).vectors.tobytes() == learned.vectors.tobytes()
    assert "sku-4" not in store.rank("y-2", ITEMS).ids
    store.fold_in_users(attributes=new.slice(0, 1), push=True)
    said = store.fold_in_users(attributes=new, push=True, update=True)
    assert store.user_embeddings(["y-1", "y-2"]).vectors.tobytes() == said.vectors.tobytes()
    assert "sku-4" in store.rank("y-2", ITEMS).ids


def test_events_move_a_cold_user(served: Served) -> None:
    """The next answer ranks by what content and the events say together, by the formula of fold-in."""
    store, user = served.store, f"u-{USERS + 2}"
    store.add_interactions([{"user_id": user, "item_id": f"sku-{n}"} for n in (4, 9)])
    log = pa.table({"user_id": [user] * 2, "item_id": ["sku-4", "sku-9"]})
    expected = store.fold_in_users(log, attributes=served.users.slice(USERS + 2, 1)).vectors[0]
    found = store.rank(user, 3)
    items = served.artifact.table("item")
    place = {each: row for row, each in enumerate(items["item_id"].to_pylist())}
    rows = [place[each] for each in found.ids]
    scores = np.stack(items["embedding"].to_numpy()[rows].tolist()) @ expected + items["bias"].to_numpy()[rows]
    np.testing.assert_allclose(found.scores, scores, rtol=1e-5)
    assert set(found.ids).isdisjoint({"sku-4", "sku-9"})
    folded = store.fold_in_events("user", push=True)
    assert (folded.ids, folded.table["source"].to_pylist(), folded.table["n_interactions"].to_pylist()) == (
        [user],
        ["both"],
        [2],
    )
    np.testing.assert_allclose(store.user_embeddings([user]).vectors[0], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(store.rank(user, 3).scores, found.scores, rtol=1e-5)
    assert not len(store.fold_in_events("user", push=True).table)


def test_new_items_are_pushed(served: Served, command: Command, tmp_path: Path) -> None:
    """By attributes alone they are what the model says; with clicks what it mixes; both are found at once."""
    (tmp_path / "new.csv").write_text("item_id,category,price\nnew-2,c2,10.5\nnew-3,c3,20\n")
    log = pa.table({"user_id": [f"u-{n}" for n in range(1, USERS, CATEGORIES)]})
    log = log.append_column("item_id", pa.repeat("new-3", len(log)))
    pq.write_table(log, tmp_path / "clicks.parquet")
    arguments = ("fold-in", "--repo", served.repo.path, "--entity", "item", "--items", tmp_path / "new.csv")

    answer = command(*arguments, "--push", "--json")
    assert answer.code == 0, answer.err
    assert (json.loads(answer.out)["folded_in"], json.loads(answer.out)["rows"]) == (2, None)
    path = served.artifact.content()
    assert path is not None
    model = ContentModel.load(path)
    new = pa.table({"category": ["c2", "c3"], "price": [10.5, 20.0]})
    said = model.of(new)
    assert served.store.item_embeddings(["new-2", "new-3"]).vectors.tobytes() == said.factors.tobytes()
    near = served.store.similar_items("new-2", 5)
    assert (category_of(near.ids) == 2).all()
    wanted = "source = 'content' AND category = 'c3'"
    assert "new-3" in served.store.rank("u-3", ITEMS, filter=wanted).ids

    clicks = served.store.fold_in_items(log)
    answer = command(*arguments, "--interactions", tmp_path / "clicks.parquet", "--push")
    assert answer.code == 0, answer.err
    own = Folded(np.zeros((2, 8), np.float32), np.zeros(2, np.float32))
    own.factors[1], own.bias[1] = clicks.vectors[0], clicks.table["bias"][0].as_py()
    mixed = model.mixed(own, np.array([0, len(log)]), new)
    assert served.store.item_embeddings(["new-2", "new-3"]).vectors.tobytes() == mixed.factors.tobytes()
    assert served.store.rank("u-3", ITEMS, filter="source = 'both'").ids == ["new-3"]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("item_id,price\nx,1\n", (), "has no column 'category', which version "),
        ("item_id,category,price,colour\nx,c1,1,red\n", (), "has a column 'colour', which the items of version "),
        ("item_id,category,price\nx,c1,1\n", ("--entity", "user"), "--items has no effect with --entity user"),
        ("item_id,category,price\nx,c1,1\n", ("--users", "x.csv"), "--users has no effect with --entity item"),
        ("item_id,category,price\nsku-1,c1,1\n", ("--push",), "1 of 1 items were in the training of version"),
    ],
)
def test_new_items_refused(
    served: Served, command: Command, tmp_path: Path, content: str, options: tuple[str, ...], message: str
) -> None:
    """One line, exit code 2."""
    (tmp_path / "new.csv").write_text(content)
    common = ("fold-in", "--repo", served.repo.path, "--entity", "item", "--items", tmp_path / "new.csv")
    answer = command(*common, "--output", tmp_path / "out.parquet", *options)
    assert (answer.code, len(answer.err.splitlines())) == (2, 1), answer.err
    assert message in answer.err


def test_clicks_of_other_items_are_refused(served: Served, tmp_path: Path) -> None:
    """They would have no attributes."""
    new = pa.table({"item_id": ["x"], "category": ["c1"], "price": [1.0]})
    log = pa.table({"user_id": ["u-1", "u-1"], "item_id": ["x", "other"]})
    with pytest.raises(InputError, match=r"1 items of the interactions are not in .*, e\.g\. 'other'; add their rows"):
        served.store.fold_in_items(log, attributes=new)


def test_new_items_over_http(served: Served) -> None:
    """The answer is the library's; what cannot be used is refused, and adds nothing."""
    service = Asking(create_app(ServiceSettings(repo=served.repo.path, allow_writes=True)))
    path = "/v1/models/shop/items"
    sent = [{"item_id": f"web-{n}", "metadata": {"category": f"c{n}", "price": 9.5 + n}} for n in range(3)]
    answer = service.post(path, {"items": sent})
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"model": "shop", "version": served.artifact.manifest.version, "added": 3}
    table = pa.table({"item_id": ["web-1"], "category": ["c1"], "price": [10.5]})
    expected = served.store.fold_in_items(attributes=table)
    found = served.store.item_embeddings(["web-1"])
    np.testing.assert_array_equal(found.vectors, expected.vectors)
    near = service.post("/v1/models/shop/similar_items", {"item_id": "web-1", "return_metadata": True}).json()
    assert {row["metadata"]["category"] for row in near["results"][:5]} == {"c1"}
    good = {"item_id": "web-9", "metadata": {"category": "c1", "price": 1}}
    for bad, problem in [
        ({"item_id": "web-8", "metadata": {"category": "c1"}}, None),  # a missing value is a null
        ({"item_id": "web-8", "metadata": {"category": "c1", "price": "much"}}, "have no common type"),
        ({"item_id": "web-8", "metadata": {"category": "c1", "price": 1, "colour": "red"}}, "colour"),
        ({"item_id": "sku-1", "metadata": {"category": "c1", "price": 1}}, "in the training"),
        ({"item_id": "sku-1", "metadata": {"category": "c1", "price": 1}}, "over HTTP with PATCH of the same path"),
        ({"item_id": "web-1", "metadata": {"category": "c1", "price": 1}}, None),  # it was of attributes, too
        ({"item_id": "web-8", "metadata": {"category": "c1", "price": 1, "item_id": "x"}}, "the id is the key"),
        (good, "an item_id twice"),
        ({"item_id": 8, "metadata": {"category": "c1", "price": 1}}, "are text, got 8"),
    ]:
        answer = service.post(path, {"items": [good, bad]})
        assert answer.status_code == (200 if problem is None else 422), answer.text
        assert (problem or "") in answer.text

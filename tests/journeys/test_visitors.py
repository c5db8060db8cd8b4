"""Ranking for visitors who have no id, over the service and its clients, against fold-in of the library and numpy."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import weakref
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
from tests.support.asking import Asking
from tests.support.publishing import publish_any
from tests.support.serving import service_of
from tests.support.shop import Shop, apply, new_repo, qdrant, served_shop, write_version

from embedding_trainers.fold_in import FoldIn, fold_in
from embedding_trainers.interactions import Columns, read_interactions
from embedding_trainers.models.als import ALS
from feast_embeddings.artifact import Artifact, TrainerInfo, delete_artifacts, load_artifact
from feast_embeddings.client import AsyncEmbeddingClient, EmbeddingClient
from feast_embeddings.errors import FoldInError, InputError, UnknownIdError
from feast_embeddings.publish.versions import prune_versions
from feast_embeddings.query import visitors
from feast_embeddings.query.store import EmbeddingStore

NAMES = ["als", "bpr", "graph", "item2vec", "softmax", "svd"]
# A manifest has what training derived from the log.
DERIVED: dict[str, dict[str, float]] = {"als": {"alpha": 40}, "bpr": {"regularization": 0.01}}
TRAINERS = {name: TrainerInfo(name=name, config={"factors": 8, **DERIVED.get(name, {})}) for name in NAMES}

History = dict[str, float]
ONE = [{"item_id": "sku-1"}]


@pytest.fixture(scope="module", params=["embedded", "server"])
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A repo with a published model of each trainer, and `shop`, of one that is not installed; tests only read it."""
    for shop in served_shop(request, tmp_path_factory.mktemp("shop")):
        for name, trainer in TRAINERS.items():
            artifact = write_version(shop.repo.data, model=name, trainer=trainer, seed=len(name))
            apply(shop.repo, name)
            shop.feature_store.refresh_registry()  # type: ignore[no-untyped-call]
            publish_any(shop.feature_store, artifact)
        yield shop


@pytest.fixture(scope="module")
def service(shop: Shop) -> Asking:
    """The service of that repo."""
    return Asking(service_of(shop, max_ids=300, max_queries=20, max_limit=100))


def expected(artifact: Artifact, history: History, *, without: Collection[str] = ()) -> list[tuple[str, float]]:
    """All items by ``vector · item + bias``, the vector being that of `fold_in` from a table, in numpy."""
    log = pa.table({"user_id": ["v"] * len(history), "item_id": list(history), "weight": list(history.values())})
    vector = fold_in(artifact, "user", read_interactions(log, Columns(weight="weight"))).vectors[0]
    items = artifact.table("item").to_pandas()
    scores = np.stack(list(items.embedding)) @ vector + items.bias.to_numpy()
    order = np.argsort(-scores)
    ranked = zip(items.item_id[order], scores[order].tolist(), strict=True)
    return [(id, score) for id, score in ranked if id not in without]


def histories(rng: np.random.Generator) -> list[History]:
    """A dozen visitors with one to eight known items, some with an unknown one."""
    found = []
    for number in range(12):
        items = rng.choice(40, rng.integers(1, 9), replace=False)
        history = {f"sku-{i}": float(np.float32(rng.uniform(0.5, 4))) for i in items}
        found.append(history | ({f"lost-{number}": 1.0} if number % 3 == 0 else {}))
    return found


def sent(history: History) -> list[dict[str, Any]]:
    """The same in a request."""
    return [{"item_id": id, "weight": weight} for id, weight in history.items()]


def assert_ranked(results: list[dict[str, Any]], ranked: list[tuple[str, float]]) -> None:
    """These items in this order, with these scores; bpr's last step is one for all rows of a batch."""
    assert [row["id"] for row in results] == [id for id, _ in ranked]
    np.testing.assert_allclose([row["score"] for row in results], [s for _, s in ranked], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("model", NAMES)
def test_a_visitor_gets_what_fold_in_and_numpy_give(
    service: Asking, shop: Shop, rng: np.random.Generator, model: str
) -> None:
    """Alone and in a batch, without what they had, unless told; what is not known is named."""
    artifact, visitors = load_artifact(shop.repo.data, model), histories(rng)
    for history in visitors:
        body = {"interactions": sent(history), "limit": 7}
        answer = service.post(f"/v1/models/{model}/rank", body).json()
        assert_ranked(answer["results"], expected(artifact, history, without=history)[:7])
        assert answer["missing"] == [id for id in history if id.startswith("lost")]
        assert answer["version"] == artifact.manifest.version
        everything = service.post(f"/v1/models/{model}/rank", body | {"exclude_seen": False, "limit": 40}).json()
        assert_ranked(everything["results"], expected(artifact, history))

    body = {"interactions": [*map(sent, visitors), [{"item_id": "lost-x"}]], "limit": 7}
    batch = service.post(f"/v1/models/{model}/rank/batch", body).json()
    *rows, last = batch["answers"]
    for number, (row, history) in enumerate(zip(rows, visitors, strict=True)):
        assert row["id"] == number
        assert_ranked(row["results"], expected(artifact, history, without=history)[:7])
    assert last == {"id": len(visitors), "results": None, "fallback": None}
    assert batch["missing"] == ["lost-0", "lost-3", "lost-6", "lost-9", "lost-x"]
    assert batch["version"] == artifact.manifest.version


@pytest.mark.parametrize("name", NAMES)
def test_a_history_gives_one_vector_for_ever(shop: Shop, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone and among others, computed and kept, also when more came than are kept."""
    asked: list[Any] = histories(np.random.default_rng(3))
    rounding = 0 if name in ("als", "svd") else 1e-4  # the others solve all rows of a call in float32
    other = EmbeddingStore(shop.feature_store, name).live().visitors
    alone = [other.fold_in([history])[0] for history in asked]
    monkeypatch.setattr(visitors, "_KEPT", 5)
    some = EmbeddingStore(shop.feature_store, name).live().visitors
    computed = counted(some, monkeypatch)
    for chosen in ([3, 4], [0, 3, 1, 4, 2], list(range(12)), [11, 10, 9, 8, 7], [0]):
        for place, found in zip(chosen, some.fold_in([asked[place] for place in chosen]), strict=True):
            assert found.unknown == alone[place].unknown
            np.testing.assert_allclose(vector_of(found), vector_of(alone[place]), rtol=rounding, atol=rounding)
    assert computed == [2, 3, 7, 1]
    shorter = dict(list(asked[4].items())[1:])
    assert np.abs(vector_of(some.fold_in([shorter])[0]) - vector_of(alone[4])).max() > 1e-3


def vector_of(found: visitors.Visitor) -> Any:
    """The vector of a visitor with known items."""
    assert found.vector is not None
    return found.vector


def counted(some: visitors.Visitors, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many vectors each call computes."""
    computed: list[int] = []
    fold_in = some._fold_in

    def counting(histories: Sequence[Mapping[Any, float]]) -> list[visitors.Visitor]:
        computed.append(len(histories))
        return fold_in(histories)

    monkeypatch.setattr(some, "_fold_in", counting)
    return computed


def test_filter_item_ids_and_metadata_as_for_users(service: Asking, shop: Shop) -> None:
    """Weights of one item are summed, and default to 1; given items are reranked with those that were seen."""
    artifact, history = load_artifact(shop.repo.data, "als"), {"sku-3": 3.0, "sku-8": 1.0, "lost": 1.0}
    interactions = [*({"item_id": id} for id in history), {"item_id": "sku-3", "weight": 2}]
    items = artifact.table("item").to_pandas().set_index("item_id")

    def ask(**more: Any) -> dict[str, Any]:
        found: dict[str, Any] = service.post("/v1/models/als/rank", {"interactions": interactions, **more}).json()
        return found

    found = ask(filter="price < 20", limit=100, return_metadata=True)
    others = set(items.index[~(items.price < 20)])
    assert_ranked(found["results"], expected(artifact, history, without=others | set(history)))
    assert [row["metadata"]["title"] for row in found["results"]] == [
        items.title[row["id"]] for row in found["results"]
    ]
    given = {"sku-3", "sku-5", "gone", "sku-9"}
    found = ask(item_ids=sorted(given))
    assert_ranked(found["results"], expected(artifact, history, without=set(items.index) - given))
    assert found["missing"] == ["lost", "gone"]
    assert "metadata" not in found["results"][0]
    found = ask(item_ids=sorted(given), exclude_seen=True)
    assert_ranked(found["results"], expected(artifact, history, without=set(items.index) - (given - {"sku-3"})))


def test_nothing_known_is_an_answer(service: Asking, shop: Shop) -> None:
    """Without results, as for an unknown id; in Python it is an error, as there."""
    found = service.post("/v1/models/bpr/rank", {"interactions": [{"item_id": "x"}, {"item_id": "y"}]})
    assert found.status_code == 200
    assert (found.json()["results"], found.json()["missing"]) == ([], ["x", "y"])
    store = EmbeddingStore(shop.feature_store, "bpr")
    with pytest.raises(UnknownIdError, match="knows none of the visitor's items"):
        store.rank_visitor(["x"])
    assert store.rank_visitor(["sku-1", "sku-1", "x"]).ids == store.rank_visitor({"sku-1": 2.0}).ids
    for weight in (0.0, -1.0, float("nan"), 1e60):
        with pytest.raises(InputError, match="weights of interactions must be positive"):
            store.rank_visitor({"sku-1": weight})


@pytest.mark.parametrize(
    ("path", "body", "status", "field"),
    [
        ("rank", {}, 422, "user_id"),
        ("rank", {"user_id": "u-1", "interactions": ONE}, 422, "interactions"),
        ("rank/batch", {}, 422, "user_ids"),
        ("rank/batch", {"user_ids": ["u-1"], "interactions": [ONE]}, 422, "interactions"),
        ("rank", {"interactions": []}, 422, "interactions"),
        ("rank/batch", {"interactions": [ONE, []]}, 422, "interactions"),
        ("rank", {"interactions": [ONE]}, 422, "interactions"),
        ("rank", {"interactions": ["sku-1"]}, 422, "interactions"),
        ("rank", {"interactions": [{"item_id": "sku-1", "weight": 0}]}, 422, "interactions"),
        ("rank", {"interactions": [{"item_id": "sku-1", "weight": "1"}]}, 422, "interactions"),
        ("rank", {"interactions": [{"item_id": "sku-1", "weight": 1e7}]}, 422, "interactions"),
        ("rank", {"interactions": [{"item_id": "sku-1", "when": 1}]}, 422, "interactions"),
        ("rank", {"interactions": [{"item_id": 1}]}, 422, "interactions"),
        ("rank", {"interactions": [{"item_id": 1}], "item_ids": ["sku-1"]}, 422, "interactions"),
        ("rank", {"interactions": ONE, "item_ids": [1]}, 422, "item_ids"),
        ("rank/batch", {"interactions": [ONE, [{"item_id": 1}]]}, 422, "interactions"),
        ("rank", {"interactions": ONE, "filter": "colour = 1"}, 422, "filter"),
        ("rank", {"interactions": ONE * 301}, 413, "interactions"),
        ("rank/batch", {"interactions": [ONE] * 21}, 413, "interactions"),
        ("rank/batch", {"interactions": [ONE * 20] * 16}, 413, "interactions"),
    ],
)
def test_bad_input_names_the_field(service: Asking, path: str, body: dict[str, Any], status: int, field: str) -> None:
    """As problem details; exactly one of a user and interactions is given."""
    answer = service.post(f"/v1/models/als/{path}", body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    assert {error["field"].split(".")[0] for error in answer.json()["errors"]} == {field}
    assert field in answer.json()["detail"]


@pytest.mark.parametrize("model", NAMES)
def test_weights_far_apart_do_no_harm(service: Asking, model: str) -> None:
    """The least and the greatest weight together, and 300 of them, are answered."""
    far = [{"item_id": "sku-1", "weight": 1e-6}, {"item_id": "sku-2", "weight": 1e6}]
    many = [{"item_id": f"sku-{i % 39}", "weight": 1e6} for i in range(299)]
    for interactions in (far, many, far[:1], far[1:]):
        answer = service.post(f"/v1/models/{model}/rank", {"interactions": interactions})
        assert answer.status_code == 200, answer.text
        assert np.isfinite([row["score"] for row in answer.json()["results"]]).all()


@pytest.fixture(params=["embedded"])
def own(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    """A published model of als that a test may change."""
    repo = new_repo(request, tmp_path / "repo")
    artifact = write_version(repo.data, trainer=TRAINERS["als"])
    shop = Shop(repo, artifact, apply(repo))
    shop.publish()
    yield shop
    qdrant(shop.feature_store).engine(shop.feature_store.config).close()


def test_an_item_that_came_after_the_training_is_left_out(own: Shop) -> None:
    """Fold-in does not know it, so it is missing; the visitor had it, so it is no answer."""
    store = EmbeddingStore(own.feature_store, "shop")
    store.fold_in_items(pa.table({"user_id": ["u-1", "u-2"], "item_id": ["brand-new"] * 2}), push=True)
    assert "brand-new" in store.rank_visitor(["sku-1"], 41).ids
    found = store.rank_visitor(["sku-1", "brand-new"], 41)
    assert found.missing == ["brand-new"]
    assert len(found) == 39
    assert "brand-new" not in found.ids


def test_a_version_is_loaded_once_and_dropped_with_its_end(own: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ask at once; any question after a publish lets go of the version before."""
    loaded: list[weakref.ref[FoldIn]] = []
    init = FoldIn.__init__

    def counting(self: FoldIn, artifact: Artifact, entity: Any) -> None:
        loaded.append(weakref.ref(self))
        init(self, artifact, entity)

    monkeypatch.setattr(FoldIn, "__init__", counting)
    store = EmbeddingStore(own.feature_store, "shop")
    store.rank("u-1")
    assert loaded == []
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: store.rank_visitor(["sku-1"]).ids, range(32)))
    assert len(loaded) == 1
    assert all(ids == answers[0] for ids in answers)

    newer = write_version(own.repo.data, trainer=TRAINERS["als"], seed=1)
    publish_any(own.feature_store, newer)
    store.similar_items("sku-1")
    gc.collect()
    assert [reference() for reference in loaded] == [None]
    assert store.rank_visitor(["sku-1"]).version == newer.manifest.version
    store.rank_visitor(["sku-2"])
    assert len(loaded) == 2


def test_versions_never_mix(own: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A publish between fold-in and search, with the old version dropped: the answer is of one of them, whole."""
    store = EmbeddingStore(own.feature_store, "shop")
    versions = {own.artifact.manifest.version: own.artifact}
    folded = FoldIn.folded

    def overtaken(self: FoldIn, *arguments: Any) -> Any:
        found = folded(self, *arguments)
        monkeypatch.setattr(FoldIn, "folded", folded)
        newer = write_version(own.repo.data, trainer=TRAINERS["als"], seed=2)
        versions[newer.manifest.version] = newer
        publish_any(own.feature_store, newer)
        prune_versions(own.feature_store, own.repo.data, "shop", keep=0)
        return found

    monkeypatch.setattr(FoldIn, "folded", overtaken)
    history = {"sku-3": 1.0, "sku-8": 1.0}
    found = store.rank_visitor(history)
    assert len(versions) == 2
    rows = [{"id": id, "score": score} for id, score in zip(found.ids, found.scores.tolist(), strict=True)]
    assert_ranked(rows, expected(versions[found.version], history, without=history)[:10])


def test_a_version_that_is_deleted_before_it_is_loaded(own: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asked of it is answered from the newer one."""
    store = EmbeddingStore(own.feature_store, "shop")
    newer = write_version(own.repo.data, trainer=TRAINERS["als"], seed=3)
    init = FoldIn.__init__

    def overtaken(self: FoldIn, artifact: Artifact, entity: Any) -> None:
        monkeypatch.setattr(FoldIn, "__init__", init)
        publish_any(own.feature_store, newer)
        delete_artifacts(own.repo.data, "shop", [artifact.manifest.version])
        init(self, artifact, entity)

    monkeypatch.setattr(FoldIn, "__init__", overtaken)
    history = {"sku-3": 1.0}
    found = store.rank_visitor(history, 5)
    assert found.version == newer.manifest.version
    assert found.ids == [id for id, _ in expected(newer, history, without=history)[:5]]


def test_versions_never_mix_under_load(own: Shop) -> None:
    """Four threads ask while two versions go live in turn; each answer is that of its version."""
    first, history = own.artifact, {"sku-3": 1.0, "sku-8": 1.0}
    second = write_version(own.repo.data, trainer=TRAINERS["als"], seed=4)
    right = {
        one.manifest.version: [id for id, _ in expected(one, history, without=history)[:10]] for one in (first, second)
    }
    assert len({tuple(ids) for ids in right.values()}) == 2
    store, over = EmbeddingStore(own.feature_store, "shop"), threading.Event()

    def ask() -> set[str]:
        seen: set[str] = set()
        while not over.is_set():
            found = store.rank_visitor(history)
            assert found.ids == right[found.version]
            seen.add(found.version)
        return seen

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask) for _ in range(4)]
        try:
            for artifact in (second, first, second):
                publish_any(own.feature_store, artifact)
        finally:
            over.set()
        seen = [each.result() for each in asking]
    assert set().union(*seen) == set(right)


def test_what_cannot_fold_in_says_how_to_mend_it(service: Asking, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """No trainer, none that can, no files or damaged ones: a problem without a path; users are ranked all the same."""

    def refusal(model: str) -> str:
        for path, interactions in (("rank", ONE), ("rank/batch", [ONE])):
            store = EmbeddingStore(shop.feature_store, model)  # one that has loaded the version goes on
            with pytest.raises(FoldInError):
                store.rank_visitor(["sku-1"])
            answer = Asking(service_of(shop)).post(f"/v1/models/{model}/{path}", {"interactions": interactions})
            assert (answer.status_code, answer.headers["content-type"]) == (409, "application/problem+json")
            assert str(shop.repo.path) not in answer.text
        assert service.post(f"/v1/models/{model}/rank", {"user_id": "u-1"}).status_code == 200
        return str(answer.json()["detail"])

    assert "no trainer 'random'; installed are als, bpr, concat, graph, item2vec, sasrec, softmax, svd" in refusal(
        "shop"
    )
    with monkeypatch.context() as patch:
        patch.setattr("embedding_trainers.fold_in.loaded.find_trainer", lambda _: replace(ALS, fold_in=None))
        assert "the trainer 'als' cannot fold in" in refusal("als")
    with monkeypatch.context() as patch:
        patch.setattr("feast_embeddings.model.from_trainers.entry_points", lambda **_: ())
        assert "pip install 'feast-embeddings[trainers]'" in refusal("als")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "scipy.sparse", None)
        assert "'scipy', which is not installed: run pip install" in refusal("als")
    folder = load_artifact(shop.repo.data, "als").path
    folder.rename(folder.with_name("aside"))
    try:
        assert "it is not in this repo's data folder; copy it there" in refusal("als")
    finally:
        folder.with_name("aside").rename(folder)
    whole = (folder / "items.parquet").read_bytes()
    (folder / "items.parquet").write_bytes(whole[:-9])
    try:
        assert "its files are damaged; restore them" in refusal("als")
    finally:
        (folder / "items.parquet").write_bytes(whole)


def test_both_clients_ask(service: Asking, shop: Shop) -> None:
    """Items, or items with weights, of NumPy too; alone and in a batch."""
    store = EmbeddingStore(shop.feature_store, "als")
    app: Any = service._app
    visitors: list[Any] = [["sku-1", "sku-4", "lost"], {np.str_("sku-1"): np.float32(3), "sku-4": 1}, ["lost"]]
    query: dict[str, Any] = {"interactions": visitors[0], "limit": 5, "filter": "price < 30", "return_metadata": True}
    alone = store.rank_visitor(visitors[0], 5, filter="price < 30")
    batch = store.rank_visitors(visitors, 5)

    async def awaited() -> Any:
        async with AsyncEmbeddingClient("http://localhost", transport=httpx.ASGITransport(app)) as client:
            return await client.rank("als", **query), await client.rank_batch("als", interactions=visitors, limit=5)

    class Through(httpx.BaseTransport):
        """The same app, for a client that waits."""

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            answer = service.post(request.url.path, content=request.content, headers=dict(request.headers))
            return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    with EmbeddingClient("http://localhost", transport=Through()) as client:
        waited = client.rank("als", **query), client.rank_batch("als", interactions=visitors, limit=5)
    for one, many in (asyncio.run(awaited()), waited):
        assert (one.ids, one.missing, one.version) == (alone.ids, ["lost"], alone.version)
        assert one.metadata == alone.attributes
        assert one.scores.tobytes() == alone.scores.tobytes()
        assert (many.ids, many.missing) == ([0, 1, 2], ["lost"])
        assert [each and each.ids for each in many.answers] == [each and each.ids for each in batch.answers]
        assert many.answers[2] is None

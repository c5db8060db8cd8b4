"""Embedding views with entities that the repo has already."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureStore, ValueType
from tests.conftest import Command
from tests.support.asking import Asking
from tests.support.publishing import publish_any
from tests.support.serving import service_of
from tests.support.shop import AS_OF, Shop, item_table, qdrant, user_table, write_tables, write_version

from feast_embeddings import EmbeddingFeatures, EmbeddingStore, embedding_views
from feast_embeddings.artifact import Artifact
from feast_embeddings.doctor import examine
from feast_embeddings.errors import InputError, NotPublishedError, VersionMismatchError
from feast_embeddings.publish.versions import prune_versions, roll_back
from feast_embeddings.repo import Repo, init_repo

CUSTOMER = Entity(name="customer", join_keys=["customer_no"], value_type=ValueType.STRING)
PRODUCT = Entity(name="product", join_keys=["product_no"], value_type=ValueType.STRING)
LATER = AS_OF + timedelta(days=1)


def apply(repo: Repo, model: str = "shop", **options: Any) -> FeatureStore:
    feature_store = repo.feature_store()
    feature_store.apply(list(embedding_views(model, repo.data, **options).by_name().values()))
    return feature_store


def matrix(artifact: Artifact, entity: Any) -> list[list[float]]:
    vectors: list[list[float]] = artifact.table(entity)["embedding"].to_pylist()
    return vectors


def test_the_group_has_the_given_entities(tmp_path: Path) -> None:
    """Unchanged, and next to them nothing more than without; options are those of all objects."""
    write_version(tmp_path)
    options: dict[str, Any] = {
        "ttl": timedelta(days=9),
        "tags": {"team": "crm"},
        "owner": "ann@x",
        "description": "Ours.",
    }
    views = embedding_views("shop", tmp_path, user_entity=CUSTOMER, item_entity=PRODUCT, **options)
    assert views.user is CUSTOMER
    assert views.item is PRODUCT
    assert sorted(views.by_name()) == [
        "item_embeddings_shop_item_embeddings",
        "item_product",
        "item_source_shop_item_history",
        "service_shop_embeddings",
        "user_customer",
        "user_embeddings_shop_user_embeddings",
        "user_source_shop_user_history",
    ]
    for view in (views.user_embeddings, views.item_embeddings):
        assert view is not None
        assert (view.ttl, view.owner, view.description) == (timedelta(days=9), "ann@x", "Ours.")
        assert view.tags["team"] == "crm"
    assert (views.service.owner, views.service.description, views.service.tags["team"]) == ("ann@x", "Ours.", "crm")
    own = embedding_views("shop", tmp_path, tags={"team": "crm"})
    assert own.user is not None
    assert own.user.tags["team"] == "crm"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"user_entity": "customer"}, "expected one feast.Entity, got str 'customer'"),
        ({"user_entity": [CUSTOMER, PRODUCT]}, r"expected one feast.Entity, got list"),
        (
            {"user_entity": Entity(name="c", value_type=ValueType.INT64)},
            "'c': its value type is INT64, .* are text",
        ),
        ({"item_entity": Entity(name="p", value_type=ValueType.BYTES)}, "BYTES, but .* which need STRING"),
        ({"item_entity": Entity(name="Price", value_type=ValueType.STRING)}, "'Price' is also .* column 'price'"),
        ({"user_entity": Entity(name="_c", value_type=ValueType.STRING)}, "cannot be stored"),
        ({"user_entity": Entity(name='c"', value_type=ValueType.STRING)}, "cannot be stored"),
        ({"ttl": 5}, "expected a timedelta"),
        ({"ttl": timedelta(-1)}, "expected a timedelta of 0 or more"),
        ({"tags": {"feast_embeddings.model": "x"}}, "package's own"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    write_version(tmp_path)
    with pytest.raises(InputError, match=message):
        embedding_views("shop", tmp_path, **options)


@pytest.mark.parametrize("value_type", [ValueType.INT64, ValueType.INT32, ValueType.UNKNOWN])
@pytest.mark.filterwarnings("ignore:Entity value_type will be mandatory:DeprecationWarning")
def test_whole_numbers(tmp_path: Path, rng: np.random.Generator, value_type: ValueType) -> None:
    """Online, offline and by id, for an entity of each type that holds them; and of none, as `feast init` makes it."""
    repo = init_repo(tmp_path)
    artifact = write_tables(repo.data, items=item_table(rng, pa.array([7, -7, 2**31 - 1])))
    zone = Entity(name="zone", value_type=None if value_type == ValueType.UNKNOWN else value_type)
    feature_store = apply(repo, item_entity=zone, user_entity=CUSTOMER)
    publish_any(feature_store, artifact)
    vectors = matrix(artifact, "item")
    rows = [{"zone": id} for id in (-7, 2**31 - 1, 8)]
    features = ["shop_item_embeddings:embedding"]
    expected = [vectors[1], vectors[2], None]
    assert feature_store.get_online_features(features, rows).to_dict()["embedding"] == expected
    labels = pd.DataFrame({"zone": [-7, 2**31 - 1], "event_timestamp": LATER})
    joined = feature_store.get_historical_features(labels, features).to_df().sort_values("zone")
    assert [row.tolist() for row in joined["embedding"]] == expected[:2]
    store = EmbeddingStore(feature_store, "shop")
    assert store.item_embeddings([-7]).vectors.tolist() == vectors[1:2]
    assert [row.tolist() for row in store.training_frame(labels)["item_embedding"]] == expected[:2]
    assert EmbeddingFeatures(str(repo.path), "shop", "item").fit_transform([[-7]]).tolist() == expected[:1]
    assert sorted(store.export("item").read_all()["zone"].to_pylist()) == [-7, 7, 2**31 - 1]
    feature_store.materialize(AS_OF, LATER)
    assert feature_store.get_online_features(features, rows).to_dict()["embedding"] == expected


def test_whole_numbers_that_need_more_bits(tmp_path: Path, rng: np.random.Generator) -> None:
    write_tables(tmp_path, items=item_table(rng, pa.array([1, -(2**31) - 1])))
    with pytest.raises(InputError, match="INT32, but the id -2147483649 needs INT64"):
        embedding_views("shop", tmp_path, item_entity=Entity(name="zone", value_type=ValueType.INT32))


def test_a_ttl(shop: Shop) -> None:
    """Feast's reads and training frames leave out what is older; queries answer from what is live."""
    feature_store = apply(shop.repo, ttl=timedelta(days=1))
    publish_any(feature_store, shop.artifact)
    found = feature_store.get_online_features(["shop_user_embeddings:embedding"], [{"user_id": "u-1"}]).to_dict()
    assert found["embedding"] == [None]
    store = EmbeddingStore(feature_store, "shop")
    labels = pd.DataFrame({"user_id": "u-1", "event_timestamp": [LATER, LATER + timedelta(seconds=1)]})
    assert store.training_frame(labels)["user_embedding"].notna().tolist() == [True, False]
    assert store.user_embeddings(["u-1"]).vectors.tolist() == matrix(shop.artifact, "user")[1:2]


def test_the_service(shop: Shop) -> None:
    """Requests, answers and filters over HTTP keep their own words."""
    feature_store = apply(shop.repo, user_entity=CUSTOMER, item_entity=PRODUCT)
    publish_any(feature_store, shop.artifact)
    service = Asking(service_of(Shop(shop.repo, shop.artifact, feature_store)))
    vectors = matrix(shop.artifact, "user")
    found = service.post("/v1/models/shop/create_user_embedding", {"user_ids": ["u-1"]}).json()
    assert np.array(found["embeddings"][0]["vector"], dtype=np.float32).tolist() == vectors[1]
    body = {"item_id": "sku-1", "filter": "item_id IN ('sku-2')", "return_metadata": True}
    (row,) = service.post("/v1/models/shop/similar_items", body).json()["results"]
    assert (row["id"], set(row["metadata"])) == ("sku-2", {"title", "category", "price", "tags"})
    body = {"entity": "user", "filter": "\"user_id\" = 'u-3'"}
    assert [row["id"] for row in service.post("/v1/models/shop/retrieve", body).json()["rows"]] == ["u-3"]


def test_fold_in(tmp_path: Path, command: Command) -> None:
    """A newcomer who is pushed is known by the team's key."""
    pytest.importorskip("scipy")
    repo = init_repo(tmp_path / "repo")
    rows = [(f"c-{i}", f"p-{(i + j) % 12}") for i in range(30) for j in range(1 + i % 4)]
    log = tmp_path / "log.csv"
    log.write_text("customer_no,product_no\n" + "".join(f"{user},{item}\n" for user, item in rows))
    columns = ["--user-column", "customer_no", "--item-column", "product_no", "--repo", repo.path]
    options = ["--model", "shop", "--trainer", "svd", "--factors", 4, "--quiet"]
    done = command("train", "--interactions", log, *columns, *options)
    assert done.code == 0, done.err
    feature_store = apply(repo, user_entity=CUSTOMER, item_entity=PRODUCT)
    assert command("publish", "--repo", repo.path, "--quiet").code == 0
    log.write_text("customer_no,product_no\nnew,p-1\nnew,p-2\n")
    table = tmp_path / "new.parquet"
    done = command("fold-in", "--interactions", log, *columns, "--entity", "user", "--push", "--output", table)
    assert done.code == 0, done.err
    vector = pq.read_table(table)["embedding"].to_pylist()
    assert EmbeddingStore(feature_store, "shop").user_embeddings(["new"]).vectors.tolist() == vector
    features = ["shop_user_embeddings:embedding"]
    assert feature_store.get_online_features(features, [{"customer_no": "new"}]).to_dict()["embedding"] == vector


def test_two_models_share_an_entity(tmp_path: Path, rng: np.random.Generator) -> None:
    """One key gets the vectors of both, of which one has items only; both may be of one entity, too."""
    repo = init_repo(tmp_path)
    ids = pa.array(["a", "b", "c"])
    titles = write_tables(repo.data, model="titles", items=item_table(rng, ids))
    shop = write_tables(repo.data, model="shop", users=user_table(rng, ids), items=item_table(rng, ids))
    apply(repo, "titles", user_entity=CUSTOMER, item_entity=PRODUCT)
    feature_store = apply(repo, "shop", user_entity=PRODUCT, item_entity=PRODUCT)
    assert [entity.name for entity in feature_store.list_entities()] == ["product"]
    for artifact in (titles, shop):
        publish_any(feature_store, artifact)
    features = [f"{view}_embeddings:embedding" for view in ("titles_item", "shop_user", "shop_item")]
    expected = [matrix(titles, "item")[1], matrix(shop, "user")[1], matrix(shop, "item")[1]]
    found = feature_store.get_online_features(features, [{"product_no": "b"}], full_feature_names=True).to_dict()
    names = [feature.replace(":", "__") for feature in features]
    assert [found[name][0] for name in names] == expected
    labels = pd.DataFrame({"product_no": ["b"], "event_timestamp": LATER})
    joined = feature_store.get_historical_features(labels, features, full_feature_names=True).to_df()
    assert [joined[name][0].tolist() for name in names] == expected
    frame = EmbeddingStore(feature_store, "shop").training_frame(labels)
    assert [frame["user_embedding"][0].tolist(), frame["item_embedding"][0].tolist()] == expected[1:]


def test_an_existing_repo_gets_its_entity(shop: Shop, command: Command) -> None:
    """Until it is published again nothing answers from rows of the other key; afterwards everything does."""
    shop.publish()
    repo = str(shop.repo.path)
    feature_store = apply(shop.repo, user_entity=CUSTOMER, item_entity=PRODUCT)
    with pytest.raises(NotPublishedError, match="another join key than 'customer_no'; run feast-embeddings publish"):
        EmbeddingStore(feature_store, "shop").similar_users("u-1")
    row = shop.artifact.table("user").slice(0, 1).to_pandas().rename(columns={"user_id": "customer_no"})
    with pytest.raises(VersionMismatchError, match=r"join key customer_no, .*publish again"):
        feature_store.write_to_online_store("shop_user_embeddings", row)
    problems = [finding for finding in examine(shop.repo).findings if finding.level == "problem"]
    assert [(finding.check, "another join key" in finding.message) for finding in problems] == [("live", True)]
    done = command("publish", "--repo", repo)
    assert done.code == 0
    assert "rows pushed since" in done.out + done.err

    store = EmbeddingStore(feature_store, "shop")
    assert store.user_embeddings(["u-1"]).vectors.tolist() == matrix(shop.artifact, "user")[1:2]
    assert store.similar_items("sku-1", k=3).id_name == "product_no"
    features = ["shop_user_embeddings:embedding"]
    found = feature_store.get_online_features(features, [{"customer_no": "u-1"}]).to_dict()
    assert found["embedding"] == matrix(shop.artifact, "user")[1:2]
    assert [finding for finding in examine(shop.repo).findings if finding.level == "problem"] == []
    assert not command("publish", "--repo", repo, "--json").out.count('"changed": true')

    # A version that was loaded under the other key is loaded again by a rollback.
    publish_any(feature_store, write_version(shop.repo.data, seed=1, as_of=LATER))
    roll_back(feature_store, shop.repo.data, "shop", shop.artifact.manifest.version)
    assert store.user_embeddings(["u-1"]).vectors.tolist() == matrix(shop.artifact, "user")[1:2]
    prune_versions(feature_store, shop.repo.data, "shop", keep=0)
    engine = qdrant(feature_store).engine(feature_store.config)
    assert sum(len(engine.collections(alias)) for alias in engine.aliases()) == 2
    feature_store.teardown()  # type: ignore[no-untyped-call]
    assert engine.aliases() == {}

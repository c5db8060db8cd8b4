"""The map of the live version over HTTP: what `map --save` wrote, and never that of another version."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from tests.conftest import Command
from tests.support.asking import Asking
from tests.support.publishing import publish_any
from tests.support.serving import service_of
from tests.support.shop import AS_OF, Shop, alignment_to, served_shop, write_version

from feast_embeddings.analysis.members import Members
from feast_embeddings.artifact.saved_map import map_path, read_map
from feast_embeddings.publish.versions import roll_back
from feast_embeddings.query.store import EmbeddingStore

MAP = "/v1/models/shop/map/item"


@pytest.fixture(params=["embedded"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    yield from served_shop(request, tmp_path)


def test_the_live_version_has_its_own_map(shop: Shop, command: Command) -> None:
    """None, its own, none after a publish, its own after going back; without those who were forgotten."""
    service, first = Asking(service_of(shop)), shop.artifact.manifest.version
    refused = service.get(MAP)
    assert (refused.status_code, refused.headers["content-type"]) == (404, "application/problem+json")
    assert f"version {first}: run feast-embeddings map --entity item --save --model shop" in refused.json()["detail"]

    ran = command("map", "--entity", "item", "--color", "category", "--save", "--repo", shop.repo.path)
    assert (ran.code, ran.out) == (0, f"saved 40 items of version {first}, for the page of the service\n"), ran.err
    saved = read_map(shop.artifact.path, "item")
    assert saved is not None
    found = service.get(MAP).json()
    assert (found["model"], found["version"], found["entity"]) == ("shop", first, "item")
    assert found["ids"] == saved.ids.to_pylist() == sorted(f"sku-{row}" for row in range(40))
    assert np.abs(np.array([found["x"], found["y"]]).T - saved.places).max() <= 0.0005
    titles = {f"sku-{row}": f"Item {row}" for row in range(40)}
    assert found["titles"] == [titles[id] for id in found["ids"]]
    (coloring,) = found["colorings"]
    names = [coloring["groups"][number] for number in coloring["numbers"]]
    assert names == ["Books" if int(id[4:]) % 3 else "Toys" for id in found["ids"]]
    assert service.get("/v1/models/shop/map/user").status_code == 404
    assert service.get("/v1/models/shop/map/shoe").status_code == 422
    assert service.get("/v1/models/none/map/item").status_code == 404

    second = write_version(shop.repo.data, seed=1, as_of=AS_OF + timedelta(days=1))
    publish_any(shop.feature_store, second)
    refused = service.get(MAP)
    assert (refused.status_code, f"live version {second.manifest.version}" in refused.json()["detail"]) == (404, True)
    roll_back(shop.feature_store, shop.repo.data, "shop")
    assert service.get(MAP).json() == found
    store = EmbeddingStore(shop.feature_store, "shop")
    store.hide(items=["sku-3", "sku-5"])
    later = service.get(MAP).json()
    assert (found["hidden"], [later["ids"][place] for place in later["hidden"]]) == ([], ["sku-3", "sku-5"])
    assert later == {**found, "hidden": later["hidden"]}
    store.unhide(items=["sku-3", "sku-5"])
    store.forget(items=["sku-3"])
    assert service.get(MAP).json()["ids"] == [id for id in found["ids"] if id != "sku-3"]
    map_path(shop.artifact.path, "item").write_bytes(b"PAR1")
    assert service.get(MAP).status_code == 503


def test_what_the_command_refuses(shop: Shop, command: Command) -> None:
    """Nowhere to write to, and a live version whose files are elsewhere; nothing is written."""
    where = ("map", "--entity", "item", "--repo", shop.repo.path)
    ran = command(*where)
    assert (ran.code, "a file with --output, or the page of the service with --save" in ran.err) == (2, True)
    shop.artifact.path.rename(shop.repo.path / "elsewhere")
    write_version(shop.repo.data)
    ran = command(*where, "--save")
    assert (ran.code, "is live, but its files are not in" in ran.err) == (2, True), ran.err
    assert list(shop.repo.path.rglob("map-*")) == []


def test_it_starts_from_the_map_before(shop: Shop, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same space, and unless told otherwise; a version without one is passed over."""
    starts: list[object] = []

    def drawn(members: Members, *, previous: object, **_: object) -> npt.NDArray[np.float64]:
        starts.append(previous)
        return np.arange(2.0 * len(members)).reshape(-1, 2)

    monkeypatch.setattr("feast_embeddings.analysis.maps.places.places_of", drawn)
    where = ("map", "--entity", "item", "--save", "--repo", shop.repo.path)
    assert command(*where).code == 0
    saved = read_map(shop.artifact.path, "item")
    assert saved is not None
    places = dict(zip(saved.ids.to_pylist(), map(tuple, saved.places.tolist()), strict=True))
    aligned = alignment_to(shop.artifact)
    for days in (1, 2):
        newest = write_version(shop.repo.data, seed=days, as_of=AS_OF + timedelta(days=days), alignment=aligned)
    publish_any(shop.feature_store, newest)
    ran = command(*where)
    assert f"starting from the map of version {shop.artifact.manifest.version}\n" in ran.out, ran.err
    assert command(*where, "--fresh").code == 0
    publish_any(shop.feature_store, write_version(shop.repo.data, seed=3, as_of=AS_OF + timedelta(days=3)))
    assert json.loads(command(*where, "--json").out)["started_from"] is None  # of another space
    assert starts == [None, places, None, None]


def test_a_part_does_not_replace_the_map_of_all(shop: Shop, command: Command, tmp_path: Path) -> None:
    """It goes to a file; and what says nothing is refused."""
    where = ("map", "--entity", "item", "--repo", shop.repo.path)
    assert command(*where, "--save").code == 0
    before = map_path(shop.artifact.path, "item").read_bytes()
    for options, problem in [
        (("--save", "--filter", "category = 'Books'"), "--save keeps a map of all"),
        (("--save", "--fresh", "--previous", "map.parquet"), "--fresh is for --save without --previous"),
        (("--fresh", "--output", tmp_path / "map.parquet"), "--fresh is for --save without --previous"),
    ]:
        ran = command(*where, *options)
        assert (ran.code, problem in ran.err) == (2, True), ran.err
    assert map_path(shop.artifact.path, "item").read_bytes() == before
    assert not (tmp_path / "map.parquet").exists()


def test_saved_and_forgotten_meanwhile(shop: Shop, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is forgotten while the map is drawn is not on it; one of another version is refused."""
    store = EmbeddingStore(shop.feature_store, "shop")
    where = ("map", "--entity", "item", "--save", "--repo", shop.repo.path)

    def drawing_while(happens: Callable[[], object]) -> None:
        def drawn(members: Members, **_: object) -> npt.NDArray[np.float64]:
            happens()
            return np.zeros((len(members), 2))

        monkeypatch.setattr("feast_embeddings.analysis.maps.places.places_of", drawn)

    drawing_while(lambda: store.forget(items=["sku-5"]))
    assert command(*where).code == 0
    saved = read_map(shop.artifact.path, "item")
    assert saved is not None
    assert len(saved.ids) == 39
    assert "sku-5" not in saved.ids.to_pylist()

    map_path(shop.artifact.path, "item").unlink()
    second = write_version(shop.repo.data, seed=1, as_of=AS_OF + timedelta(days=1))
    drawing_while(lambda: publish_any(shop.feature_store, second))
    ran = command(*where)
    assert (ran.code, "went live while its map was drawn" in ran.err) == (2, True), ran.err
    assert list(shop.repo.path.rglob("map-*")) == []

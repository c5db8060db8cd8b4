"""The page on a trained shop: why a result is there, what a visitor would get, and what another version answers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.browser import Browser, browsing
from tests.support.listening import listening
from tests.support.publishing import publish_any
from tests.support.serving import service_of
from tests.support.shop import Shop, apply
from tests.support.two_tastes import SEEN, train_two_tastes

from feast_embeddings.query.answers import Neighbours
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.repo import init_repo

DONE = "document.querySelector('#results').getAttribute('aria-busy') === 'false'"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless Chromium."""
    with browsing(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture(scope="module")
def shop(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Two versions of als of different logs, of which the newer one is live."""
    repo = init_repo(tmp_path_factory.mktemp("trained") / "repo")
    older, newer = (train_two_tastes(repo.path, seed) for seed in range(2))
    feature_store = apply(repo)
    for artifact in (older, newer):
        publish_any(feature_store, artifact)
    return Shop(repo, newer, feature_store)


@pytest.fixture(scope="module")
def store(shop: Shop) -> EmbeddingStore:
    """The library on the same shop."""
    return EmbeddingStore(shop.feature_store, "shop")


@pytest.fixture(scope="module")
def address(shop: Shop) -> Iterator[str]:
    """Where its service listens."""
    with listening(service_of(shop)) as where:
        yield f"{where}/"


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Browser]:
    """The page on the user of both tastes; at the end no request was refused, and no script failed."""
    browser.appearance(width=1280, height=900, scheme="light")
    browser.open("about:blank")
    browser.log()
    browser.open(f"{address}#model=shop&entity=user&id=both&limit=10")
    browser.wait("document.querySelector('#results tbody')")
    yield browser
    assert browser.log() == []


def reasons(found: Neighbours) -> list[str]:
    """The lines that say why, of results that have one."""
    assert found.because is not None
    named = [", ".join(f"<i>Title</i> of {id}" for id, _ in each) for each in found.because]
    return [f"Because of {names}" for names in named if names]


def ids(page: Browser, part: str = "#results") -> list[str]:
    """The ids of the results, when they have come."""
    page.wait(DONE)
    return page.texts(f"{part} tbody .id")


def test_it_says_why(page: Browser, store: EmbeddingStore) -> None:
    """Under each result of a ranking, by their names and as text; not under similar items."""
    found = store.rank("both", 10, explain=True)
    assert ids(page) == found.ids
    assert page.texts("#results .why") == reasons(found)
    assert page.texts("#results .why")
    page.click("#show label:has([value=similar])")
    page.wait("document.querySelector('#results thead').innerText.includes('User')")
    assert page.texts("#results .why") == []


def test_a_visitor_gets_a_ranking(page: Browser, store: EmbeddingStore) -> None:
    """Of the items that are picked, also again from the address; each can be taken away."""
    page.click("#entity label:has([value=visitor])")
    page.wait("document.querySelectorAll('#list .id').length === 20")
    assert not page.run("return document.querySelector('#question').checkVisibility()")
    button = "[...document.querySelectorAll('#list button')].find((e) => e.innerText.endsWith(arguments[0]))"
    for id in SEEN:
        page.run(f"{button}.click()", id)
        page.wait("document.querySelector('#subject-items').innerText.includes(arguments[0])", id)
    expected = store.rank_visitor(list(SEEN), 10, explain=True)
    assert ids(page) == expected.ids
    assert page.texts("#results .why") == reasons(expected)
    assert page.text("#subject-heading") == "A visitor who has seen 3 items"
    assert len(page.texts("#list [aria-pressed=true]")) == 3
    assert page.texts("#subject-items span") == [f"<i>Title</i> of {id}" for id in SEEN]
    page.do("refresh", {})
    page.wait("document.querySelector('#results tbody')")
    assert ids(page) == expected.ids
    page.click("#subject-items li:first-child button")
    page.wait("document.querySelectorAll('#subject-items li').length === 2")
    assert page.run("return document.activeElement.id") == "subject-heading"
    assert ids(page) == store.rank_visitor(list(SEEN)[1:], 10).ids
    page.click("#entity label:has([value=item])")
    page.wait("document.querySelector('#subject-kind').innerText.startsWith('Item')")
    page.wait(DONE)
    page.click("#entity label:has([value=visitor])")
    page.wait("document.querySelectorAll('#subject-items li').length === 1")  # with the item that was looked at
    page.wait(DONE)


def test_it_compares_versions(page: Browser, store: EmbeddingStore, shop: Shop, tmp_path: Path) -> None:
    """The same question to both, with the place that each result has in the other answer."""
    folder = Path(os.environ.get("FEAST_EMBEDDINGS_SCREENSHOTS", tmp_path))
    page.wait("!document.querySelector('#compare-label').hidden")
    older = page.run("return document.querySelector('#compare').options[1].value")
    page.run("const e = document.querySelector('#compare'); e.selectedIndex = 1; e.dispatchEvent(new Event('change'))")
    page.wait("document.querySelectorAll('#results table').length === 2")
    live, other = store.rank("both", 10), store.rank("both", 10, version=older)
    assert (live.version, other.version) == (shop.artifact.manifest.version, older)
    assert ids(page, ".two > :first-child") == live.ids
    assert ids(page, ".two > :last-child") == other.ids
    assert page.texts(".two h3") == [f"Live version {live.version}", f"Version {older}"]
    places = {id: place for place, id in enumerate(other.ids, 1)}

    def moved(place: int, before: int | None) -> str:
        if before is None:
            return "new"
        return "=" if before == place else f"{'↑' if before > place else '↓'} from {before}"

    expected = [moved(place, places.get(id)) for place, id in enumerate(live.ids, 1)]
    assert page.texts(".two > :first-child .moved") == expected
    assert len(set(expected)) > 2
    now = {id: place for place, id in enumerate(live.ids, 1)}
    assert page.texts(".two > :last-child .moved") == [f"now {now[id]}" if id in now else "gone" for id in other.ids]
    for width, scheme in [(1280, "light"), (1280, "dark"), (390, "light"), (320, "light")]:
        page.appearance(width=width, height=900, scheme=scheme)
        assert page.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        page.screenshot(folder / f"compare-{width}-{scheme}.png")
    page.do("refresh", {})
    page.wait("document.querySelectorAll('#results table').length === 2")
    assert ids(page, ".two > :last-child") == other.ids


def test_it_is_accessible(page: Browser, address: str) -> None:
    """axe finds nothing in reasons, in a visitor, and in two versions next to each other; light, dark and narrow."""
    older = page.wait("document.querySelector('#compare').options[1]?.value")
    for width, scheme in [(1280, "light"), (1280, "dark"), (390, "light")]:
        page.appearance(width=width, height=900, scheme=scheme)
        for asked in (
            "entity=user&id=both",
            "entity=visitor&id=sku-1&id=sku-11",
            f"entity=user&id=both&compare={older}",
        ):
            page.open(f"{address}#model=shop&{asked}")
            page.do("refresh", {})
            page.wait("document.querySelector('#results .why')")
            assert page.violations() == []


def test_a_version_that_is_gone(page: Browser, address: str) -> None:
    """It is said in its place, and the live answer stays."""
    page.open(f"{address}#model=shop&entity=user&id=both&compare=19990101T000000000Z")
    page.wait("document.querySelectorAll('.two h3').length === 2")
    assert "is not loaded" in page.texts(".two h3")[1]
    assert len(page.texts("#results table")) == 1
    page.log()  # of the refusal

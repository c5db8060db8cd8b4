"""The page at `/`: what is served, and what a browser and its user make of it."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import numpy as np
import pyarrow as pa
import pytest
from fastapi import FastAPI
from tests.support.asking import Asking
from tests.support.browser import Browser, browsing
from tests.support.listening import listening
from tests.support.maps import save_any_map
from tests.support.publishing import publish_any
from tests.support.serving import service_of
from tests.support.shop import AS_OF, METRICS, Shop, item_table, served_shop, user_table, write_version

from feast_embeddings import embedding_views
from feast_embeddings.artifact import Artifact, TrainerInfo, load_artifact, write_artifact
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.service import mount
from feast_embeddings.service.api_keys import new_key

KEY, KEPT = new_key("page", "read")

# What a page that reads text as HTML, or an address or a filter as text, would trip over.
HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "\"'><script>alert(2)</script>",
    "a b&c=d#e?f/../%2e%2e",
    'O\'Neill; 100% \\ "quoted"',
    "שלום עולם",
    "__proto__",
    "w" * 300,
]


def write_hostile(data: Path, *, seed: int = 0, as_of: datetime = AS_OF) -> Artifact:
    """A version whose ids, titles and other attributes are made to break a page."""
    rng = np.random.default_rng(seed)
    ids = [*HOSTILE, *(f"sku-{i}" for i in range(33))]
    users = [*HOSTILE, *(f"u-{i}" for i in range(13))]
    items = item_table(rng, pa.array(ids))
    assert items.attributes is not None
    titles = [f"Title of {id}" for id in ids]
    attributes = items.attributes.set_column(0, "title", pa.array(titles))
    attributes = attributes.append_column("<b>bold</b>", pa.array([f"<i>{id}</i>" for id in ids]))
    seen = [[ids[i], ids[i + 1]] for i in range(len(users))]
    return write_artifact(
        data,
        "shop",
        users=user_table(rng, pa.array(users), seen),
        items=dataclasses.replace(items, attributes=attributes),
        as_of=as_of,
        trainer=TrainerInfo(name="random", config={}),
        seed=seed,
        metrics=METRICS,
        evaluated_on="<u>newest</u> interactions",
        fingerprint="0" * 64,
        n_interactions=40,
    )


# Whole numbers, two of them such as JavaScript's own numbers cannot tell apart.
NUMBERS = [2**53, 2**53 + 1, -(2**63), *range(17)]


def write_numbers(data: Path) -> Artifact:
    """A version whose ids are numbers."""
    rng = np.random.default_rng(0)
    return write_artifact(
        data,
        "shop_numbers",
        users=user_table(rng, pa.array(NUMBERS), [[id] for id in NUMBERS]),
        items=item_table(rng, pa.array(NUMBERS)),
        as_of=AS_OF,
        trainer=TrainerInfo(name="random", config={}),
        seed=0,
        metrics={},
        fingerprint="0" * 64,
        n_interactions=20,
    )


# --- what is served


@pytest.fixture(scope="module")
def service(common_shop: Shop) -> Asking:
    """A service that asks for keys; nothing here sends one."""
    return Asking(service_of(common_shop, KEPT))


def files(service: Asking, start: str) -> dict[str, tuple[str, Any]]:
    """Path -> text and headers of the page and of all that it names, which must be there without a key."""
    found: dict[str, tuple[str, Any]] = {}
    left = [start]
    while left:
        path = left.pop()
        if path in found:
            continue
        answer = service.get(path)
        assert answer.status_code == 200, path
        found[path] = answer.text, answer.headers
        if path.endswith(("/", ".js")):
            names = re.findall(r'(?:src|href)="([^"#]+)"|from "([^"]+)"', answer.text)
            left += [urljoin(path, one or other) for one, other in names if one != "docs"]
    return found


def test_the_page_loads_nothing_but_its_own(service: Asking) -> None:
    """Without a key; each file with a policy that forbids all else, and nothing in them that it would refuse."""
    found = files(service, "/")
    assert {"/page/page.js", "/page/page.css", "/page/icon.svg", "/page/client/client.js"} <= found.keys()
    for path, (text, headers) in found.items():
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        own = {"script-src", "style-src", "img-src", "connect-src"}
        assert {policy[name] for name in own} == {"'self'"}
        assert {policy[name] for name in ("base-uri", "form-action", "frame-ancestors")} == {"'none'"}
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-cache"
        assert not re.search(r"(?<!xmlns=\")https?://(?!localhost)", text), path
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text), path
        assert "localStorage" not in text or path == "/page/columns.js", path
    html = found["/"][0]
    assert not re.search(r"<style|style=|\son\w+=|<script(?! type=\"module\" src=)", html)
    types = {path.rsplit(".")[-1]: headers["content-type"].split(";")[0] for path, (_, headers) in found.items()}
    assert types["css"] == "text/css"
    assert types["js"] in ("text/javascript", "application/javascript")


def test_the_page_is_open_and_the_answers_are_not(service: Asking) -> None:
    """Only its own files, of its own folder; asked again, an unchanged one is not sent again."""
    assert service.get("/v1/models").status_code == 401
    for path in ("%2e%2e/app.py", "%2e%2e/v1/models", "client/%2e%2e/%2e%2e/package.json", "x.js", "", "client/"):
        answer = service.get(f"/page/{path}")
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json"), path
    assert service.request("HEAD", "/").status_code == 200
    etag = service.get("/page/page.js").headers["etag"]
    assert service.get("/page/page.js", headers={"If-None-Match": etag}).status_code == 304


def test_it_works_where_it_is_mounted(common_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """In Feast's feature server, under a path: all that it names is under it too."""
    monkeypatch.setattr("feast_embeddings.repo.Repo.feature_store", lambda _: common_shop.feature_store)
    app = FastAPI()
    mount(app, common_shop.repo.path)
    assert len(files(Asking(app), "/embeddings/")) == len(files(Asking(app), "/embeddings/")) > 10
    led = Asking(app).get("/embeddings")
    assert (led.status_code, led.headers["location"]) == (307, "http://localhost/embeddings/")


# --- what a browser makes of it


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless Chromium."""
    with browsing(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture(scope="module", params=["embedded"])
def shop(browser: Browser, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A published shop, whose last test publishes another version; and two more models, one of them not published."""
    for made in served_shop(request, tmp_path_factory.mktemp("shop"), write_hostile):
        write_numbers(made.repo.data)
        write_version(made.repo.data, model="waiting")
        for model in ("shop_numbers", "waiting"):
            made.feature_store.apply(list(embedding_views(model, made.repo.data).by_name().values()))
        publish_any(made.feature_store, load_artifact(made.repo.data, "shop_numbers", None))
        yield made


@pytest.fixture(scope="module")
def store(shop: Shop) -> EmbeddingStore:
    """The library on the same shop."""
    return EmbeddingStore(shop.feature_store, "shop")


@pytest.fixture(scope="module")
def address(shop: Shop) -> Iterator[str]:
    """Where the service of the shop listens, for those with the key."""
    with listening(service_of(shop, KEPT)) as where:
        yield f"{where}/"


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Browser]:
    """The page, opened again with the key in its tab; at the end nothing was refused, and no script failed."""
    browser.appearance(width=1280, height=900, scheme="light")
    browser.open(address)
    if browser.wait("document.querySelector('#results tbody, #key-form:not([hidden])')?.tagName") == "FORM":
        browser.press(KEY, "Enter")
    browser.wait("document.querySelector('#results tbody')")
    browser.log()
    yield browser
    expected = ("409", "422")  # what the browser itself notes of answers that the page shows
    assert [message for message in browser.log() if not any(status in message for status in expected)] == []


def results(page: Browser) -> list[str]:
    """The ids of the results, when they have come."""
    page.wait("document.querySelector('#results').getAttribute('aria-busy') === 'false'")
    return page.texts("#results tbody .id")


def look_at(page: Browser, id: str, *, entity: str = "item") -> None:
    """Choose by searching, with the mouse."""
    page.click(f"#entity label:has([value={entity}])")
    page.run(
        "document.querySelector('#search-note').textContent = '';"  # of the search before, maybe for the same
        "const search = document.querySelector('#search'); search.focus(); search.value = arguments[0];"
        "search.dispatchEvent(new InputEvent('input'))",
        id,
    )
    page.wait("[...document.querySelectorAll('#list .id')].findIndex((e) => e.textContent === arguments[0]) === 0", id)
    page.wait("document.querySelector('#search-note').textContent.includes('found')")
    page.click("#list button")
    page.wait("document.querySelector('#subject-kind .id').textContent === arguments[0]", id)


def test_it_asks_for_a_key(browser: Browser, address: str) -> None:
    """Before it shows anything; a wrong one is refused, the right one is kept in this tab and nowhere else."""
    browser.open(address)
    browser.wait("document.querySelector('#key-reason').innerText")
    assert browser.text("#key-reason") == "This service needs a key."
    assert not browser.run("return document.querySelector('#main').checkVisibility()")
    browser.press("fe_wrong", "Enter")  # the field has the focus
    browser.wait("document.querySelector('#key-reason').innerText.includes('not accepted')")
    assert browser.run("return [document.activeElement.id, document.activeElement.value, sessionStorage.length]") == [
        "key",
        "",
        0,
    ]
    browser.press(f" {KEY} ", "Enter")
    browser.wait("document.querySelector('#results tbody')")
    assert not browser.run("return document.querySelector('#key-form').checkVisibility()")
    kept = "return [location.href, document.cookie, JSON.stringify(localStorage), document.body.innerHTML]"
    assert all(KEY not in text for text in browser.run(kept))
    browser.open(address)  # again, without being asked again
    browser.wait("document.querySelector('#results tbody')")
    browser.click("#forget-key")
    browser.wait("document.querySelector('#key-reason').innerText.includes('needs a key')")
    assert browser.run("return sessionStorage.length") == 0
    browser.log()  # of the refusals


def test_it_shows_what_the_library_answers(page: Browser, store: EmbeddingStore, shop: Shop) -> None:
    """Neighbours, audiences and rankings with scores and attributes, and the version that gave them."""
    look_at(page, "sku-3")
    similar = store.similar_items("sku-3", 20)
    assert results(page) == similar.ids
    assert page.texts("#results .score") == [f"{score:.4f}" for score in similar.scores.tolist()]
    assert page.texts("#results td[data-name=category]") == [row["category"] for row in similar.attributes]
    assert page.texts("#results .name") == [row["title"] for row in similar.attributes]
    assert page.text("#subject-heading") == "Title of sku-3"
    assert "category\nToys" in page.text("#subject-attributes") or "category\nBooks" in page.text("#subject-attributes")

    page.click("#show label:has([value=audience])")
    page.wait("document.querySelector('#results thead').innerText.includes('User')")
    assert results(page) == store.users_for_item("sku-3", 20).ids

    look_at(page, "u-5", entity="user")
    assert results(page) == store.rank("u-5", 20).ids
    page.click("#seen-label")
    page.wait("location.hash.includes('seen=yes')")
    assert results(page) == store.rank("u-5", 20, exclude_seen=False).ids
    page.click("#limit option")
    page.wait("document.querySelectorAll('#results tbody tr').length === 10")
    page.click("#show label:has([value=similar])")
    page.wait("document.querySelector('#results thead').innerText.includes('User')")
    assert results(page) == store.similar_users("u-5", 10).ids

    manifest, told = shop.artifact.manifest, page.text("#version")
    quality = "recall@20\t0.250\t0.125"
    for text in (manifest.version, manifest.space_id, "2026-05-01 12:00 UTC", "random, 8 dimensions", quality):
        assert text in told
    assert "<u>newest</u> interactions" in told


@pytest.mark.parametrize("id", HOSTILE)
def test_hostile_ids_are_text(page: Browser, store: EmbeddingStore, id: str) -> None:
    """Found by search, shown letter for letter, asked about, and in the address, from which they come back."""
    look_at(page, id)
    expected = store.similar_items(id, 20).ids
    assert results(page) == expected
    assert page.text("#subject-heading") == f"Title of {id}".strip()
    assert page.run("return document.querySelectorAll('main :is(img, script, b, i, u)').length") == 0
    assert f"<i>{id}</i>" in page.text("#subject-attributes")
    page.do("refresh", {})
    page.wait("document.querySelector('#results tbody')")
    assert results(page) == expected
    assert page.text("#subject-kind") == f"Item {id}"


@pytest.mark.parametrize("id", NUMBERS[:4])
def test_ids_may_be_numbers(page: Browser, shop: Shop, id: int) -> None:
    """In 64 bits, of another model."""
    page.click("#model option[value=shop_numbers]")
    page.wait("document.querySelector('#list').innerText.includes('9007199254740993')")
    look_at(page, str(id))
    expected = [str(id) for id in EmbeddingStore(shop.feature_store, "shop_numbers").similar_items(id, 20).ids]
    assert results(page) == expected
    assert page.text("#subject-heading") == f"Item {NUMBERS.index(id)}"
    page.do("refresh", {})
    page.wait("document.querySelector('#results tbody')")
    assert results(page) == expected
    assert "Not evaluated" in page.text("#version")


def test_what_is_not_there_is_said(page: Browser, address: str) -> None:
    """An id that the version does not know, one of another type, and a model that nothing was published of."""
    page.open(f"{address}#model=shop&id=no-user")
    page.do("refresh", {})
    page.wait("document.querySelector('#status').innerText === 'This version has no item with this id.'")
    page.open(f"{address}#model=shop&number=5")
    page.wait("document.querySelector('#trouble').innerText.includes('item ids of this model are text, got 5')")
    page.click("#model option[value=waiting]")
    page.wait("document.querySelector('#trouble').innerText === 'no version of this model is live'")
    assert page.text("#version").endswith("No version of this model is live.")
    page.click("#model option[value=shop]")
    page.wait("document.querySelector('#results tbody')")
    page.wait("document.querySelector('#trouble').hidden")


@pytest.mark.parametrize("show", ["toString", "constructor", "__proto__", "hasOwnProperty", "nonsense", ""])
def test_an_address_may_ask_for_anything(page: Browser, address: str, store: EmbeddingStore, show: str) -> None:
    """What there is no such question for is the first one, also where every JavaScript object has that name."""
    for entity, id, expected in [
        ("item", "sku-3", store.similar_items("sku-3", 20).ids),
        ("user", "u-5", store.rank("u-5", 20).ids),
    ]:
        page.open(f"{address}#model=shop&entity={entity}&id={id}&show={show}")
        page.do("refresh", {})
        page.wait("document.querySelector('#results tbody')")
        assert results(page) == expected
        assert page.run(
            "return document.querySelector('#show input:checked') === document.querySelector('#show input')"
        )
        assert page.run("return document.querySelector('#trouble').hidden")


def test_a_search_ends(page: Browser) -> None:
    """In a large catalogue it says how far it looked; an id is found wherever it is, and listed once."""
    found = page.do(
        "execute/async",
        {
            "args": [],
            "script": """
            const done = arguments[0];
            let asked = 0;
            const rows = Array.from({ length: 12000 }, (_, i) => ({ id: `x${i}`, metadata: { word: `word ${i}.` } }));
            const retrieve = async ({ filter, cursor = 0, limit }) => {
              asked++;
              const asks = (id) => filter === `"item_id" IN ('${id}')`;
              if (filter) return { rows: rows.filter(({ id }) => asks(id)), nextCursor: null };
              const next = cursor + limit;
              return { rows: rows.slice(cursor, next), nextCursor: next < rows.length ? next : null };
            };
            const versions = async () => ({ versions: [] });
            import("./page/listing.js").then(async ({ Listing }) => {
              const listing = new Listing({ retrieve, versions }, "shop", "item");
              const answers = {};
              for (const text of ["WORD 4999.", "word 5000.", "x11999", "x4321", "word"]) {
                const { rows, looked } = await listing.search(text);
                answers[text] = [rows.map(({ id }) => id), looked, asked];
              }
              done(answers);
            });
            """,
        },
    )
    assert found["WORD 4999."] == [["x4999"], 5000, 51]
    assert found["word 5000."] == [[], 5000, 52]  # what was read is not read again
    assert found["x11999"] == [["x11999"], 5000, 53]
    assert found["x4321"] == [["x4321"], 5000, 54]
    assert found["word"] == [[f"x{i}" for i in range(50)], 50, 55]


def test_a_filter_is_the_apis(page: Browser, store: EmbeddingStore) -> None:
    """Refused with the service's own message, next to the field; accepted, it is kept in the address."""
    look_at(page, "sku-3")
    page.click("#filter")
    page.press("colour = 'red'", "Enter")
    page.wait("document.querySelector('#filter-error').innerText")
    assert "there is no feature 'colour'; filters can use: " in page.text("#filter-error")
    assert page.run("return document.querySelector('#filter').getAttribute('aria-invalid')") == "true"
    assert page.texts("#results tr") == []
    page.run("document.querySelector('#filter').select()")
    page.press("category = 'Toys' AND price < 20", "Enter")
    page.wait("document.querySelector('#results tbody')")
    assert results(page) == store.similar_items("sku-3", 20, filter="category = 'Toys' AND price < 20").ids
    assert "no more pass the filter" in page.text("#status")
    assert page.text("#filter-error") == ""
    page.do("refresh", {})
    page.wait("document.querySelector('#results tbody')")
    assert page.run("return document.querySelector('#filter').value") == "category = 'Toys' AND price < 20"
    # It is about items, so it goes when users are shown.
    page.click("#show label:has([value=audience])")
    assert results(page) == store.users_for_item("sku-3", 20).ids


def test_it_works_with_the_keyboard(page: Browser, store: EmbeddingStore) -> None:
    """From the first Tab to results of results, and back; what has the focus can be seen."""

    def focused(what: str = "id") -> str:
        return str(page.run(f"return document.activeElement.{what}"))

    page.press("Tab")
    assert focused("className") == "skip"
    assert page.run("return document.activeElement.getBoundingClientRect().top >= 0")
    while focused() != "search":
        page.press("Tab")
        assert page.run("return document.activeElement !== document.body")
        # What is chosen is drawn by its label.
        assert page.run(
            "const e = document.activeElement, drawn = e.type === 'radio' ? e.nextSibling : e;"
            "return parseFloat(getComputedStyle(drawn).outlineWidth) >= 2"
        )
    page.press("Left")
    page.press("sku-1")
    page.wait("document.querySelector('#search-note').textContent.includes('found')")
    page.press("Down")
    assert focused("innerText") == "Title of sku-1\nsku-1"
    page.press("Down")
    second = focused("querySelector('.id').innerText")
    page.press("Up", "Down", "Enter")
    page.wait("document.querySelector('#subject-kind .id').innerText === arguments[0]", second)
    assert focused("querySelector('.id').innerText") == second  # to go on in the list
    assert focused("ariaCurrent") == "true"
    expected = store.similar_items(second, 20).ids
    assert results(page) == expected

    while focused("closest('#results')?.id") != "results":
        page.press("Tab")
        assert page.run("return document.activeElement !== document.body")
    page.press("Down", "Down", "Enter")
    page.wait("document.querySelector('#subject-kind .id').innerText === arguments[0]", expected[2])
    assert focused() == "subject-heading"
    assert results(page) == store.similar_items(expected[2], 20).ids
    assert focused() == "subject-heading"
    page.do("back", {})
    page.wait("document.querySelector('#subject-kind .id').innerText === arguments[0]", second)
    assert results(page) == expected


def test_everything_has_a_name(page: Browser) -> None:
    """For those who do not see it: every control, as the browser computes it; and news is announced."""
    controls = page.do("elements", {"using": "css selector", "value": "input, select, button, a, table, fieldset"})
    assert len(controls) > 50
    for control in controls:
        (element,) = control.values()
        if page.do(f"element/{element}/displayed"):
            assert page.do(f"element/{element}/computedlabel"), page.run("return arguments[0].outerHTML", control)
    assert page.run("return document.querySelector('#status').getAttribute('aria-live')") == "polite"
    assert re.fullmatch(r"20 items by cosine, best first, in \d+ ms\.", page.text("#status"))


def test_it_is_accessible(page: Browser, shop: Shop, address: str) -> None:
    """axe finds nothing in lists, with columns to choose from and a refused filter, nor in a map; light and dark."""
    save_any_map(shop.artifact, "user", ["segment"])
    for width, scheme in [(1280, "light"), (1280, "dark"), (390, "light")]:
        page.appearance(width=width, height=900, scheme=scheme)
        page.open(f"{address}#model=shop&entity=item&id=sku-3")
        page.do("refresh", {})
        page.wait("document.querySelector('#results tbody')")
        results(page)
        page.click("#columns summary")
        assert page.violations() == []
        page.run("document.querySelector('#filter').focus()")
        page.press("colour = 'red'", "Enter")
        page.wait("document.querySelector('#filter-error').innerText")
        assert page.violations() == []
        page.click("#view label:has([value=user])")
        page.wait("document.querySelector('.said')?.textContent.includes(' of ')")
        page.run("document.querySelector('.map canvas').focus()")
        page.press("/", "u-3", "Enter")
        page.wait("!document.querySelector('.near').hidden")
        assert page.violations() == []
    page.log()  # of the refusals, and of how Chromium draws without a graphics card


def test_it_fits_and_is_dark_for_those_who_like_it(page: Browser, tmp_path: Path) -> None:
    """Nothing is wider than the screen, whatever the ids; a picture of each is kept where one asks for it."""
    folder, grounds = Path(os.environ.get("FEAST_EMBEDDINGS_SCREENSHOTS", tmp_path)), set()
    look_at(page, HOSTILE[-1])
    results(page)
    for width in (320, 390, 768, 1280):
        for scheme in ("light", "dark"):
            page.appearance(width=width, height=900, scheme=scheme)
            assert page.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
            grounds.add(page.run("return getComputedStyle(document.body).backgroundColor"))
            page.screenshot(folder / f"page-{width}-{scheme}.png")
    assert len(grounds) == 2


def test_columns_are_chosen_and_saved(page: Browser, store: EmbeddingStore) -> None:
    """A column that is not wanted stays away, of items only; the file has what is shown, each value in full."""
    look_at(page, HOSTILE[0])
    expected = store.similar_items(HOSTILE[0], 20)
    shown = (
        "return [...new Set([...document.querySelectorAll('#results td')].map((e) => e.dataset.name))].filter(Boolean)"
    )
    results(page)
    every = page.run(shown)
    page.click("#columns summary")
    assert page.texts("#columns label") == every
    assert "<b>bold</b>" in every
    page.click("#columns label:nth-of-type(1)")
    assert page.run(shown) == every[1:]
    assert page.run("return document.activeElement.closest('#columns') !== null")
    page.do("refresh", {})
    page.wait("document.querySelector('#results tbody')")
    results(page)
    assert page.run(shown) == every[1:]

    rows = list(csv.reader(io.StringIO(page.saved("#download"), newline="")))
    assert rows[0] == ["item_id", "name", "score", *every[1:]]
    assert [row[0] for row in rows[1:]] == expected.ids
    assert [float(row[2]) for row in rows[1:]] == pytest.approx(expected.scores.tolist())
    bold = rows[0].index("<b>bold</b>")
    assert [row[bold] for row in rows[1:]] == [f"<i>{id}</i>" for id in expected.ids]

    page.click("#show label:has([value=audience])")
    page.wait("document.querySelector('#results thead').innerText.includes('User')")
    results(page)
    assert page.run("return document.querySelectorAll('#columns input:not(:checked)').length") == 0
    page.click("#show label:has([value=similar])")
    page.wait("document.querySelector('#results thead').innerText.includes('Item')")
    results(page)
    page.click("#columns summary")
    page.click("#columns label:nth-of-type(1)")
    assert page.run(shown) == every
    page.run("localStorage.setItem('feast-embeddings-columns', '{')")  # what another program may have left
    page.do("refresh", {})
    page.wait("document.querySelector('#results tbody')")
    assert page.run(shown) == every
    page.run("localStorage.clear()")


def test_long_values_take_few_lines(page: Browser) -> None:
    """A word of 300 letters, which its title has in full, does not make a row higher than others are."""
    long = HOSTILE[-1]
    look_at(page, "sku-3")
    page.click("#limit option:last-child")
    page.wait("document.querySelectorAll('#results tbody tr').length > 20")
    for width, id, part in [
        (390, "sku-3", "#results"),
        (1280, "sku-3", "#results"),
        (1280, long, "#subject-attributes"),
    ]:
        page.appearance(width=width, height=900, scheme="light")
        look_at(page, id)
        results(page)
        found = f"[...document.querySelectorAll('{part} .clamp')].find((e) => e.title.includes(arguments[0]))"
        assert page.run(f"return {found}.title", long) == f"<i>{long}</i>"
        lines = "parseFloat(getComputedStyle(e).lineHeight) * 3 + 1"
        assert page.run(f"const e = {found}; return e.clientHeight <= {lines} && e.scrollHeight > e.clientHeight", long)


def test_it_draws_the_saved_map(page: Browser, shop: Shop, store: EmbeddingStore, address: str) -> None:
    """Neighbours are the service's; search, lasso, legend and keys work on it, and it leads to the lists and back."""
    page.click("#view label:has([value=item])")
    page.wait("document.querySelector('#map-view .notice')")
    assert "run feast-embeddings map --entity item --save --model shop" in page.text("#map-view")
    page.log()  # of the 404
    drawn = save_any_map(shop.artifact, "item", ["<i>segment</i>"])
    ids = [str(id) for id in drawn.ids.to_pylist()]
    n = len(ids)
    for width, scheme in [(390, "light"), (1280, "dark"), (1280, "light")]:
        page.appearance(width=width, height=900, scheme=scheme)
        page.open(f"{address}#model=shop&entity=item&view=map")
        page.do("refresh", {})
        page.wait(f"document.querySelector('.said')?.textContent === '{n} of {n}'")
        assert page.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert page.text(".map h2") == f"{n} items of shop, version {shop.artifact.manifest.version}"
    assert page.texts(".names span") == ["<i>segment</i>"]
    assert [text.strip() for text in page.texts(".legend label")] == ["even", "odd"]
    assert page.texts(".coloring option") == ["parity", "segment"]
    assert not page.run("return document.querySelector('#results').checkVisibility()")

    page.run("document.querySelector('.map canvas').focus()")
    page.press("/", "sku-3\n"[:-1])
    page.wait("document.activeElement.className === 'search'")
    page.run("document.querySelector('.search').value = 'sku-12'; document.querySelector('.search').oninput()")
    assert page.text(".said") == f"1 of {n}"
    page.press("Enter")
    page.wait("!document.querySelector('.near').hidden")
    near = store.similar_items("sku-12", 10)
    found = page.run("return [...document.querySelectorAll('.near button:not(.open)')].map((each) => each.title)")
    assert found == ["sku-12", *near.ids]
    assert page.text(".near li:nth-child(2) button").endswith(f" {near.scores[0]:.3f}")
    page.click(".near li:nth-child(2) button")
    page.wait("document.querySelector('.near button').title === arguments[0]", near.ids[0])
    page.click(".near .open")
    assert results(page) == store.similar_items(near.ids[0], 20).ids
    assert not page.run("return document.querySelector('#map-view').checkVisibility()")
    page.do("back", {})
    page.wait(f"document.querySelector('.said')?.textContent === '{n} of {n}'")
    page.click(".legend label")
    page.wait(f"document.querySelector('.said').textContent === '{n // 2} of {n}'")
    page.click(".legend label")
    page.click(".select")
    assert page.run("return document.querySelector('.select').ariaPressed") == "true"
    box = page.run(
        "const b = document.querySelector('.map').getBoundingClientRect(); return [b.x, b.y, b.right, b.bottom]"
    )
    left, top, right, bottom = (round(value) + inward for value, inward in zip(box, (300, 20, -20, -20), strict=True))
    page.drag([(right, top), (right, bottom), (left, bottom), (left, (top + bottom) // 2), (right, top)])
    page.wait("!document.querySelector('.save').hidden")
    chosen = int(page.text(".said").split()[0])
    assert 0 < chosen < n
    saved = page.saved().splitlines()
    assert len(saved) == chosen + 1
    assert set(saved) <= {"item_id", *(f'"{id.replace(chr(34), chr(34) * 2)}"' for id in ids), *ids}
    # Others like those inside become the list.
    assert page.text(".audience button") == "Find items like these"
    inside = list(csv.reader(io.StringIO(page.saved())))[1:]
    page.run(
        "document.querySelector('.audience select').value = '10'; document.querySelector('.audience').requestSubmit()"
    )
    page.wait("!document.querySelector('.save-audience').hidden")
    like = store.similar_items(positive=[id for (id,) in inside], k=10)
    assert page.run("return [...document.querySelectorAll('.near button')].map((each) => each.title)") == like.ids
    header, *rows = csv.reader(io.StringIO(page.saved(".save-audience")))
    assert (header, [id for id, _ in rows]) == (["item_id", "score"], like.ids)
    assert [float(score) for _, score in rows] == pytest.approx(like.scores.tolist(), abs=1e-6)
    assert page.run("return document.querySelectorAll('main :is(img, script, b, u)').length") == 0
    # Without a graphics card, Chromium says that it draws by itself.
    assert [message for message in page.log() if "WebGL" not in message] == []


def test_users_within_a_line_make_an_audience(page: Browser, shop: Shop, store: EmbeddingStore, address: str) -> None:
    """Those most like them, without them, to download."""
    drawn = save_any_map(shop.artifact, "user")
    page.open(f"{address}#model=shop&entity=user&view=map")
    page.do("refresh", {})
    page.wait("document.querySelector('.said')?.textContent === '20 of 20'")
    assert page.run("return document.querySelector('.audience').hidden")
    page.click(".select")
    box = page.run(
        "const b = document.querySelector('.map').getBoundingClientRect(); return [b.x, b.y, b.right, b.bottom]"
    )
    left, top, right, bottom = (round(value) + inward for value, inward in zip(box, (300, 20, -20, -20), strict=True))
    middle = (left + right) // 2
    page.drag([(middle, top), (right, top), (right, bottom), (middle, bottom), (middle, top)])
    page.wait("!document.querySelector('.audience').hidden")
    inside = [id for (id,) in csv.reader(io.StringIO(page.saved()))][1:]
    assert 0 < len(inside) < len(drawn.ids)
    assert page.text(".audience button") == "Make an audience"
    page.click(".audience button")
    page.wait("!document.querySelector('.save-audience').hidden")
    found = store.lookalike_users(inside, 100)
    header, *rows = csv.reader(io.StringIO(page.saved(".save-audience")))
    assert (header, [id for id, _ in rows]) == (["user_id", "score"], found.ids)
    assert not {id for id, _ in rows} & set(inside)
    page.log()  # of how Chromium draws without a graphics card


def test_another_version_goes_live(page: Browser, shop: Shop, store: EmbeddingStore) -> None:
    """The next answer is of it, and the page says so. The last test: it publishes."""
    look_at(page, "sku-3")
    second = write_hostile(shop.repo.data, seed=1, as_of=AS_OF + timedelta(days=1))
    publish_any(shop.feature_store, second)
    look_at(page, "sku-4")
    assert results(page) == store.similar_items("sku-4", 20).ids
    page.wait("document.querySelector('#version').innerText.includes(arguments[0])", second.manifest.version)
    assert "Other versions (1)" in page.text("#version")

"""Maps: like vectors are near, an earlier map is kept, and the page shows any text as text, without a network."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.conftest import Command
from tests.support.browser import browsing
from tests.support.shop import Shop

from feast_embeddings.analysis.group_names import OTHER, group_names
from feast_embeddings.analysis.maps.page import drawn_map, map_page
from feast_embeddings.analysis.maps.places import places_of
from feast_embeddings.analysis.members import Members
from feast_embeddings.artifact.saved_map import Colouring
from feast_embeddings.query.store import EmbeddingStore

HOSTILE = "</script><img src=x onerror=\"document.title='run'\"><!--<script>"


def members_of(vectors: npt.NDArray[np.float64]) -> Members:
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    ids = pa.array([f"i{row:03}" for row in range(len(unit))])
    return Members("item", "item_id", ids, np.ones(len(unit), np.float32), unit, pa.table({"item_id": ids}), "v", "")


def test_an_earlier_map_is_kept(rng: np.random.Generator) -> None:
    """After a small change the points move far less than on a map that starts anew, and groups stay together."""
    labels = np.repeat(np.arange(4), 40)
    vectors = np.eye(8)[labels] * 3 + rng.normal(0, 0.5, (160, 8))
    first = places_of(members_of(vectors[:-5]))
    centres = np.array([first[labels[:-5] == label].mean(axis=0) for label in range(4)])
    nearest = np.linalg.norm(first[:, None] - centres, axis=2).argmin(axis=1)
    assert (nearest == labels[:-5]).all()

    changed = members_of(vectors + rng.normal(0, 0.05, vectors.shape))
    earlier = dict(zip(changed.ids.to_pylist(), map(tuple, first.tolist()), strict=False))
    kept, anew = places_of(changed, previous=earlier), places_of(changed)
    moves = [np.linalg.norm(places[:-5] - first, axis=1).mean() for places in (kept, anew)]
    assert moves[0] < moves[1] / 2
    # New points are with their group.
    assert (np.linalg.norm(kept[-5:, None] - centres, axis=2).argmin(axis=1) == 3).all()
    assert (places_of(changed, previous=earlier) == kept).all()


def test_groups() -> None:
    """All values, the most common first; or the first nineteen and the rest."""
    names, numbers = group_names(["b", None, "a", "b"])
    assert (names, numbers.tolist()) == (["b", "a", "none"], [0, 2, 1, 0])
    names, numbers = group_names([f"{n}" for n in [0, *range(25)]])
    assert (len(names), names[0], names[-1], numbers.tolist().count(19)) == (20, "0", OTHER, 6)


def test_groups_of_numbers_times_and_lists() -> None:
    """Ranges with as many rows each, months or years, and the value of each list that most rows have."""
    prices = np.random.default_rng(0).permutation(800) / 4
    names, numbers = group_names([*prices.tolist(), None])
    bounds = [tuple(map(float, name.split(" to "))) for name in names[:-1]]
    assert names[-1] == "none"
    assert bounds == [(25 * i, 25 * (i + 1) - 0.25) for i in range(8)]
    assert numbers.tolist() == [int(price // 25) for price in prices] + [8]
    assert group_names([5.0] * 30 + [float(n) for n in range(25)])[0][0].startswith("0 to")
    assert group_names([1, 2, True])[0] == ["1", "2", "True"]
    days = [datetime(2024 + n // 12, n % 12 + 1, 5, tzinfo=UTC) for n in range(4)]
    assert group_names([*reversed(days), None])[0] == ["2024-01", "2024-02", "2024-03", "2024-04", "none"]
    days = [datetime(2024 + n // 12, n % 12 + 1, 5, tzinfo=UTC) for n in range(30)]
    names, numbers = group_names(days)
    assert (names, numbers.tolist()) == (["2024", "2025", "2026"], [n // 12 for n in range(30)])
    names, numbers = group_names([["a", "b"], ["b"], [], None, ["c", "b"], ["c"]])
    assert (names, numbers.tolist()) == (["b", "none", "c"], [0, 0, 1, 1, 0, 2])


def test_the_command(command: Command, common_shop: Shop, tmp_path: Path) -> None:
    """Every live id has a place; the picture and the page are of the kind that their names say."""
    where = ("--entity", "item", "--repo", common_shop.repo.path)
    table, page, picture = (tmp_path / f"map.{ending}" for ending in ("parquet", "html", "png"))
    assert command("map", "--output", table, *where).code == 0
    written = pq.read_table(table)
    assert sorted(written["item_id"].to_pylist()) == sorted(f"sku-{i}" for i in range(40))
    assert np.isfinite(written["x"].to_numpy()).all()
    ran = command("map", "--output", page, "--color", "category", "--previous", table, "--json", *where)
    assert json.loads(ran.out)["rows"] == 40
    text = page.read_text()
    assert "Item 39" in text
    assert re.findall(r"(?:https?:)?//[\w.]+\.\w+", text) == []
    assert command("map", "--output", picture, "--color", "category", "--previous", table, *where).code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    for options, problem in [
        (("--color", "colour"), "items have no 'colour'; they have title, category"),
        (("--previous", page), "expected a .parquet file that map wrote"),
        (("--filter", "price < 2"), "a map needs at least 10 items"),
    ]:
        ran = command("map", "--output", tmp_path / "x.html", *options, *where)
        assert (ran.code, problem in ran.err) == (2, True), ran.err
        assert not (tmp_path / "x.html").exists()


def test_a_table_says_who_is_hidden(
    command: Command, common_shop: Shop, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Those who run the shop see all."""
    store, gone = EmbeddingStore(common_shop.feature_store, "shop"), ["sku-7", "sku-30", "sku-of-no-version"]
    store.hide(items=gone)
    request.addfinalizer(lambda: store.unhide(items=gone))
    table = tmp_path / "map.parquet"
    assert command("map", "--entity", "item", "--output", table, "--repo", common_shop.repo.path).code == 0
    rows = pq.read_table(table).to_pylist()
    assert len(rows) == 40
    assert {row["item_id"] for row in rows if row["hidden"]} == {"sku-7", "sku-30"}


def test_the_page_says_who_is_hidden(tmp_path: Path, rng: np.random.Generator) -> None:
    """Where one is pointed at."""
    members, groups = members_of(rng.normal(0, 1, (30, 3))), group_names(["all"] * 30)
    drawn = drawn_map(
        members, rng.normal(0, 1, (30, 2)), [f"Title {row}" for row in range(30)], [Colouring("group", *groups)]
    )
    page = tmp_path / "map.html"
    page.write_text(map_page(members, drawn, "Map of 30 items", drawn.rows_of({"i007", "i900"})))
    with browsing(tmp_path) as browser:
        browser.appearance(width=900, height=700, scheme="light")
        browser.open(page.as_uri())
        for row, told in [(7, "Title 7 (i007) – all, hidden"), (8, "Title 8 (i008) – all")]:
            # Enter brings what was found to the middle.
            browser.run(
                "const s = document.querySelector('.search'); s.value = arguments[0]; s.oninput(); s.focus()",
                f"i{row:03}",
            )
            browser.press("Enter")
            browser.wait("!document.querySelector('.near').hidden")
            browser.run(
                "const at = document.querySelector('canvas'), box = at.getBoundingClientRect();"
                "const middle = { clientX: box.left + box.width / 2, clientY: box.top + box.height / 2 };"
                "at.onpointermove({ pointerId: 1, ...middle })"
            )
            assert browser.text(".tip") == told


def test_the_page_is_accessible(tmp_path: Path, rng: np.random.Generator) -> None:
    """axe finds nothing, light and dark, wide and narrow, with neighbours listed."""
    members = members_of(rng.normal(0, 1, (30, 3)))
    numbers = np.arange(30) % 2
    titles, groups = [f"Title {row}" for row in range(30)], group_names([f"Group {number}" for number in numbers])
    segments = numbers + 1, {1: "first", 2: "second"}
    page = tmp_path / "map.html"
    drawn = drawn_map(members, rng.normal(0, 1, (30, 2)), titles, [Colouring("group", *groups)], segments)
    page.write_text(map_page(members, drawn, "Map of 30 items", []))
    with browsing(tmp_path) as browser:
        for width, scheme in [(1200, "light"), (380, "dark")]:
            browser.appearance(width=width, height=700, scheme=scheme)
            browser.open(page.as_uri())
            browser.wait("document.querySelector('.said').textContent === '30 of 30'")
            assert browser.violations() == []
            browser.press("/", "Title 7", "Enter")
            browser.wait("!document.querySelector('.near').hidden")
            assert browser.violations() == []
        # It would have found something.
        browser.run("const s = document.querySelector('.search'); s.removeAttribute('aria-label'); s.placeholder = '';")
        assert [found.split(":")[0] for found in browser.violations()] == ["label"]


def test_the_page_in_a_browser(tmp_path: Path, rng: np.random.Generator) -> None:
    """Text of the data is shown, never run; search, the legend and keys work; no error on the console."""
    labels = np.repeat(np.arange(3), 100)
    places = np.array([[0, 0], [6, 2], [2, 7]])[labels] + rng.normal(0, 1, (300, 2))
    titles = [HOSTILE if row == 7 else f"Title {row}" for row in range(300)]
    groups = group_names([HOSTILE if label == 2 else f"Group {label}" for label in labels])
    page = tmp_path / "map.html"
    members = members_of(np.eye(3)[labels] + rng.normal(0, 0.3, (300, 3)))
    segments = labels + 1, {1: HOSTILE, 2: "second", 3: "third"}
    page.write_text(
        map_page(
            members,
            drawn_map(members, places, titles, [Colouring("group", *groups)], segments),
            f"Map of {HOSTILE}",
            [],
        )
    )
    with browsing(tmp_path) as browser:
        for width, scheme in [(1200, "light"), (1200, "dark"), (380, "light")]:
            browser.appearance(width=width, height=700, scheme=scheme)
            browser.open(page.as_uri())
            browser.wait("document.querySelector('.said').textContent === '300 of 300'")
            browser.screenshot(tmp_path / f"{width}-{scheme}.png")
        browser.click("summary")
        assert browser.text("h1") == f"Map of {HOSTILE}"
        assert {text.strip() for text in browser.texts(".legend label")} == {"Group 0", "Group 1", HOSTILE}
        assert browser.texts(".names span") == [HOSTILE, "second", "third"]
        assert browser.run("return document.querySelectorAll('img').length") == 0
        browser.press("/", "onerror")
        browser.wait("document.querySelector('.said').textContent === '1 of 300'")
        browser.press("Enter")
        browser.wait("!document.querySelector('.near').hidden")
        scores = members.unit.astype(np.float64) @ members.unit[7]
        nearest = np.argsort(-np.delete(scores, 7), kind="stable")[:10]
        expected = [row + (row >= 7) for row in nearest.tolist()]
        found = browser.run("return [...document.querySelectorAll('.near button')].map((each) => each.title)")
        assert found == [str(members.ids[row].as_py()) for row in [7, *expected]]
        assert browser.text(".said") == "11 of 300"
        assert browser.saved().splitlines() == [
            "item_id",
            *(str(members.ids[row].as_py()) for row in sorted([7, *expected])),
        ]
        browser.run("document.querySelector('.search').value = ''; document.querySelector('.search').oninput()")
        browser.click(".legend label")
        browser.wait("document.querySelector('.said').textContent === '200 of 300'")
        browser.click(".legend label")
        browser.click(".select")
        browser.press("0")
        browser.drag([(0, 0), (379, 0), (379, 699), (0, 699), (0, 0)])
        browser.wait("document.querySelector('.said').textContent === '300 of 300'")
        assert len(browser.saved().splitlines()) == 301
        assert browser.run("return document.title") == f"Map of {HOSTILE}"
        # Without a graphics card, Chromium says that it draws by itself.
        assert [message for message in browser.log() if "WebGL" not in message] == []

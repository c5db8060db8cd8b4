"""The map as a page on a phone, in the dark, and by keyboard: what a browser makes of it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
from tests.support.browser import Browser, browsing

from feast_embeddings.analysis.group_names import group_names
from feast_embeddings.analysis.maps.page import drawn_map, map_page
from feast_embeddings.analysis.members import Members
from feast_embeddings.artifact.saved_map import Colouring

# Rows of five, ten apart.
PLACES = np.array([(10.0 * (row % 5), 10.0 * (row // 5)) for row in range(20)])


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A map of 20 items in 20 groups."""
    unit = np.eye(20, dtype=np.float32)
    ids = pa.array([f"i{row:02}" for row in range(20)])
    members = Members("item", "item_id", ids, np.ones(20, np.float32), unit, pa.table({"item_id": ids}), "v", "")
    groups, numbers = group_names([f"group {row:02}" for row in range(20)])
    colourings = [
        Colouring("group", groups, numbers),
        Colouring("half", ["first", "<b>second</b>"], np.arange(20, dtype=np.uint8) // 10),
    ]
    drawn = drawn_map(members, PLACES, [f"Title {row}" for row in range(20)], colourings)
    page = tmp_path_factory.mktemp("page") / "map.html"
    page.write_text(map_page(members, drawn, "Map of 20 items", []))
    return page.as_uri()


def look(browser: Browser, address: str, *, width: int = 900, height: int = 700, scheme: str = "light") -> None:
    browser.appearance(width=width, height=height, scheme=scheme)
    browser.open(address)
    browser.wait("document.querySelector('.said').textContent === '20 of 20'")


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """As WCAG 2.2 defines it, of colours from 0 to 255."""

    def luminance(colour: tuple[float, ...]) -> float:
        parts = np.array(colour) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def rgb(text: str) -> tuple[float, ...]:
    return tuple(map(float, re.findall(r"[\d.]+", text)[:3]))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_dot_stands_out(browser: Browser, address: str, scheme: str) -> None:
    """A contrast of 3 at least with the ground, of the legend and of the middle of each dot as it is drawn."""
    look(browser, address, scheme=scheme)
    style = "getComputedStyle(document.querySelector(arguments[0])).backgroundColor"
    ground = rgb(browser.run(f"return {style}", ".map"))
    legend = browser.run(
        "return [...document.querySelectorAll('.legend i')].map((e) => getComputedStyle(e).backgroundColor)"
    )
    assert len(set(legend)) == 20
    assert min(contrast(rgb(colour), ground) for colour in legend) >= 3
    browser.run(
        "const map = document.querySelector('.map canvas'), flat = window.flat = document.createElement('canvas');"
        "[flat.width, flat.height] = [map.width, map.height];"
        "const to = flat.getContext('2d'); to.fillStyle = getComputedStyle(map.parentElement).backgroundColor;"
        "to.fillRect(0, 0, flat.width, flat.height); to.drawImage(map, 0, 0)"
    )
    middle, unit = (PLACES.max(axis=0) + PLACES.min(axis=0)) / 2, PLACES.max() / 1.9
    for x, y in (PLACES - middle) / unit * (350, -350) + (450, 350):
        drawn = browser.run("return [...flat.getContext('2d').getImageData(...arguments[0], 1, 1).data]", [x, y])
        assert contrast(tuple(drawn[:3]), ground) >= 3


def test_the_scheme_may_change(browser: Browser, address: str) -> None:
    """While the page is open."""
    look(browser, address)
    first = "getComputedStyle(document.querySelector('.legend i')).backgroundColor"
    light = browser.run(f"return {first}")
    browser.appearance(width=900, height=700, scheme="dark")
    browser.wait(f"{first} !== arguments[0]", light)


def test_a_phone_shows_the_map_first(browser: Browser, address: str) -> None:
    """The panel is a bar at the bottom until it is opened, and then leaves half of the map to be touched."""
    look(browser, address, width=390, height=700)
    covered = "document.querySelector('.panel').getBoundingClientRect().height / innerHeight"
    assert browser.run(f"return {covered}") < 0.15
    assert browser.run("return document.elementFromPoint(195, 100).tagName") == "CANVAS"
    browser.click("summary")
    browser.wait("document.querySelector('.search').checkVisibility()")
    assert 0.3 < browser.run(f"return {covered}") <= 0.51
    assert browser.run("return document.documentElement.scrollWidth") == 390
    browser.click("summary")
    assert browser.run(f"return {covered}") < 0.15
    browser.run("document.querySelector('canvas').focus()")
    browser.press("/")  # opens it
    browser.wait("document.activeElement.className === 'search'")


def test_a_finger_taps_and_drags(browser: Browser, address: str) -> None:
    """A tap asks for the neighbours; a drag moves the map."""
    look(browser, address, width=390, height=700)
    finger = {"type": "pointer", "id": "finger", "parameters": {"pointerType": "touch"}}
    down, up = {"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}

    def touch(*steps: dict[str, object]) -> None:
        browser.do("actions", {"actions": [{**finger, "actions": list(steps)}]})

    def to(x: int, y: int) -> dict[str, object]:
        return {"type": "pointerMove", "duration": 20, "x": x, "y": y}

    touch(to(195, 350), down, to(195 + 97, 350), up)  # a step of the grid is 0.475 × 195 pixels
    assert browser.text(".said") == "20 of 20"
    touch(to(195, 350 + 46), down, up)
    browser.wait("document.querySelector('.said').textContent === '11 of 20'")
    assert browser.run("return document.querySelector('.near button').title") == "i06"


def test_dots_are_reached_by_keyboard(browser: Browser, address: str) -> None:
    """Shift and arrows go to the nearest dot there, n and p in order; each is ringed, told and announced."""
    look(browser, address)
    browser.run("document.querySelector('canvas').focus()")
    assert browser.run("return document.querySelector('.audience')") is None  # that needs a service
    assert "Shift and an arrow" in browser.run("return document.getElementById('map-help').textContent")

    def step(key: str, *, shift: bool = False) -> str:
        browser.run(
            "document.activeElement.dispatchEvent(new KeyboardEvent('keydown', "
            "{ key: arguments[0], shiftKey: arguments[1], bubbles: true, cancelable: true }))",
            key,
            shift,
        )
        told = browser.text(".spoken")
        assert (browser.text(".tip") == told) if told else browser.run("return document.querySelector('.tip').hidden")
        return told

    walk = [step(f"Arrow{way}", shift=True) for way in ("Up", "Right", "Down", "Left", "Left", "Up")]
    # The first is the one nearest to the middle.
    assert walk == [f"Title {row} (i{row:02}) – group {row:02}" for row in (7, 8, 3, 2, 1, 6)]
    assert browser.run("return document.querySelector('.spoken').role") == "status"  # announced, politely
    # The ring is around the dot: a step of the grid is 0.475 of half of the map's height.
    box = browser.wait(
        "(() => { const b = document.querySelector('.ring').getBoundingClientRect();"
        "const at = [b.x + b.width / 2, b.y + b.height / 2]; return Math.abs(at[0] - 283.75) < 2 && at })()"
    )
    assert box[1] == pytest.approx(350 + 0.475 * 350 / 2, abs=2)
    assert [step(key) for key in "nnp"] == [f"Title {row} (i{row:02}) – group {row:02}" for row in (7, 8, 7)]
    step("Enter")
    browser.wait("document.querySelector('.said').textContent === '11 of 20'")
    near = browser.run("return [...document.querySelectorAll('.near button')].map((each) => each.title)")
    assert near[0] == "i07"
    found = [step("n") for _ in range(11)]  # now among the neighbours alone
    assert {text.split("(")[1].split(")")[0] for text in found} == set(near)
    assert step("Escape") == ""
    assert browser.run("return document.querySelector('.ring').hidden")
    # A dot that is out of view comes into it.
    for key in "++++++":
        step(key)
    step("ArrowUp", shift=True)
    browser.press("Escape")
    for _ in range(8):
        step("p")
    inside = "const b = document.querySelector('.ring').getBoundingClientRect(); return b.x > 0 && b.y > 0"
    browser.wait("document.querySelector('.ring').style.transform")
    assert browser.run(f"{inside} && b.right < innerWidth && b.bottom < innerHeight")


def test_it_is_accessible_with_a_dot_in_focus(browser: Browser, address: str) -> None:
    """axe finds nothing, in light and dark, wide and narrow."""
    for width, scheme in [(900, "light"), (390, "dark")]:
        look(browser, address, width=width, scheme=scheme)
        browser.run("document.querySelector('canvas').focus()")
        browser.press("n")
        browser.wait("!document.querySelector('.ring').hidden")
        assert browser.violations() == []


def test_the_colours_may_be_of_something_else(browser: Browser, address: str) -> None:
    """The legend, what is shown and the tooltip follow; a group that was hidden is shown again."""
    look(browser, address)
    assert browser.texts(".coloring option") == ["group", "half"]
    browser.click(".legend label")
    browser.wait("document.querySelector('.said').textContent === '19 of 20'")
    choose = (
        "const s = document.querySelector('.coloring'); s.value = arguments[0]; s.dispatchEvent(new Event('change'))"
    )
    browser.run(choose, "half")
    assert browser.text(".said") == "20 of 20"
    assert [text.strip() for text in browser.texts(".legend label")] == ["first", "<b>second</b>"]
    browser.run("document.querySelector('canvas').focus()")
    browser.press("pp")  # the last but one
    assert browser.text(".tip") == "Title 18 (i18) – <b>second</b>"
    browser.click(".legend label")
    assert browser.text(".said") == "10 of 20"
    pixel = (
        "(() => { const c = document.querySelector('.map canvas'), gl = c.getContext('webgl'), at = new Uint8Array(4);"
        "gl.readPixels(c.width / 2, c.height / 2 - 0.475 * 350 / 2, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, at);"
        "return at[3] })()"
    )
    browser.wait(f"{pixel} === 0")  # row 7 is of the first half, below the middle
    browser.run(choose, "group")
    browser.wait(f"{pixel} > 0")

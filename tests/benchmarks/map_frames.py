"""How smoothly a map moves: frames a second and time of script a frame, in a headless Chromium.

    python -m tests.benchmarks.map_frames --points 100000 --seconds 5

The points are random, in 20 groups, on the page that `feast-embeddings map` writes. The mouse drags the map, then the
wheel zooms it, by DevTools' own input events, sent as fast as the page takes them. A frame is one drawn by the map; its
script is what runs from requestAnimationFrame's call to the map's return, and all script comes from DevTools' metrics.
Without a graphics card Chromium draws WebGL by software, on the processor: the renderer is printed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from tests.support.browser import Browser, browsing

from feast_embeddings.analysis.maps.page import drawn_map, map_page
from feast_embeddings.analysis.members import Members
from feast_embeddings.artifact.saved_map import Colouring

WIDTH, HEIGHT = 1280, 900
DIM = 16
# Counts the frames that the map asks for, and the time that it takes to draw each.
COUNT = """
const real = window.requestAnimationFrame.bind(window);
window.frames_ = { n: 0, ms: 0 };
window.requestAnimationFrame = (draw) => real((now) => {
  const from = performance.now(); draw(now); window.frames_.n += 1; window.frames_.ms += performance.now() - from;
});
"""


def page_of(n: int, path: Path) -> float:
    """Write the page; its size in MiB."""
    rng = np.random.default_rng(0)
    unit = rng.normal(0, 1, (n, DIM)).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    ids = pa.array([f"item-{i}" for i in range(n)])
    members = Members("item", "item_id", ids, np.ones(n, np.float32), unit, pa.table({"item_id": ids}), "v", "")
    groups = rng.integers(0, 20, n, np.uint8)
    places = rng.normal(0, 1, (20, 2))[groups] * 20 + rng.normal(0, 3, (n, 2))
    colouring = Colouring("group", [f"group {i}" for i in range(20)], groups)
    drawn = drawn_map(members, places, [f"Title of item {i}" for i in range(n)], [colouring])
    path.write_text(map_page(members, drawn, f"{n} points", []))
    return path.stat().st_size / 2**20


def send(browser: Browser, kind: str, x: float, y: float, **more: object) -> None:
    browser.do(
        "goog/cdp/execute", {"cmd": "Input.dispatchMouseEvent", "params": {"type": kind, "x": x, "y": y, **more}}
    )


def script_seconds(browser: Browser) -> float:
    found = browser.do("goog/cdp/execute", {"cmd": "Performance.getMetrics", "params": {}})["metrics"]
    return float(next(each["value"] for each in found if each["name"] == "ScriptDuration"))


def measure(browser: Browser, name: str, seconds: float) -> dict[str, object]:
    """Move the map for some seconds."""
    middle = WIDTH / 2 + 100, HEIGHT / 2
    browser.run("window.frames_ = { n: 0, ms: 0 }")
    script, start, step = script_seconds(browser), time.perf_counter(), 0
    if name == "pan":
        send(browser, "mousePressed", *middle, button="left", buttons=1, clickCount=1)
    while time.perf_counter() - start < seconds:
        step += 1
        if name == "pan":
            at = middle[0] + 200 * np.sin(step / 20), middle[1] + 200 * np.cos(step / 20)
            send(browser, "mouseMoved", *map(float, at), button="left", buttons=1)
        else:
            send(browser, "mouseWheel", *middle, deltaX=0, deltaY=-30 if step // 60 % 2 == 0 else 30)
    spent = time.perf_counter() - start
    if name == "pan":
        send(browser, "mouseReleased", *middle, button="left", clickCount=1)
    count = browser.run("return window.frames_")
    n = max(1, count["n"])
    return {
        "moved by": name,
        "events a second": round(step / spent),
        "frames a second": round(count["n"] / spent, 1),
        "ms of drawing a frame": round(count["ms"] / n, 2),
        "ms of all script a frame": round(1000 * (script_seconds(browser) - script) / n, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, browsing(Path(folder)) as browser:
        page = Path(folder, "map.html")
        print(f"{options.points:,} points, {page_of(options.points, page):.1f} MiB of page")
        browser.do("goog/cdp/execute", {"cmd": "Performance.enable", "params": {}})
        browser.do("goog/cdp/execute", {"cmd": "Page.addScriptToEvaluateOnNewDocument", "params": {"source": COUNT}})
        browser.appearance(width=WIDTH, height=HEIGHT, scheme="light")
        start = time.perf_counter()
        browser.open(page.as_uri())
        browser.wait("document.querySelector('.said')?.textContent.includes(' of ')")
        print(f"opened in {time.perf_counter() - start:.1f} s")
        renderer = browser.run(
            "const gl = document.createElement('canvas').getContext('webgl');"
            "const more = gl.getExtension('WEBGL_debug_renderer_info');"
            "return gl.getParameter(more ? more.UNMASKED_RENDERER_WEBGL : gl.RENDERER)"
        )
        print(f"WebGL by {renderer}")
        for name in ("pan", "zoom"):
            print(json.dumps(measure(browser, name, options.seconds)))


if __name__ == "__main__":
    main()

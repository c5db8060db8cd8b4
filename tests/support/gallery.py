"""Take the pictures of docs/gallery.md: run its commands, and look at what they make in a headless Chromium.

``python -m tests.support.gallery`` takes about two minutes; it needs chromium and chromedriver on the PATH.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from configs.site.examples import BLOCK
from PIL import Image
from tests.conftest import ROOT
from tests.support.browser import Browser, browsing

__all__ = ["PAGE", "PICTURES", "pictures_of"]

PAGE = ROOT / "docs" / "gallery.md"
PICTURES = ROOT / "docs" / "gallery"

_PROGRAM = Path(sys.executable).with_name("feast-embeddings")
_WIDEST = 1280


def pictures_of(page: str) -> list[str]:
    """Return the names of the pictures that a page shows."""
    return re.findall(r"!\[[^\]]*\]\(gallery/([^)]+)\.webp\)", page)


def commands() -> list[list[str]]:
    """Return the command lines of the page, in order."""
    lines = [line for block in BLOCK.finditer(PAGE.read_text()) for line in block["code"].splitlines()]
    return [[str(_PROGRAM), *shlex.split(line)[1:]] for line in lines]


@contextmanager
def served(command: list[str], folder: Path) -> Iterator[str]:
    """Run ``serve`` at a free port; yield where it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    service = subprocess.Popen([*command, "--port", str(port), "--no-access-log"], cwd=folder)
    try:
        address = f"http://127.0.0.1:{port}/"
        deadline = time.monotonic() + 120
        while not _answers(address):
            assert service.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield address
    finally:
        service.terminate()
        service.wait(60)


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}healthz").is_success
    except httpx.TransportError:
        return False


def take(browser: Browser, folder: Path, address: str) -> None:
    """Take the pictures of the file with the map, and of the page of the service."""
    drawn = "document.querySelector('.said')?.textContent === '500 of 500'"
    listed = "document.querySelectorAll('#results .why').length && !document.querySelector('#tools').hidden"

    def picture(name: str, *, width: int = _WIDEST, height: int = 800, scheme: str = "light") -> None:
        browser.appearance(width=width, height=height, scheme=scheme)
        browser.run("return new Promise((done) => setTimeout(done, 800))")  # until the last frame is drawn
        browser.screenshot(folder / f"{name}.png")

    def look(where: str, until: str) -> None:
        browser.open("about:blank")
        browser.open(where)
        browser.wait(until)

    browser.appearance(width=_WIDEST, height=800, scheme="light")
    look((folder / "map.html").as_uri(), drawn)
    picture("map")
    look(f"{address}#model=shop&entity=item&view=map", drawn)
    picture("page-map-dark", scheme="dark")
    browser.appearance(width=_WIDEST, height=800, scheme="light")
    browser.run("document.querySelector('.map canvas').focus()")
    browser.press("/", "sku-1", "Enter")
    browser.wait("!document.querySelector('.near').hidden")
    browser.run("document.querySelector('.map canvas').focus()")
    browser.press("0")
    picture("page-map-light")
    for _ in range(2):  # the second answer does not wait for what a process does once
        look(f"{address}#model=shop&entity=user&id=u-7&limit=10", listed)
    picture("page-ranking", height=1000)
    picture("page-phone", width=390, height=1400)


def main() -> None:
    """Write every picture of the page."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        serving: list[str] = []
        for command in commands():
            if command[1] == "serve":
                serving = command
                continue
            print(shlex.join(command[1:]), flush=True)
            subprocess.run(
                command, cwd=folder, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "NO_COLOR": "1"}
            )
        try:
            with served(serving, folder) as address, browsing(folder) as browser:
                take(browser, folder, address)
        except pytest.skip.Exception as missing:
            sys.exit(str(missing))
        PICTURES.mkdir(exist_ok=True)
        for name in pictures_of(PAGE.read_text()):
            with Image.open(folder / f"{name}.png") as picture:
                picture.thumbnail((_WIDEST, 4 * _WIDEST))
                target = PICTURES / f"{name}.webp"
                picture.convert("RGB").save(target, quality=80, method=6)
                print(f"{target.relative_to(ROOT)}: {target.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()

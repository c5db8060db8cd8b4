"""A headless Chromium, driven over chromedriver's protocol (W3C WebDriver): a few requests, so no library for it."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

__all__ = ["Browser", "browsing"]

TIMEOUT = 30
# What these keys are in the protocol.
KEYS = {"Tab": "\ue004", "Enter": "\ue007", "Left": "\ue012", "Up": "\ue013", "Right": "\ue014", "Down": "\ue015"}
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class Browser:
    """One tab."""

    def __init__(self, http: httpx.Client, session: str) -> None:
        self._http, self._session = http, session

    def do(self, command: str, body: dict[str, Any] | None = None) -> Any:
        """A command of the protocol: a POST with a body, else a GET."""
        path = f"/session/{self._session}/{command}"
        answer = self._http.get(path) if body is None else self._http.post(path, json=body)
        found = answer.json()["value"]
        assert answer.is_success, found
        return found

    def open(self, address: str) -> None:
        self.do("url", {"url": address})

    def run(self, script: str, *arguments: Any) -> Any:
        """The value of a JavaScript function's body."""
        return self.do("execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, condition: str, *arguments: Any) -> Any:
        """The value of a JavaScript expression, once it is true."""
        deadline = time.monotonic() + TIMEOUT
        while not (value := self.run(f"return {condition}", *arguments)):
            assert time.monotonic() < deadline, f"{condition}\n{self.run('return document.body.innerText')}"
            time.sleep(0.02)
        return value

    def press(self, *keys: str) -> None:
        """Press keys, one after the other, wherever the focus is; text is typed."""
        pressed = [KEYS.get(key) or key for key in keys]
        characters = [character for key in pressed for character in (key if len(key) > 1 else [key])]
        actions = [{"type": kind, "value": character} for character in characters for kind in ("keyDown", "keyUp")]
        self.do("actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def click(self, selector: str) -> None:
        found = self.do("element", {"using": "css selector", "value": selector})
        self.do(f"element/{found[_ELEMENT]}/click", {})

    def drag(self, corners: list[tuple[int, int]]) -> None:
        """Move the mouse along these, with its button down."""
        first, *others = ({"type": "pointerMove", "duration": 20, "x": x, "y": y} for x, y in corners)
        steps = [first, {"type": "pointerDown", "button": 0}, *others, {"type": "pointerUp", "button": 0}]
        mouse = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": steps}
        self.do("actions", {"actions": [mouse]})

    def saved(self, button: str = ".save") -> str:
        """The file that a button offers to download."""
        self.run(
            "window.saved = null; URL.createObjectURL = (blob) => { "
            "blob.text().then((text) => { window.saved = text; }); return '#'; };"
            "document.querySelector(arguments[0]).click();",
            button,
        )
        return str(self.wait("window.saved"))

    def text(self, selector: str) -> str:
        return str(self.run("return document.querySelector(arguments[0]).innerText", selector))

    def texts(self, selector: str) -> list[str]:
        found = self.run("return [...document.querySelectorAll(arguments[0])].map((e) => e.innerText)", selector)
        return [str(text) for text in found]

    def violations(self) -> list[str]:
        """What axe-core finds wrong with the page as it is now: the rule, and the element; skips without its file."""
        if not (path := os.environ.get("FEAST_EMBEDDINGS_AXE")):
            pytest.skip("FEAST_EMBEDDINGS_AXE does not name axe-core's axe.min.js")
        self.run(Path(path).read_text())
        found = self.do(
            "execute/async",
            {
                "args": [],
                "script": "axe.run().then(arguments[0], (error) => arguments[0]({ failed: String(error) }));",
            },
        )
        assert "failed" not in found, found
        return [f"{rule['id']}: {node['html'][:200]}" for rule in found["violations"] for node in rule["nodes"]]

    def log(self) -> list[str]:
        """Messages of the console since the last call: errors, and what the Content-Security-Policy refused."""
        return [entry["message"] for entry in self.do("se/log", {"type": "browser"})]

    def appearance(self, *, width: int, height: int, scheme: str) -> None:
        """Size of the page in pixels, and whether the user likes it ``light`` or ``dark``."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        for name, parameters in [
            ("Emulation.setDeviceMetricsOverride", metrics),
            ("Emulation.setEmulatedMedia", {"features": features}),
        ]:
            self.do("goog/cdp/execute", {"cmd": name, "params": parameters})

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.do("screenshot")))


@contextmanager
def browsing(folder: Path) -> Iterator[Browser]:
    """A browser with a fresh profile; skips where there is none."""
    driver, chromium = shutil.which("chromedriver"), shutil.which("chromium") or shutil.which("google-chrome")
    if driver is None or chromium is None:
        pytest.skip("no chromium and chromedriver on the PATH")
    log = folder / "chromedriver.log"
    with log.open("w") as output:
        process = subprocess.Popen([driver, "--port=0"], stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + TIMEOUT
        while not (started := re.search(r"started successfully on port (\d+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-dev-shm-usage",
            f"--user-data-dir={folder / 'profile'}",
        ]
        capabilities = {
            "browserName": "chrome",
            "goog:chromeOptions": {"binary": chromium, "args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        with httpx.Client(base_url=f"http://127.0.0.1:{started[1]}", timeout=TIMEOUT) as http:
            made = http.post("/session", json={"capabilities": {"alwaysMatch": capabilities}}).json()["value"]
            assert "sessionId" in made, json.dumps(made)
            try:
                yield Browser(http, made["sessionId"])
            finally:
                http.delete(f"/session/{made['sessionId']}")
    finally:
        process.terminate()
        process.wait(TIMEOUT)

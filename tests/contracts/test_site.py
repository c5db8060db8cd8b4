"""The site of `make docs`: its links lead somewhere, and it loads nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click import Context
from configs.site.examples import examples_in
from tests.conftest import ROOT
from tests.support.browser import browsing

import feast_embeddings.reading
import feast_embeddings.service
from feast_embeddings.cli import main

pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install --group docs")

# What a browser loads by itself; to follow an <a href> is the reader's decision.
LOADING = {
    ("link", "href"), ("script", "src"), ("img", "src"), ("img", "srcset"), ("source", "src"), ("source", "srcset"),
    ("iframe", "src"), ("embed", "src"), ("object", "data"), ("video", "src"), ("audio", "src"), ("use", "href"),
}  # fmt: skip


class Seen(HTMLParser):
    """What a page loads, what it shows, and the anchors on it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.text = ""
        self.classes: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [value for name, value in attrs if value and (tag, name) in LOADING]
        self.loaded += re.findall(r"url\(([^)]*)\)", dict(attrs).get("style") or "")
        self.classes |= set((dict(attrs).get("class") or "").split())

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    command = [
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--config-file",
        "configs/site/mkdocs.yml",
        "--site-dir",
        str(folder),
    ]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        [sys.executable, *command, "--site-dir", str(folder)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Seen]:
    """Its pages by their path."""
    return {page.relative_to(site).as_posix(): Seen(page.read_text()) for page in site.rglob("*.html")}


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[str, Seen]) -> None:
    """No script, font, style or image of another host: neither of a page, nor of a style sheet."""
    for name, page in pages.items():
        assert page.loaded, name
        assert [address for address in page.loaded if re.match(r"(\w+:)?//", address)] == [], name
        # The theme's program would fetch a library for these.
        assert not page.classes & {"mermaid", "katex", "arithmatex"}, name
    sheets = list(site.rglob("*.css"))
    assert sheets
    for sheet in sheets:
        found = re.findall(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')]*)""", sheet.read_text())
        assert found == [], sheet


def test_every_page_is_there(pages: dict[str, Seen]) -> None:
    """Those of docs/, those of the root, and the notebooks."""
    docs = {path.relative_to(ROOT / "docs") for pattern in ("*.md", "*/*.md") for path in (ROOT / "docs").glob(pattern)}
    expected = {"index.html", "contributing.html", "changelog.html"}
    expected |= {str(path.with_suffix(".html")).replace("README", "index") for path in docs}
    expected |= {f"notebooks/{path.stem}.html" for path in (ROOT / "docs/notebooks").glob("*.ipynb")}
    assert expected <= pages.keys()


def test_comments_do_not_show(pages: dict[str, Seen]) -> None:
    """The reasons why tests do not run a block are for tests."""
    assert [name for name, page in pages.items() if re.search(r"not run: |<!--", page.text)] == []


def test_references_have_every_name(pages: dict[str, Seen]) -> None:
    """Commands with their options, and the public names with what they say of themselves."""
    commands = pages["reference/commands.html"].text
    context = Context(main)
    for name in main.list_commands(context):
        assert f"Usage: feast-embeddings {name} " in commands
    assert "--diversity" in commands
    for examples in examples_in([ROOT / "README.md", *(ROOT / "docs").glob("*.md")]).values():
        assert all(example.output.strip() in commands for example in examples)
    python = pages["reference/feast_embeddings.html"].text
    for name in feast_embeddings.__all__:
        said = (getattr(feast_embeddings, name).__doc__ or "").partition("\n")[0].partition("`")[0].strip()
        assert said, name
        assert said in python, name
    assert "TrainerTests" in pages["reference/embedding_trainers.html"].text
    assert "write_artifact" in pages["reference/feast_embeddings.artifact.html"].text


def test_references_say_what_may_change(pages: dict[str, Seen]) -> None:
    """Each name that is provisional is there, with its tag."""
    for page, names in {
        "feast_embeddings": ["RoutedOnlineStore", "RoutedOnlineStoreConfig"],
        "feast_embeddings.engines": ["Engine", "EngineTests"],
        "feast_embeddings.reading": feast_embeddings.reading.__all__,
        "feast_embeddings.service": feast_embeddings.service.__all__,
        "embedding_trainers": ["Encoder", "EncoderTests"],
    }.items():
        text = pages[f"reference/{page}.html"].text
        assert "Stability: provisional" in text, page
        assert [name for name in names if not re.search(rf"\b{name}\b", text)] == [], page


def test_the_rooms_are_a_table(pages: dict[str, Seen]) -> None:
    """Without the source of the diagram; a row for each room, and its arrows."""
    text = pages["architecture.html"].text
    assert "flowchart" not in text
    assert re.search(r"0\s+errors\s", text)
    assert re.search(r"query\s+changes, offline\s", text)


def test_search_works_from_files(site: Path, tmp_path: Path) -> None:
    """Without a server: a browser that opens a file finds a page by its words, and complains of nothing."""
    with browsing(tmp_path) as browser:
        browser.open((site / "howto" / "add-an-engine.html").as_uri())
        browser.wait("document.querySelector('[data-md-component=search-query]') !== null")
        browser.run("document.querySelector('[data-md-component=search-query]').focus()")
        browser.press("quantization")
        found = browser.wait("[...document.querySelectorAll('.md-search-result__link')].map((link) => link.href)")
        assert any(link.startswith(site.as_uri()) for link in found)
        assert browser.log() == []

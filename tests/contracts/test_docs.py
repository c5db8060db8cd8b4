"""Commands and programs of the README and of docs/ work as pasted, in the order in which they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from configs.site.examples import BLOCK, examples_in
from tests.conftest import ROOT
from tests.contracts.pages import DOCS, HALVES, README, alike, run_pages


def test_the_first_half_works_as_pasted(tmp_path: Path) -> None:
    """The README, and the pages before live.md; the others are in test_docs_second_half."""
    run_pages(HALVES[0], tmp_path)


def test_outputs_are_compared() -> None:
    """Words count, and how many lines; numbers, times, ids and the width of columns do not."""
    printed = "sku-1  0.94  Red Hat\nas of 2026-10-31T23:58:28+00:00, +3.5%"
    assert alike(printed) == alike("sku-200 -0.1 Red Hat\nas of 2027-01-02T00:00:00+00:00, -1%\n")
    for other in (printed.replace("Red", "Blue"), printed.replace("as of", "as"), printed + "\nmore", "", "0.94"):
        assert alike(printed) != alike(other)


def test_main_commands_have_an_example() -> None:
    """What they print stands on a page, once: right after the block of code that prints it."""
    examples = examples_in([README, *DOCS])
    assert {"similar-items", "rank", "list", "inspect", "segments", "explain", "doctor"} <= examples.keys()
    outputs = sum(page.read_text().count("```text\n") for page in (README, *DOCS))
    assert outputs == sum(len(some) for some in examples.values())
    run = [block for page in (README, *DOCS) for block in BLOCK.finditer(page.read_text()) if block["output"]]
    assert all(block["why"] is None for block in run)


def test_every_command_is_in_the_readme() -> None:
    """A command that exists is documented."""
    from click import Context

    from feast_embeddings.cli import main

    text = (ROOT / "README.md").read_text()
    missing = [name for name in main.list_commands(Context(main)) if name not in text]
    assert missing == []


def test_every_setting_is_in_the_readme() -> None:
    """A setting of the online store is documented with its default."""
    from feast_embeddings import QdrantEmbeddingOnlineStoreConfig

    text = (ROOT / "README.md").read_text()
    for name, field in QdrantEmbeddingOnlineStoreConfig.model_fields.items():
        # Feast's own mixin has it; our store honours it by being a vector store always.
        if name != "vector_enabled":
            assert f"| `{name}` |" in text, name
            if isinstance(field.default, float | int) and not isinstance(field.default, bool):
                assert f"| `{name}` | `{field.default:g}` |" in text


@pytest.mark.parametrize("page", [*[README, *DOCS], ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_links_within_the_project_lead_somewhere(page: Path) -> None:
    """Relative links point to files that exist."""
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []

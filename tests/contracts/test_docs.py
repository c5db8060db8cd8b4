"""Commands and programs of the README and of docs/ work as pasted, in the order in which they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.conftest import ROOT
from tests.contracts.pages import DOCS, HALVES, README, run_pages


def test_the_first_half_works_as_pasted(tmp_path: Path) -> None:
    """The README, and the pages before live.md; the others are in test_docs_second_half."""
    run_pages(HALVES[0], tmp_path)


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

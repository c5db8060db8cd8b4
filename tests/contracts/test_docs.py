"""Commands and programs of the README and of docs/ work as pasted, in the order in which they stand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import ROOT

_BLOCK = re.compile(r"(?:<!-- (?P<why>not run: [^>]+) -->\n)?```(?P<language>\w+)\n(?P<code>.*?)```", re.DOTALL)


# A page of docs/ goes on in the folder in which the README's blocks ran.
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks() -> list[tuple[str, str]]:
    """Language and code of every block that is not marked as not run."""
    text = "\n".join(page.read_text() for page in PAGES)
    return [
        (m["language"], m["code"]) for m in _BLOCK.finditer(text) if m["why"] is None and m["language"] != "mermaid"
    ]


def test_the_documentation_works_as_pasted(tmp_path: Path) -> None:
    """Every block, one after the other in one empty folder, exits with 0."""
    every = blocks()
    found = [(language, code) for language, code in every if shutil.which("curl") or "curl" not in code]
    assert {language for language, _ in found} == {"bash", "python"}
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for language, code in found:
        command = ["bash", "-euc", code] if language == "bash" else [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
    if left_out := len(every) - len(found):
        pytest.skip(f"no curl on the PATH: {left_out} of {len(every)} blocks were left out, the others passed")


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


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_links_within_the_project_lead_somewhere(page: Path) -> None:
    """Relative links point to files that exist."""
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []

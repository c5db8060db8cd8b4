"""Run the blocks of documentation pages, as pasted, in the order in which they stand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.conftest import ROOT
from tests.support.warm_programs import WARM_PYTHON, warm_programs

README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
# Two tests share the pages, as they are the longest of all; each begins with the README.
_SECOND_HALF = "live.md"
HALVES = (
    [README, *(page for page in DOCS if page.name < _SECOND_HALF)],
    [README, *(page for page in DOCS if page.name >= _SECOND_HALF)],
)
_BLOCK = re.compile(r"(?:<!-- (?P<why>not run: [^>]+) -->\n)?```(?P<language>\w+)\n(?P<code>.*?)```", re.DOTALL)


def run_pages(pages: Sequence[Path], folder: Path) -> None:
    """Run every block that is not marked as not run, one after the other in one empty folder; each exits with 0."""
    text = "\n".join(page.read_text() for page in pages)
    every = [
        (m["language"], m["code"]) for m in _BLOCK.finditer(text) if m["why"] is None and m["language"] != "mermaid"
    ]
    found = [(language, code) for language, code in every if shutil.which("curl") or "curl" not in code]
    assert {language for language, _ in found} == {"bash", "python"}
    with tempfile.TemporaryDirectory() as warm, warm_programs(Path(warm)) as path:
        for language, code in found:
            command = ["bash", "-euc", code] if language == "bash" else [f"{warm}/bin/{WARM_PYTHON}", "-c", code]
            environment = {**os.environ, "PATH": path}
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
            assert "Traceback" not in done.stderr
    if left_out := len(every) - len(found):
        pytest.skip(f"no curl on the PATH: {left_out} of {len(every)} blocks were left out, the others passed")

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
from configs.site.examples import BLOCK
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
# Of other trainings, and on other days.
_VARYING = re.compile(r"[-+]?\d[\w.:+-]*")


def run_pages(pages: Sequence[Path], folder: Path) -> None:
    """Run every block that is not marked as not run, one after the other in one empty folder.

    Each exits with 0. A block of text after it is what it prints, but for numbers, times and ids.
    """
    text = "\n".join(page.read_text() for page in pages)
    every = [
        (block["language"], block["code"], block["output"])
        for block in BLOCK.finditer(text)
        if block["why"] is None and block["language"] != "mermaid"
    ]
    found = [block for block in every if shutil.which("curl") or "curl" not in block[1]]
    assert {language for language, _, _ in found} == {"bash", "python"}
    with tempfile.TemporaryDirectory() as warm, warm_programs(Path(warm)) as path:
        for language, code, output in found:
            command = ["bash", "-euc", code] if language == "bash" else [f"{warm}/bin/{WARM_PYTHON}", "-c", code]
            environment = {**os.environ, "PATH": path}
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
            assert "Traceback" not in done.stderr
            if output is not None:
                printed = done.stdout.replace(f"{folder.resolve()}/", "")
                assert alike(printed) == alike(output), f"{code}\n{printed}"
    if left_out := len(every) - len(found):
        pytest.skip(f"no curl on the PATH: {left_out} of {len(every)} blocks were left out, the others passed")


def alike(output: str) -> list[list[str]]:
    """The words of each line, with one word for all numbers, times and ids."""
    return [_VARYING.sub("N", line).split() for line in output.strip().splitlines()]

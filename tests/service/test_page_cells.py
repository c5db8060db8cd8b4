"""What *Download CSV* of the page writes into a cell, without a browser."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ('=HYPERLINK("http://x")', '\'=HYPERLINK("http://x")'),
        ("+49 30 1", "'+49 30 1"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("a=b", "a=b"),
        ("", ""),
        (-0.5, "-0.5"),
        (["=1"], '["=1"]'),
        (None, ""),
    ],
)
def test_a_spreadsheet_reads_text_as_text(tmp_path: Path, value: object, written: str) -> None:
    """A spreadsheet runs text that begins like a formula; ids and titles are of strangers."""
    if (node := shutil.which("node")) is None:
        pytest.skip("no node on the PATH")
    for name in ("values.js", "dom.js"):
        source = files("feast_embeddings.service") / "page" / name
        (tmp_path / name).write_text(source.read_text())
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "cell.js").write_text(
        f'import {{ cell }} from "./values.js";\nconsole.log(JSON.stringify(cell({json.dumps(value)})));\n'
    )
    answer = subprocess.run([node, tmp_path / "cell.js"], capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout) == written

"""The writer in docs/artifact.md, which imports nothing of ours, makes a version that can be published."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

from feast_embeddings.artifact import load_artifact


def test_the_page_works_as_pasted(tmp_path: Path) -> None:
    """Its program and its commands run; the checksums hold, and the doctor has nothing to say against the version."""
    page = (ROOT / "docs" / "artifact.md").read_text()
    (program,) = (part.partition("```")[0] for part in page.split("```python\n")[1:])
    (commands,) = (part.partition("```")[0] for part in page.split("```bash\n")[1:])
    assert "feast_embeddings" not in program
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = []
    for command in ([sys.executable, "-c", program], ["bash", "-euc", commands]):
        done.append(
            subprocess.run(
                command, cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
            )
        )
        assert done[-1].returncode == 0, done[-1].stderr
    artifact = load_artifact(tmp_path / "films_repo" / "data", "films")
    assert [artifact.table(entity).num_rows for entity in artifact.manifest.sides] == [100, 100]
    assert "problem" not in done[-1].stdout
    assert f"{artifact.manifest.version}: 100 users, 100 items" in done[-1].stdout

from __future__ import annotations

from pathlib import Path

import pytest

from embedding_trainers.extra import import_extra
from feast_embeddings.errors import MissingExtraError


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        ("ModuleNotFoundError('no', name='other.part')", r"'other', which is not installed: run pip install '.*\[tr"),
        ("ImportError('libblas.so: cannot open')", r"'broken_extra', which cannot be loaded: libblas.so: cannot open$"),
        (
            "ImportError('libgomp.so.1: cannot open')",
            r"loaded: libgomp.so.1: cannot open; .* apt-get install libgomp1$",
        ),
    ],
)
def test_a_package_that_cannot_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: str, said: str
) -> None:
    """What it lacks is said, another package or a library of the system, and what to do."""
    (tmp_path / "broken_extra.py").write_text(f"raise {raised}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtraError, match=said):
        import_extra("broken_extra")

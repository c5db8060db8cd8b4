from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import settings
from scipy.sparse import csr_matrix

from embedding_trainers import testing

# A busy machine is no failure.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """An empty Feast repository, as far as training looks at it."""
    repo = tmp_path / "repo"
    repo.mkdir()
    (repo / "feature_store.yaml").touch()
    return repo


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The checkerboard as an interaction log with text ids and without times."""
    users, items = testing.checkerboard().nonzero()
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"user_id": [f"u{n:02}" for n in users], "item_id": [f"i{n:02}" for n in items]}), path)
    return path


@pytest.fixture
def checkerboard() -> csr_matrix:
    """See `embedding_trainers.testing.checkerboard`."""
    return testing.checkerboard()


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data sets, which are not part of the repository."""
    folder = Path(os.environ.get("FEAST_EMBEDDINGS_TEST_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
    if not (folder / "ml-100k_interactions.parquet").is_file():
        pytest.skip("MovieLens 100K may not be redistributed; set FEAST_EMBEDDINGS_TEST_DATA to a folder with it")
    return folder

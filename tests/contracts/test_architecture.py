"""What imports what: serving never needs what training needs, and what must be quick does not import Feast."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import embedding_trainers
import feast_embeddings

# Feast brings none of these in: 0.67 imports scipy nowhere on the paths of a repo with DuckDB and this online store.
TRAINING_ONLY = ("implicit", "scipy", "threadpoolctl", "embedding_trainers")

SERVE = """
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from feast_embeddings import EmbeddingStore, embedding_views, publish_artifact
from feast_embeddings.artifact import EmbeddingTable, TrainerInfo, write_artifact
from feast_embeddings.repo import init_repo

repo = init_repo(Path(sys.argv[1]))
vectors = np.eye(3, dtype=np.float32) + 1
table = lambda ids: EmbeddingTable(ids=pa.array(ids), embedding=vectors, n_interactions=np.ones(3, dtype=np.int64))
artifact = write_artifact(
    repo.data, "m", users=table(["u", "v", "w"]), items=table(["a", "b", "c"]), as_of=datetime(2026, 1, 1, tzinfo=UTC),
    trainer=TrainerInfo(name="none", config={}), seed=None, metrics={}, fingerprint="", n_interactions=3,
)
feature_store = repo.feature_store()
feature_store.apply(list(embedding_views("m", repo.data).by_name().values()))
publish_artifact(feature_store, artifact)
store = EmbeddingStore(feature_store, "m")
assert set(store.similar_items("a", filter="n_interactions > 0").ids) == {"b", "c"}
assert set(store.rank("u").ids) == {"a", "b", "c"}
online = feature_store.get_online_features(["m_user_embeddings:embedding"], [{"user_id": "v"}]).to_dict()
assert online["embedding"] == [[1.0, 2.0, 1.0]]
"""


def loaded_by(script: str, names: tuple[str, ...], *arguments: str) -> list[str]:
    """Which of these modules a fresh interpreter has loaded after a script."""
    report = f"\nimport sys\nprint('loaded', *(name for name in {names!r} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script + report, *arguments], check=True, capture_output=True, text=True
    )
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("loaded"))
    return line.split()[1:]


def test_serving_needs_nothing_of_training(tmp_path: Path) -> None:
    """Publish, queries with a filter, and Feast's online read load neither the trainers nor what they need."""
    assert loaded_by(SERVE, TRAINING_ONLY, str(tmp_path / "repo")) == []


@pytest.mark.parametrize(
    "script",
    [
        "import feast_embeddings",
        "from feast_embeddings import EmbeddingsError",
        "from feast_embeddings import trained_models",
        "from feast_embeddings.artifact import write_artifact",
        "from feast_embeddings.client import EmbeddingClient",
        "from feast_embeddings.cli import main; main(['api-key', 'web'], standalone_mode=False)",
        "from feast_embeddings.cli import main; main(['--help'], standalone_mode=False)",
        "from feast_embeddings.cli import main; main(['init', '--help'], standalone_mode=False)",
        "from feast_embeddings.cli import main; main(['rank', '--help'], standalone_mode=False)",
    ],
)
def test_what_must_be_quick_does_not_import_feast(script: str) -> None:
    """Importing the package, writing artifacts and asking for help do not wait for Feast or Qdrant."""
    assert loaded_by(script, ("feast", "qdrant_client", "qdrant_edge", *TRAINING_ONLY[:3])) == []


def test_a_process_that_writes_points_imports_the_engine_only() -> None:
    """Several are started for one write, so they must be there at once."""
    script = "import feast_embeddings.engines.embedded.filler_process"
    assert loaded_by(script, ("feast", "qdrant_client", "pydantic", "numpy", "pyarrow", "qdrant_edge")) == [
        "qdrant_edge"
    ]


def imported_modules(path: Path) -> set[str]:
    """Every module that a source file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            found.add(str(node.module))
    return found


def sources(package: object) -> list[Path]:
    """The source files of an imported package."""
    files = sorted(Path(str(vars(package)["__file__"])).parent.rglob("*.py"))
    assert len(files) > 3
    return files


def test_trainers_know_the_artifact_only() -> None:
    """Of the plugin, the trainers import the artifact, the reading of tables, the errors and the times."""
    of_plugin = {
        module
        for path in sources(embedding_trainers)
        for module in imported_modules(path)
        if module.partition(".")[0] == "feast_embeddings"
    }
    known = {"feast_embeddings." + name for name in ("artifact", "errors", "reading", "times")}
    assert of_plugin == known


def test_the_plugin_does_not_know_its_trainers() -> None:
    """No source file of the plugin imports the trainers or what they need."""
    found = {(path.name, module) for path in sources(feast_embeddings) for module in imported_modules(path)}
    assert {(name, module) for name, module in found if module.partition(".")[0] in TRAINING_ONLY} == set()
    assert ("views.py", "feast_embeddings.artifact") in found


def test_what_is_private_in_feast_is_in_one_module() -> None:
    """Only _feast.py imports Feast's protobufs and key encoding."""
    private = ("feast.protos", "feast.infra.key_encoding_utils", "feast.infra.online_stores.helpers")
    found = {
        path.name
        for path in sources(feast_embeddings)
        for module in imported_modules(path)
        if module.startswith(private)
    }
    assert found == {"_feast.py"}


def test_public_names() -> None:
    """Every name of __all__ can be imported and is where it says; no other name of a module is public there."""
    for name in feast_embeddings.__all__:
        public = getattr(feast_embeddings, name)
        home = importlib.import_module(public.__module__)
        assert home.__name__.startswith("feast_embeddings.")
        assert getattr(home, name) is public
    assert feast_embeddings.__all__ == sorted(feast_embeddings.__all__)
    assert set(vars(feast_embeddings)["_HOME"]) == set(feast_embeddings.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Embedding'"):
        _ = feast_embeddings.Embedding

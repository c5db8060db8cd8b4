"""What imports what: serving never needs what training needs, and what must be quick does not import Feast."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import grimp
import pytest
from tests.conftest import ROOT
from tests.contracts import rooms

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


NOT_FOR_HELP = (
    *("feast", "typeguard", "qdrant_client", "qdrant_edge", "duckdb"),
    *("numpy", "pandas", "pyarrow", "pydantic", "scipy", "portalocker", "httpx", "fastapi"),
)


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
    ],
)
def test_what_must_be_quick_does_not_import_feast(script: str) -> None:
    """Importing the package and writing artifacts do not wait for Feast or Qdrant."""
    assert loaded_by(script, ("feast", "qdrant_client", "qdrant_edge", *TRAINING_ONLY[:3])) == []


HELP = """
import contextlib, io, sys
from click import Context
from feast_embeddings.cli import main, run

def help_of(*command):
    sys.argv = ["feast-embeddings", *command, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        run()
    assert printed.getvalue().startswith(f"Usage: {' '.join(sys.argv[:-1])} "), printed.getvalue()
"""


@pytest.mark.parametrize(
    ("asked", "modules"),
    [
        ("help_of()", (*NOT_FOR_HELP, "embedding_trainers", "feast_embeddings.cli.options")),
        ("for name in main.list_commands(Context(main)): help_of(name)", NOT_FOR_HELP),
    ],
    ids=["of all", "of each"],
)
def test_help_imports_nothing_heavy(asked: str, modules: tuple[str, ...]) -> None:
    """The list of the commands imports no command; a command's help neither Feast, nor Qdrant, nor arrays."""
    assert loaded_by(f"{HELP}\n{asked}", modules) == []


def test_a_process_that_writes_points_imports_the_engine_only() -> None:
    """Several are started for one write, so they must be there at once."""
    script = "import feast_embeddings.engines.embedded.filler_process"
    assert loaded_by(script, ("feast", "qdrant_client", "pydantic", "numpy", "pyarrow", "qdrant_edge")) == [
        "qdrant_edge"
    ]


def lint(*arguments: str) -> str:
    """What the linter prints; by itself, as it sets up the logging of its process."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout


def test_the_walls_stand() -> None:
    """The contracts of pyproject.toml hold."""
    printed = lint()
    assert " kept, 0 broken." in printed, printed


def test_a_wall_that_is_broken_is_noticed(tmp_path: Path) -> None:
    """The linter reads imports, and fails on one that a contract forbids."""
    contract = """
        [tool.importlinter]
        root_package = "feast_embeddings"
        [[tool.importlinter.contracts]]
        name = "Queries do not know the model"
        type = "forbidden"
        source_modules = ["feast_embeddings.query"]
        forbidden_modules = ["feast_embeddings.model"]
    """
    config = tmp_path / "pyproject.toml"
    config.write_text(textwrap.dedent(contract))
    assert "0 kept, 1 broken." in lint("--config", str(config))


def test_the_picture_is_that_of_the_imports() -> None:
    """docs/architecture.md is up to date; python -m tests.contracts.rooms draws the picture again."""
    text = rooms.PAGE.read_text()
    assert rooms.page(text) == text
    assert "cli --> doctor" in text
    told = {name for row in re.findall(r"^\| (`.+?`) \|", text, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert {room for floor in rooms.floors() for room in floor} <= told


def sources(package: object) -> list[Path]:
    """The source files of an imported package."""
    files = sorted(Path(str(vars(package)["__file__"])).parent.rglob("*.py"))
    assert len(files) > 3
    return files


@pytest.mark.parametrize("package", [feast_embeddings, embedding_trainers])
def test_no_folder_is_a_corridor(package: object) -> None:
    """Few modules stand side by side, and the fewest at the root."""
    folders = Counter(path.parent for path in sources(package) if path.name != "__init__.py")
    assert {folder: n for folder, n in folders.items() if n > 15} == {}
    assert folders[Path(str(vars(package)["__file__"])).parent] < 9


def test_what_is_private_in_feast_is_in_one_package() -> None:
    """Only _feast imports Feast's protobufs and key encoding, and overrides methods whose names begin with _."""
    private = ("feast.protos", "feast.infra.key_encoding_utils", "feast.infra.online_stores.helpers")
    graph = grimp.build_graph("feast_embeddings", include_external_packages=True)
    assert "feast" in graph.find_modules_directly_imported_by("feast_embeddings.online.store")
    importing, overriding = set(), set()
    for path in sources(feast_embeddings):
        name = ".".join(path.relative_to(Path(feast_embeddings.__file__).parents[1]).with_suffix("").parts)
        if any(isinstance(node, ast.ImportFrom) and str(node.module).startswith(private) for node in nodes(path)):
            importing.add(name.split(".")[1])
        if name.endswith((".__init__", ".filler_process")):
            continue
        module = importlib.import_module(name)
        for cls in vars(module).values():
            if inspect.isclass(cls) and cls.__module__ == name:
                feasts = [base for base in cls.__mro__[1:] if base.__module__.partition(".")[0] == "feast"]
                names = [own for own in vars(cls) if re.match("_[a-z]", own) and not own.startswith("_abc_")]
                if any(own in vars(base) for own in names for base in feasts):
                    overriding.add(name.split(".")[1])
    assert importing == overriding == {"_feast"}


def nodes(path: Path) -> list[ast.AST]:
    """All of a source file's syntax tree."""
    return list(ast.walk(ast.parse(path.read_text())))


def test_public_names() -> None:
    """Every name of __all__ can be imported and is where it says; no other name of a module is public there."""
    for name in feast_embeddings.__all__:
        public = getattr(feast_embeddings, name)
        home = importlib.import_module(public.__module__)
        assert home.__name__.startswith("feast_embeddings.")
        assert getattr(home, name) is public
        assert re.search("Stability: (stable|provisional), see docs/compatibility.md", inspect.getdoc(public) or ""), (
            name
        )
    assert feast_embeddings.__all__ == sorted(feast_embeddings.__all__)
    assert set(vars(feast_embeddings)["_HOME"]) == set(feast_embeddings.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Embedding'"):
        _ = feast_embeddings.Embedding

"""The JavaScript client, by Node against the real service on a real socket."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import ROOT
from tests.support.listening import listening
from tests.support.serving import service_of
from tests.support.shop import METRICS, Shop

from feast_embeddings.query.answers import Embeddings, Neighbours
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.service.api_keys import new_key

PACKAGE = ROOT / "clients" / "js"


@pytest.fixture(scope="module")
def shop(common_shop: Shop) -> Shop:
    """A published shop; tests only read from it."""
    return common_shop


@pytest.fixture(scope="module")
def environment(shop: Shop) -> Iterator[dict[str, str]]:
    """Where the service listens, and a key for it."""
    key, kept = new_key("test", "write")
    with listening(service_of(shop, kept)) as address:
        yield {"FEAST_EMBEDDINGS_ADDRESS": address, "FEAST_EMBEDDINGS_KEY": key}


@pytest.fixture(scope="module")
def node() -> str:
    """A Node as new as the package asks for."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("no node on the PATH")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    oldest = re.sub(r"\D", "", json.loads((PACKAGE / "package.json").read_text())["engines"]["node"])
    if int(version.strip().lstrip("v").split(".")[0]) < int(oldest):
        pytest.skip(f"node {version.strip()} is older than {oldest}")
    return program


def run(environment: dict[str, str], *command: str | Path, cwd: Path = PACKAGE) -> str:
    """What a program printed that must succeed."""
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_its_own_tests(node: str, shop: Shop, environment: dict[str, str], tmp_path: Path) -> None:
    """All pass, those against the service too: its answers in JavaScript are the library's in Python."""
    store = EmbeddingStore(shop.feature_store, "shop")
    items = store.page("item", k=100, vectors=True)
    assert items.vectors is not None
    expected = {
        "version": shop.artifact.manifest.version,
        "metrics": METRICS,
        "createUserEmbedding": embeddings(store.user_embeddings(["u-2", "no-user", "u-0", "u-2"])),
        "createItemEmbedding": embeddings(store.item_embeddings(["sku-2", "nothing"])),
        "similarItems": neighbours(store.similar_items("sku-3", 7, filter="price < 20")),
        "similarUsers": neighbours(store.similar_users("u-3", 7)),
        "rank": neighbours(store.rank("u-3", 7)),
        "shaped": neighbours(
            store.rank(
                "stranger",
                5,
                exclude_ids=["sku-39"],
                offset=1,
                boosts=[{"filter": "category = 'Books'", "weight": 0.7}],
                max_per={"category": 3},
                diversity=0.3,
                fallback="popular",
            )
        ),
        "usersForItem": neighbours(store.users_for_item("sku-3", 7, exclude_seen=False)),
        "lookalikeUsers": store.lookalike_users(["u-1", "u-2"], 3).ids,
        "items": {
            id: [attributes["title"], encoded(vector)]
            for id, attributes, vector in zip(items.ids, items.attributes, items.vectors, strict=True)
        },
    }
    file = tmp_path / "expected.json"
    file.write_text(json.dumps(expected))
    tests = sorted((PACKAGE / "test").glob("*.test.js"))
    assert tests
    more = {"FEAST_EMBEDDINGS_EXPECTED": str(file)}
    printed = run(environment | more, node, "--test", "--test-reporter=tap", *tests)
    assert {"# fail 0", "# skipped 0"} <= set(printed.splitlines()), printed


def embeddings(found: Embeddings) -> dict[str, Any]:
    """An answer as the JavaScript client gives it, but vectors in base64."""
    return {
        "model": "shop",
        "version": found.version,
        "space": found.space,
        "asOf": found.as_of,
        "dim": found.vectors.shape[1],
        "embeddings": [
            {
                "id": id,
                "vector": encoded(vector) if present else None,
                "eventTimestamp": None if timestamp is None else timestamp.isoformat(),
            }
            for id, vector, present, timestamp in zip(
                found.ids, found.vectors, found.found, found.event_timestamps, strict=True
            )
        ],
        "missing": found.missing,
    }


def neighbours(found: Neighbours) -> dict[str, Any]:
    """An answer as the JavaScript client gives it."""
    results = [
        {"id": id, "score": score, "metadata": attributes}
        for id, score, attributes in zip(found.ids, found.scores.tolist(), found.attributes, strict=True)
    ]
    return {
        "model": "shop",
        "version": found.version,
        "space": found.space,
        "results": results,
        "missing": found.missing,
        "fallback": found.fallback,
    }


def encoded(vector: np.ndarray[Any, np.dtype[np.float32]]) -> str:
    """Little-endian float32 in base64."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def test_its_readme_works_as_pasted(node: str, environment: dict[str, str], tmp_path: Path) -> None:
    """Every program in it, in a project that has nothing but the package."""
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "feast-embeddings").symlink_to(PACKAGE)
    programs = re.findall(r"```js\n(.*?)```", (PACKAGE / "README.md").read_text(), re.DOTALL)
    assert programs
    for number, program in enumerate(programs):
        (tmp_path / f"{number}.mjs").write_text(program)
        assert run(environment, node, f"{number}.mjs", cwd=tmp_path)


def test_its_package_is_what_it_needs() -> None:
    """No dependencies at run time, nothing to build, no lock file with addresses, and the project's version."""
    package = json.loads((PACKAGE / "package.json").read_text())
    assert not {"dependencies", "peerDependencies", "optionalDependencies"} & package.keys()
    assert not {"prepare", "prepack", "build", "postinstall"} & package["scripts"].keys()
    assert f'version = "{package["version"]}"' in (ROOT / "pyproject.toml").read_text()
    assert {path.name for path in PACKAGE.iterdir()} == {"LICENSE", "README.md", "package.json", "src", "test"}
    assert (PACKAGE / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_its_types_are_typescript() -> None:
    """The compiler accepts them, and refuses what it must."""
    compiler = shutil.which("tsc")
    if compiler is None:
        pytest.skip("no TypeScript compiler (tsc) on the PATH")
    options = ["--noEmit", "--strict", "--module", "nodenext", "--target", "esnext", "--lib", "esnext,dom"]
    run({}, compiler, *options, "test/types.ts")

"""The wheel: what is in it, and that it works in an environment that has nothing else."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.conftest import ROOT

pytestmark = pytest.mark.packaging


@dataclass(frozen=True)
class Environment:
    """A virtual environment of its own, with the wheel in it."""

    bin: Path
    wheel: Path

    def run(self, program: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        # -P and another folder: nothing of the source tree can be imported by accident.
        command: list[str | Path] = [self.bin / "python", "-P", self.bin / program, *arguments]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)

    def check(self, program: str, *arguments: str, cwd: Path) -> str:
        """Run a program that must succeed; what it printed."""
        done = self.run(program, *arguments, cwd=cwd)
        assert done.returncode == 0, f"{program} {arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def pip_install(self, requirement: str) -> None:
        constraints = ROOT / "constraints.txt"
        install = ["-m", "pip", "install", "--quiet", "--constraint", str(constraints), requirement]
        subprocess.run([self.bin / "python", *install], check=True)


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution, and the wheel built from that."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    """The wheel."""
    (path,) = dist.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """A fresh environment with the wheel and without extras."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    made = Environment(folder / "bin", wheel)
    made.pip_install(str(wheel))
    return made


TEMPLATE = ("definitions.py", "embeddings.toml", "feature_store.yaml")


def test_the_wheel_holds_both_packages_and_the_template(wheel: Path) -> None:
    """Two packages, typed, with the one template and the service's page, and nothing else at the top."""
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0].split("-")[0] for name in names} == {"feast_embeddings", "embedding_trainers"}
    template = {name for name in names if "_template/" in name}
    assert template == {f"feast_embeddings/_template/{name}" for name in TEMPLATE}
    assert {"feast_embeddings/py.typed", "embedding_trainers/py.typed"} <= names
    sources = {ROOT / "clients/js/src": "client/", ROOT / "plugin/feast_embeddings/service/page": ""}
    pages = {f"{at}{path.name}": path for folder, at in sources.items() for path in folder.iterdir() if path.is_file()}
    packaged_pages = {name.partition("/service/page/")[2] for name in names if "/service/page/" in name}
    assert packaged_pages == pages.keys() > {"index.html", "page.js", "client/client.js"}
    for name in TEMPLATE:
        packaged = zipfile.ZipFile(wheel).read(f"feast_embeddings/_template/{name}")
        assert packaged == (ROOT / "feature_repo" / name).read_bytes()


def test_the_source_distribution_can_be_tested(dist: Path) -> None:
    """It has the sources, the tests and what they need."""
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "plugin/feast_embeddings/artifact/__init__.py",
        "trainers/embedding_trainers/models/bpr.py",
        "feature_repo/definitions.py",
        "clients/js/package.json",
        "tests/contracts/test_packaging.py",
        "Makefile",
        "README.md",
        "LICENSE",
        "constraints.txt",
    } <= names


def test_without_extras_it_serves_but_does_not_train(environment: Environment, tmp_path: Path) -> None:
    """A version trained elsewhere is served; `train` says on one line how to get what it needs, and then works."""
    (tmp_path / "log.csv").write_text("user_id,item_id\n" + "".join(f"u{i % 7},i{i % 5}\n" for i in range(60)))
    train = ("train", "--repo", "repo", "--model", "m", "--interactions", "log.csv", "--quiet")
    environment.check("feast-embeddings", "init", "repo", cwd=tmp_path)
    elsewhere = Environment(Path(sys.executable).parent, environment.wheel)
    elsewhere.check("feast-embeddings", *train, cwd=tmp_path)

    environment.check("feast", "-c", "repo", "apply", cwd=tmp_path)
    environment.check("feast-embeddings", "publish", "--repo", "repo", cwd=tmp_path)
    assert "i2" in environment.check("feast-embeddings", "similar-items", "i1", "--repo", "repo", cwd=tmp_path)

    assert "train " in environment.check("feast-embeddings", "--help", cwd=tmp_path)
    refused = environment.run("feast-embeddings", *train, cwd=tmp_path)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.count("\n") == 1
    assert "pip install 'feast-embeddings[trainers]'" in refused.stderr

    environment.pip_install(f"{environment.wheel}[trainers]")
    assert "trained m version" in environment.check("feast-embeddings", *train, cwd=tmp_path)

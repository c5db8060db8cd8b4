"""The site's page about the doctor has every check and finding, and says what the doctor says."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from pathlib import Path

import pytest
from configs.site.findings_of import findings_of
from configs.site.troubleshooting import DOCTOR, troubleshooting_page

from feast_embeddings.doctor import CHECKS, examine
from feast_embeddings.repo import Repo, init_repo

MODULES = [importlib.import_module(f"feast_embeddings.doctor.{m.name}") for m in pkgutil.iter_modules([str(DOCTOR)])]


def section(check: str) -> str:
    """What the page says of a check."""
    return re.split(r"^## ", troubleshooting_page().partition(f"\n## {check}\n")[2], flags=re.MULTILINE)[0]


def test_every_check_runs_and_is_on_the_page() -> None:
    """Those that the modules of checks offer, each with what it looks at and at least one finding."""
    offered = {name for module in MODULES if module.__name__.endswith("_checks") for name in module.__all__}
    assert offered == {check.__name__ for check in CHECKS}
    for check in CHECKS:
        assert (check.__doc__ or "").partition("\n")[0] in section(check.__name__)
        assert re.search(r"^\| (problem|warning)", section(check.__name__), re.MULTILINE), check.__name__


def test_every_finding_is_on_the_page() -> None:
    """Each place of the source that reports one, none without a message or a fix."""
    places = 0
    for module in MODULES:
        for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Finding":
                level = node.args[1]
                places += not (isinstance(level, ast.Constant) and level.value == "ok")
    kinds = [kind for check in CHECKS for kind in findings_of(check)]
    assert len(kinds) == places - 1  # run_checks has one for all checks
    assert all("" not in (*kind.levels, *kind.messages, *kind.fixes) for kind in kinds)


@pytest.mark.parametrize("broken", ["nothing trained", "no setting", "no definitions", "no store"])
def test_the_page_says_what_the_doctor_says(broken: str, tmp_path: Path) -> None:
    """For repos in which one thing is wrong, each finding is one of the page's, with its level and its fix."""
    repo = Repo(init_repo(tmp_path / "repo").path)
    if broken == "no setting":
        (repo.path / "feature_store.yaml").write_text("project: [")
    elif broken == "no definitions":
        (repo.path / "definitions.py").write_text("x = 1")
    elif broken == "no store":
        (repo.path / "qdrant_storage").write_text("a file")
    found = [finding for finding in examine(repo).findings if finding.level != "ok"]
    assert found
    kinds = {check.__name__: findings_of(check) for check in CHECKS}
    for finding in found:
        fitting = [
            kind
            for kind in kinds[finding.check]
            if finding.level in kind.levels
            and any(re.fullmatch(pattern(text), finding.message) for text in kind.messages)
        ]
        assert fitting, finding
        fixes = [fix for kind in fitting for fix in kind.fixes]
        assert any(fix.startswith("a command") or re.fullmatch(pattern(fix), finding.fix) for fix in fixes), finding


def pattern(text: str) -> str:
    """A regular expression in which a word in capitals is anything."""
    return re.sub(r"\\?\b[A-Z_]+\b|…", ".+", re.escape(text))

"""The page about what the doctor finds, made from its checks."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable
from pathlib import Path

from configs.site.findings_of import findings_of, said

import feast_embeddings.doctor
from feast_embeddings.doctor import CHECKS
from feast_embeddings.doctor.findings import run_checks

__all__ = ["DOCTOR", "troubleshooting_page"]

# What the repository's pages name in place of this page, which is none of its files.
DOCTOR = Path(feast_embeddings.doctor.__file__).parent

_START = """# Troubleshooting

What each check of `feast-embeddings doctor` ([how to run it](operations.md#find-problems-and-fix-them)) looks at, what
it can say, and what to do then. A word in capitals stands for what the check found, such as a name; `ERROR` for the
message of an error."""


def troubleshooting_page() -> str:
    """Return a section for each check, with its findings that are not ok."""
    page = [_START]
    checks: list[tuple[str, Callable[..., object]]] = [(check.__name__, check) for check in CHECKS]
    for title, check in [*checks, ("any check", run_checks)]:
        rows = ["| level | it says | what to do |", "|---|---|---|"]
        for kind in findings_of(check):
            todo = (fix if fix.startswith("a command ") else f"`{fix}`" for fix in kind.fixes)
            rows.append(f"| {_cell(kind.levels)} | {_cell(map(html.escape, kind.messages))} | {_cell(todo)} |")
        page += [f"## {title}", said(check), "\n".join(rows)]
    return "\n\n".join(page)


def _cell(texts: Iterable[str]) -> str:
    return "<br>or<br>".join(texts).replace("|", "\\|")

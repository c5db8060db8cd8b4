"""What checks find, and running each check whatever the others do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from feast_embeddings.doctor.patient import MissingError, Patient

__all__ = ["Check", "Finding", "Level", "Report", "first_line", "run_checks"]

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing that a check found.

    Attributes:
        check: name of the check.
        level: ``ok``; ``warning``, which can wait; ``problem``, which cannot.
        message: what was found.
        fix: a shell command that fixes it, or the first step; empty when ok. Words in capitals are placeholders.
        model: the model concerned, if there is one.
    """

    check: str
    level: Level
    message: str
    fix: str = ""
    model: str = ""


@dataclass(frozen=True)
class Report:
    """All findings, and the checks that could not run, each with the check that explains why."""

    findings: list[Finding]
    skipped: dict[str, str]

    @property
    def worst(self) -> Level:
        """The worst level of all findings."""
        levels = {finding.level for finding in self.findings}
        return "problem" if "problem" in levels else "warning" if "warning" in levels else "ok"


Check = Callable[[Patient], Iterable[Finding]]


def run_checks(checks: Iterable[Check], patient: Patient) -> Report:
    """Run each check, whatever the others find."""
    report = Report([], {})
    for check in checks:
        name = check.__name__
        try:
            for finding in check(patient):
                report.findings.append(finding)
        except MissingError as missing:
            report.skipped[name] = missing.check
        except Exception as error:  # anything broken is a finding
            again = f"FEAST_EMBEDDINGS_TRACEBACK=1 {patient.command('versions')}"
            report.findings.append(Finding(name, "problem", f"this check failed: {first_line(error)}", again))
    return report


def first_line(error: BaseException) -> str:
    """Return the type and first line of an error, cut to fit one line."""
    text = str(error).strip().partition("\n")[0][:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__

"""What checks find, and how they are kept apart."""

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
        check: its name.
        level: ``ok``; ``warning``, which can wait; ``problem``, which cannot.
        message: what is the case.
        fix: a shell command that fixes it, or begins to; empty when ok. What is in capitals is to be filled in.
        model: the model that it is about, if it is about one.
    """

    check: str
    level: Level
    message: str
    fix: str = ""
    model: str = ""


@dataclass(frozen=True)
class Report:
    """All findings, and which checks could not be made, with the check that says why."""

    findings: list[Finding]
    skipped: dict[str, str]

    @property
    def worst(self) -> Level:
        """The worst level of all findings."""
        levels = {finding.level for finding in self.findings}
        return "problem" if "problem" in levels else "warning" if "warning" in levels else "ok"


Check = Callable[[Patient], Iterable[Finding]]


def run_checks(checks: Iterable[Check], patient: Patient) -> Report:
    """Make each check, whatever the others find."""
    report = Report([], {})
    for check in checks:
        name = check.__name__
        try:
            for finding in check(patient):
                report.findings.append(finding)
        except MissingError as missing:
            report.skipped[name] = missing.check
        except Exception as error:  # whatever is broken is a finding
            again = f"FEAST_EMBEDDINGS_TRACEBACK=1 {patient.command('versions')}"
            report.findings.append(Finding(name, "problem", f"this check failed: {first_line(error)}", again))
    return report


def first_line(error: BaseException) -> str:
    """What an error says, without what would not fit a line."""
    text = str(error).strip().partition("\n")[0][:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__

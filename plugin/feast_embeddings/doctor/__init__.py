"""What is wrong with a repo, and how to fix it: `examine` looks at everything and changes nothing.

Each check is by itself: what one stumbles over is a finding, and the others go on.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from feast_embeddings.doctor.artifact_checks import artifacts, history
from feast_embeddings.doctor.findings import Check, Finding, Level, Report, run_checks
from feast_embeddings.doctor.live_checks import drift, freshness, live, spaces
from feast_embeddings.doctor.patient import Patient
from feast_embeddings.doctor.setup_checks import configuration, definitions, installation, keys, registry
from feast_embeddings.doctor.store_checks import leftovers, store, writer
from feast_embeddings.repo import Repo

__all__ = ["Finding", "Level", "Report", "examine"]

# In the order in which one would look: what is wrong above may be why something below is.
_CHECKS: tuple[Check, ...] = (
    installation,
    configuration,
    definitions,
    registry,
    keys,
    artifacts,
    history,
    store,
    writer,
    live,
    leftovers,
    spaces,
    drift,
    freshness,
)


def examine(repo: Repo, *, key_file: Path | None = None, max_age: timedelta = timedelta(days=30)) -> Report:
    """Look at a repo, its files, its registry and its vector store.

    Args:
        key_file: of the service, if it has one.
        max_age: of the newest interaction behind what is served.
    """
    patient = Patient(repo, key_file, max_age)
    try:
        return run_checks(_CHECKS, patient)
    finally:
        if patient.engine is not None:
            patient.engine.close()

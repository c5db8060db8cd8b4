"""Find the problems of a repo, and how to fix them: `examine` checks everything and changes nothing.

Checks are independent: if one fails, that is a finding, and the others go on.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from feast_embeddings.doctor.artifact_checks import artifacts, history
from feast_embeddings.doctor.cluster_checks import cluster
from feast_embeddings.doctor.findings import Check, Finding, Level, Report, run_checks
from feast_embeddings.doctor.live_checks import drift, freshness, live, spaces, stored
from feast_embeddings.doctor.patient import Patient
from feast_embeddings.doctor.setup_checks import configuration, definitions, installation, keys, registry
from feast_embeddings.doctor.store_checks import leftovers, store, writer
from feast_embeddings.repo import Repo

__all__ = ["CHECKS", "Finding", "Level", "Report", "examine"]

# In the order to look: a problem of an earlier check may be the cause of a later one.
CHECKS: tuple[Check, ...] = (
    installation,
    configuration,
    definitions,
    registry,
    keys,
    artifacts,
    history,
    store,
    cluster,
    writer,
    live,
    stored,
    leftovers,
    spaces,
    drift,
    freshness,
)


def examine(repo: Repo, *, key_file: Path | None = None, max_age: timedelta = timedelta(days=30)) -> Report:
    """Check a repo, its files, its registry and its vector store.

    Args:
        key_file: the key file of the service, if it has one.
        max_age: oldest acceptable age of the newest interaction behind the live version.
    """
    patient = Patient(repo, key_file, max_age)
    try:
        return run_checks(CHECKS, patient)
    finally:
        if patient.engine is not None:
            patient.engine.close()

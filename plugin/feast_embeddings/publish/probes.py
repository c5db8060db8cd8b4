"""The probes of a version as gates: do models that were trained on the live vectors go on with the new ones?"""

from __future__ import annotations

from typing import Any

from feast_embeddings.artifact import Artifact, load_artifact
from feast_embeddings.errors import EmbeddingsError, MissingExtraError
from feast_embeddings.model.from_trainers import from_trainers
from feast_embeddings.publish.gates import GateResult, Gates, Live, status

__all__ = ["probe_gates"]


def probe_gates(new: Artifact, live: Live | None, gates: Gates) -> list[GateResult]:
    """Score the probes that a version names, by models of the live version's vectors; see `embedding_trainers.probes`.

    A gate fails if the score above chance drops by more than `Gates.max_probe_drop` of it, and by more than noise.

    Raises:
        ArtifactError: the version is damaged.
    """
    probes = new.manifest.probes
    if not probes or live is None:
        return []
    if live.manifest is None:
        return _without(dict.fromkeys(probes, "the live version is not on disk"))
    if live.spaces != {new.manifest.space_id}:
        return _without(dict.fromkeys(probes, "the live version is of another space"))
    data = new.path.parent.parent
    try:
        scores, lacking = from_trainers("probes")(new, load_artifact(data, new.manifest.model, live.manifest.version))
    except MissingExtraError as error:
        return _without(dict.fromkeys(probes, str(error)))
    except EmbeddingsError as error:
        # What says whether models go on cannot be read: not to publish is the safe side.
        failed = f"it cannot be scored: {error}"
        return [GateResult("probe", status(False, gates.allow_probe_drop), f"{name}: {failed}") for name in probes]
    return [_gate(score, gates) for score in scores] + _without(lacking)


def _gate(score: Any, gates: Gates) -> GateResult:
    allowed = max(gates.max_probe_drop * (score.before - score.chance), score.margin)
    if score.before <= score.chance:
        return GateResult("probe", "not comparable", f"{score}; live vectors do not say it either")
    lowest = score.before - allowed
    detail = f"{score}; expected at least {lowest:.3f}"
    return GateResult("probe", status(score.after >= lowest, gates.allow_probe_drop), detail)


def _without(reasons: dict[str, str]) -> list[GateResult]:
    return [GateResult("probe", "not comparable", f"{name}: {reason}") for name, reason in reasons.items()]

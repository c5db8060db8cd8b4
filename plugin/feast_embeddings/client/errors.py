"""The errors of the client."""

from __future__ import annotations

from typing import Any

from feast_embeddings.errors import EmbeddingsError

__all__ = ["EmbeddingServiceError"]


class EmbeddingServiceError(EmbeddingsError):
    """The service refused a request, could not answer it, or could not be reached.

    Attributes:
        status: HTTP status; None if there was no answer.
        errors: for 413 and 422, the error per field of the request.
        request_id: the id of the request in the service's log; None if there was no answer.
    """

    def __init__(
        self,
        message: str,
        status: int | None = None,
        errors: dict[str, str] | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.errors = errors or {}
        self.request_id = request_id

    @classmethod
    def of_problem(cls, status: int, problem: Any, request_id: str | None = None) -> EmbeddingServiceError:
        """Make the error from problem details (RFC 9457), or from anything a proxy sent instead."""
        if not isinstance(problem, dict):
            return cls(f"the embedding service answered with HTTP {status}", status, request_id=request_id)
        errors = {str(error["field"]): str(error["message"]) for error in problem.get("errors", [])}
        return cls(f"HTTP {status}: {problem.get('detail', problem.get('title', ''))}", status, errors, request_id)

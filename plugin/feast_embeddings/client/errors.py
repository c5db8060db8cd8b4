"""What the client raises."""

from __future__ import annotations

from typing import Any

from feast_embeddings.errors import EmbeddingsError

__all__ = ["EmbeddingServiceError"]


class EmbeddingServiceError(EmbeddingsError):
    """The service refused a request, could not answer it, or could not be reached.

    Attributes:
        status: of HTTP; None when there was no answer.
        errors: of a 413 or 422, what is wrong by field of the request.
    """

    def __init__(self, message: str, status: int | None = None, errors: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.errors = errors or {}

    @classmethod
    def of_problem(cls, status: int, problem: Any) -> EmbeddingServiceError:
        """From problem details (RFC 9457), or whatever a proxy sent instead."""
        if not isinstance(problem, dict):
            return cls(f"the embedding service answered with HTTP {status}", status)
        errors = {str(error["field"]): str(error["message"]) for error in problem.get("errors", [])}
        return cls(f"HTTP {status}: {problem.get('detail', problem.get('title', ''))}", status, errors)

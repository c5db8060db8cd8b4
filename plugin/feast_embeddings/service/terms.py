"""On what terms an endpoint answers. They stand on the endpoint itself, and its route keeps to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

__all__ = ["Access", "Terms", "terms", "terms_of"]

Access = Literal["open", "read", "write"]
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


@dataclass(frozen=True)
class Terms:
    """What an endpoint asks of a request.

    Attributes:
        access: the scope of key that it needs; `open` needs none.
        timed: whether it ends with the time limit. Loading a version takes as long as it takes.
        queries: the fields of which each id, or list of interactions, is a query of its own.
    """

    access: Access = "read"
    timed: bool = True
    queries: tuple[str, ...] = ()


def terms(
    access: Access = "read", *, timed: bool = True, queries: tuple[str, ...] = ()
) -> Callable[[Endpoint], Endpoint]:
    """Declare the terms of an endpoint; see `Terms`."""

    def declare(endpoint: Endpoint) -> Endpoint:
        vars(endpoint)["terms"] = Terms(access, timed, queries)
        return endpoint

    return declare


def terms_of(endpoint: Callable[..., Any]) -> Terms:
    """Those that were declared; without any, a key that may read is needed."""
    found: Terms = getattr(endpoint, "terms", Terms())
    return found

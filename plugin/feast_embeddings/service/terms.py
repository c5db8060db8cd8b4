"""The terms of an endpoint: its required access, time limit and query fields; its route enforces them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

__all__ = ["Access", "Terms", "terms", "terms_of"]

Access = Literal["open", "read", "write"]
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


@dataclass(frozen=True)
class Terms:
    """What an endpoint requires of a request.

    Attributes:
        access: the scope of key that it needs; `open` needs none.
        timed: whether the time limit applies. Loading a version may take longer.
        queries: the fields in which each id, or list of interactions, is a separate query.
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
    """Return the declared terms; by default, a key of scope read is needed."""
    found: Terms = getattr(endpoint, "terms", Terms())
    return found

"""Whatever its OpenAPI document allows and forbids, the service answers as that document says, and never with 5xx."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.support.maps import save_any_map
from tests.support.serving import service_of
from tests.support.shop import Shop, served_shop

KNOWN = {"model": "shop", "entity": "item"}
_CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)


@pytest.fixture(scope="module", params=["embedded"])
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A published shop of its own: what is asked may forget its users."""
    for made in served_shop(request, tmp_path_factory.mktemp("schema")):
        save_any_map(made.artifact, "item", ["a name"])
        yield made


@pytest.fixture(scope="module")
def api(shop: Shop) -> Any:
    """The service's document, by which schemathesis asks."""
    return schemathesis.openapi.from_asgi("/openapi.json", service_of(shop, allow_writes=True, allowed_hosts=("*",)))


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: str(mode.name).lower())
def test_answers_are_as_documented(api: Any, mode: GenerationMode) -> None:
    """Bounded: some generated requests per endpoint, such as it allows and such as it forbids."""
    statuses: dict[str, set[int]] = {}
    for found in api.get_all_operations():
        operation = found.ok()
        if mode == GenerationMode.NEGATIVE and operation.path.endswith(
            ("z", "/metrics", "/models", "/versions", "/map/{entity}")
        ):
            continue  # they take nothing that could be wrong

        named = {name: value for name, value in KNOWN.items() if f"{{{name}}}" in operation.path} or None

        @given(case=operation.as_strategy(generation_mode=mode, path_parameters=named))
        @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
        def ask(case: Any) -> None:
            answer = case.call_and_validate(checks=_CHECKS)
            statuses.setdefault(case.operation.path, set()).add(answer.status_code)

        ask()
    assert len(statuses) >= 12
    wanted = 200 if mode == GenerationMode.POSITIVE else 422
    # There is no version to go back to, the live one was trained without content, and random attributes are unknown.
    for name in ("rollback", "items", "search", "users"):
        del statuses[f"/v1/models/{{model}}/{name}"]
    if mode == GenerationMode.POSITIVE:
        # Options of queries name attributes and versions, which random words are not.
        statuses = {path: found for path, found in statuses.items() if "rank" not in path and "similar" not in path}
    assert len(statuses) >= 8
    assert [path for path, found in statuses.items() if wanted not in found] == []

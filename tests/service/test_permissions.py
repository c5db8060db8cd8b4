"""Feast's permissions over the service: a repo with ``auth: oidc`` and permissions in its registry, a real identity
provider's documents over HTTP, and signed tokens."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from feast import FeatureView
from feast.permissions.action import AuthzedAction
from feast.permissions.auth.auth_manager import AllowAll, set_auth_manager
from feast.permissions.permission import Permission
from feast.permissions.policy import GroupBasedPolicy, Policy, RoleBasedPolicy
from feast.permissions.security_manager import no_security_manager
from tests.support.asking import Asking
from tests.support.publishing import publish_any
from tests.support.shop import apply, qdrant, write_version

from feast_embeddings.repo import Repo, init_repo
from feast_embeddings.service import ServiceSettings, create_app

RANK = {"user_id": "u-1", "limit": 1}
READ, WRITE = [AuthzedAction.READ_ONLINE], [AuthzedAction.READ_ONLINE, AuthzedAction.WRITE_ONLINE]


def permission(name: str, policy: Policy, pattern: str = ".*", actions: list[AuthzedAction] = READ) -> Permission:
    """For the feature views whose whole name matches."""
    types: list[Any] = [FeatureView]
    return Permission(name, types=types, name_patterns=[pattern], policy=policy, actions=actions)


# Not Feast's policy AllowAll: in 0.67 one of those in the registry, and no permission can be read any more.
PERMISSIONS = [
    permission("readers", RoleBasedPolicy(["reader"]), "shop_.*"),
    permission("crew", GroupBasedPolicy(["crew"]), "shop_.*"),
    permission("halves", RoleBasedPolicy(["half"]), "shop_item_.*"),
    permission("guests", RoleBasedPolicy(["guest"]), "open_.*"),
    permission("writers", RoleBasedPolicy(["writer"]), actions=WRITE),
]


class Provider:
    """An identity provider: what it publishes of itself, and the tokens that it signs."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self._key.public_key()))
        documents: dict[str, Any] = {"/keys": {"keys": [public | {"kid": "one", "use": "sig", "alg": "RS256"}]}}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps(documents[self.path]).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        endpoints = {f"{name}_endpoint": f"{self.address}/{name}" for name in ("authorization", "token")}
        documents["/discovery"] = {"jwks_uri": f"{self.address}/keys"} | endpoints

    def token(self, name: str, *, seconds: float = 60, key: Any = None, **claims: Any) -> str:
        """Somebody's token."""
        claims = {"preferred_username": name, "exp": time.time() + seconds, **claims}
        return jwt.encode(claims, key or self._key, algorithm="RS256", headers={"kid": "one"})


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    """Answers over HTTP."""
    made = Provider()
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join(10)


@pytest.fixture(scope="module")
def repo(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repo]:
    """Two published models, with auth in the configuration and permissions in the registry."""
    repo = init_repo(tmp_path_factory.mktemp("permissions") / "repo")
    file = repo.path / "feature_store.yaml"
    auth = {"type": "oidc", "client_id": "feast", "auth_discovery_url": f"{provider.address}/discovery"}
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"auth": auth}))
    for model in ("shop", "open"):
        artifact = write_version(repo.data, model=model)
        feature_store = apply(repo, model)
        publish_any(feature_store, artifact)
    feature_store.apply([*PERMISSIONS])
    yield repo
    qdrant(feature_store).engine(feature_store.config).close()


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """Feast keeps who may what for the whole process."""
    yield
    no_security_manager()  # type: ignore[no-untyped-call]
    set_auth_manager(AllowAll())  # type: ignore[no-untyped-call]


@pytest.fixture
def service(repo: Repo) -> Asking:
    """The service of that repo, as it stands."""
    return Asking(create_app(ServiceSettings(repo=repo.path)))


def roles(*names: str) -> dict[str, Any]:
    """As Keycloak writes them into a token."""
    return {"resource_access": {"feast": {"roles": list(names)}}}


Status = Callable[..., int]


@pytest.fixture
def status(service: Asking) -> Status:
    """What a token gets for a question."""

    def ask(token: str | None, path: str = "/v1/models/shop/rank", body: Any = RANK, *, method: str = "POST") -> int:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        answer = service.request(method, path, json=body, headers=headers)
        if answer.status_code != 200:
            assert answer.headers["content-type"] == "application/problem+json"
        return answer.status_code

    return ask


def test_permissions_say_who_may_what(status: Status, provider: Provider) -> None:
    """By role, by group, for everybody; both views of a model are needed; to publish needs more than to read."""
    found = {
        name: status(provider.token(name, **claims))
        for name, claims in {
            "reader": roles("reader"),
            "in the roles of Entra": {"roles": ["reader"]},
            "of the crew": {"groups": ["crew"]},
            "writer": roles("writer"),
            "of items only": roles("half"),
            "guest": roles("guest"),
            "stranger": {},
        }.items()
    }
    assert found == {
        **dict.fromkeys(("reader", "in the roles of Entra", "of the crew", "writer"), 200),
        **dict.fromkeys(("of items only", "guest", "stranger"), 403),
    }
    assert status(provider.token("guest", **roles("guest")), "/v1/models/open/rank") == 200
    publish = "/v1/models/shop/publish"
    assert status(provider.token("reader", **roles("reader")), publish, {}) == 403
    assert status(provider.token("writer", **roles("writer")), publish, {}) == 200


def test_every_endpoint_of_a_model_asks(service: Asking, status: Status, provider: Provider) -> None:
    """No documented endpoint admits a user without permissions, or a request without a token."""
    stranger = provider.token("stranger")
    example: dict[str, Any] = {
        "user_id": "u-1",
        "item_id": "sku-1",
        "text": "red",
        "user_ids": ["u-1"],
        "item_ids": ["sku-1"],
    }
    example |= {"text": "red"}
    example |= {
        "interactions": [{"user_id": "u-1", "item_id": "sku-1"}],
        "items": [{"item_id": "x", "metadata": {"title": "x"}}],
    }
    example |= {"users": [{"user_id": "u-1", "metadata": {"country": "NL"}}]}
    bodies = {
        "create_user_embedding": ["user_ids"],
        "create_item_embedding": ["item_ids"],
        "similar_items": ["item_id"],
        "similar_users": ["user_id"],
        "rank": ["user_id"],
        "search": ["text"],
        "users_for_item": ["item_id"],
        "similar_items/batch": ["item_ids"],
        "similar_users/batch": ["user_ids"],
        "rank/batch": ["user_ids"],
        "users_for_item/batch": ["item_ids"],
        "interactions": ["interactions"],
        "items": ["items"],
        "users": ["users"],
        "forget": ["user_ids"],
        "hide": ["user_ids"],
        "unhide": ["user_ids"],
        "publish": [],
        "rollback": [],
    }
    documented = service.get("/openapi.json").json()["paths"]
    paths = [(path, method.upper()) for path, methods in documented.items() if "{model}" in path for method in methods]
    for path, method in paths:
        name = path.partition("{model}/")[2]
        if method == "GET":
            headers, read = {"authorization": f"Bearer {stranger}"}, f"/v1/models/shop/{name.format(entity='item')}"
            found = [service.get(read, headers=more).status_code for more in (headers, {})]
        else:
            body = {"entity": "item"} if name == "retrieve" else {key: example[key] for key in bodies[name]}
            found = [status(token, f"/v1/models/shop/{name}", body, method=method) for token in (stranger, None)]
        assert found == [403, 401], (method, path)
    assert len(paths) >= 14


def test_models_that_may_not_be_read_are_not_listed(service: Asking, provider: Provider) -> None:
    """To each caller their own."""

    def names(**claims: Any) -> list[str]:
        headers = {"authorization": f"Bearer {provider.token('somebody', **claims)}"}
        return [model["name"] for model in service.get("/v1/models", headers=headers).json()["models"]]

    assert names() == []
    assert names(**roles("guest")) == ["open"]
    assert names(**roles("guest", "reader")) == ["open", "shop"]
    assert service.get("/v1/models").status_code == 401


@pytest.mark.parametrize("project", ["anything", "", "*", "my%00project", "a&project=b"])
def test_naming_a_project_opens_nothing(service: Asking, provider: Provider, project: str) -> None:
    """Feast's own servers take it from the query, and where it has no permissions everybody may do everything."""

    def ask(method: str, path: str, body: Any = None, *, token: str | None) -> int:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        return service.request(method, f"{path}?project={project}", json=body, headers=headers).status_code

    asked: list[tuple[str, str, Any]] = [
        ("POST", "/v1/models/shop/rank", RANK),
        ("POST", "/v1/models/shop/publish", {}),
        ("POST", "/v1/models/shop/rollback", {}),
        ("GET", "/v1/models/shop/versions", None),
        ("GET", "/metrics", None),
    ]
    stranger, reader = provider.token("stranger"), provider.token("reader", **roles("reader"))
    assert [ask(*each, token=None) for each in asked] == [401] * 5
    assert [ask(*each, token=stranger) for each in asked] == [403] * 5
    assert [ask(*each, token=reader) for each in asked] == [200, 403, 403, 200, 403]
    listed = service.get(f"/v1/models?project={project}", headers={"authorization": f"Bearer {stranger}"})
    assert listed.json() == {"models": []}


def test_metrics_are_closed(service: Asking, provider: Provider) -> None:
    """They name every model, so they are for those who may read all of them."""

    def ask(token: str | None) -> int:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        answer = service.get("/metrics", headers=headers)
        assert ("feast_embeddings_live_version" in answer.text) == (answer.status_code == 200)
        return answer.status_code

    tokens = [None, "nonsense", *(provider.token("x", **roles(*names)) for names in [(), ("reader",), ("guest",)])]
    assert [ask(token) for token in tokens] == [401, 401, 403, 403, 403]
    everything = [provider.token("x", **roles(*names)) for names in [("writer",), ("reader", "guest")]]
    assert [ask(token) for token in everything] == [200, 200]


def test_tokens_that_are_none(status: Status, provider: Provider) -> None:
    """Not a token, of another's key, run out, changed after signing, or unsigned."""
    good = provider.token("reader", **roles("reader"))
    head, claims, signature = good.split(".")
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    unsigned = jwt.encode({"preferred_username": "reader", **roles("reader")}, "", algorithm="none")
    _, richer, _ = provider.token("reader", **roles("reader", "writer")).split(".")
    bad = [
        *("", "nonsense", f"{head}.{claims}.", f"{head}.{richer}.{signature}", unsigned),
        provider.token("reader", key=other, **roles("reader")),
        provider.token("reader", seconds=-60, **roles("reader")),
    ]
    assert [status(token) for token in bad] == [401] * len(bad)
    assert status(good) == 200


def test_a_provider_that_does_not_answer(repo: Repo, provider: Provider, tmp_path: Path) -> None:
    """No one is admitted, and nothing fails."""
    config = yaml.safe_load((repo.path / "feature_store.yaml").read_text())
    config["auth"]["auth_discovery_url"] = "http://127.0.0.1:9/discovery"
    config["registry"]["path"] = str(repo.data / "registry.db")
    config["online_store"]["path"] = str(repo.path / "qdrant_storage")
    (tmp_path / "feature_store.yaml").write_text(yaml.safe_dump(config))
    service = Asking(create_app(ServiceSettings(repo=tmp_path)))
    headers = {"authorization": f"Bearer {provider.token('reader', **roles('reader'))}"}
    assert service.post("/v1/models/shop/rank", RANK, headers=headers).status_code == 401
    assert service.get("/healthz").status_code == 200


def test_a_registry_without_permissions(
    repo: Repo, provider: Provider, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """No one may do anything; Feast's own servers would let anyone with a token do everything."""
    feature_store = repo.feature_store()
    monkeypatch.setattr(feature_store.registry, "list_permissions", lambda **_: [])
    monkeypatch.setattr("feast_embeddings.repo.Repo.feature_store", lambda _: feature_store)
    status: Status = request.getfixturevalue("status")
    assert (status(provider.token("stranger")), status(None)) == (403, 401)

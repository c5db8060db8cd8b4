"""The manifests of docs/kubernetes.md: fields, settings and commands; and Kubernetes' own schemas."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from feast.repo_config import load_repo_config
from tests.conftest import ROOT

from feast_embeddings.cli.refresh import refresh
from feast_embeddings.cli.serve import serve

_BLOCKS = re.findall(r"```yaml\n# (\w+)\.yaml\n(.*?)```", (ROOT / "docs" / "kubernetes.md").read_text(), re.DOTALL)
MANIFESTS: dict[str, dict[str, Any]] = {name: yaml.safe_load(text) for name, text in _BLOCKS}
_POD_OF = {
    "deployment": lambda job: job["spec"]["template"],
    "cronjob": lambda job: job["spec"]["jobTemplate"]["spec"]["template"],
}


def pod(name: str) -> dict[str, Any]:
    return dict(_POD_OF[name](MANIFESTS[name])["spec"])


def container(name: str) -> dict[str, Any]:
    (found,) = pod(name)["containers"]
    return dict(found)


def test_kinds() -> None:
    assert {name: (each["apiVersion"], each["kind"]) for name, each in MANIFESTS.items()} == {
        "configmap": ("v1", "ConfigMap"),
        "deployment": ("apps/v1", "Deployment"),
        "service": ("v1", "Service"),
        "cronjob": ("batch/v1", "CronJob"),
    }


@pytest.mark.parametrize("name", MANIFESTS)
def test_kubernetes_own_schemas(name: str) -> None:
    kubernetes_validate.validate(MANIFESTS[name], "1.29", strict=True)


def test_settings_are_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By Feast and our store; nothing of them is below the data folder, which a pod loses."""
    text = MANIFESTS["configmap"]["data"]["feature_store.yaml"]
    (tmp_path / "feature_store.yaml").write_text(text)
    monkeypatch.setenv("REGISTRY_PASSWORD", "s3cret")
    config = load_repo_config(tmp_path, tmp_path / "feature_store.yaml")
    assert config.online_store.artifact_store.startswith("s3://")
    assert config.online_store.path is None
    assert config.registry.registry_type == "sql"
    assert config.registry.path.startswith("postgresql+psycopg://feast:s3cret@")
    assert "data/" not in text
    mounts = {mount["name"]: mount["mountPath"] for mount in container("deployment")["volumeMounts"]}
    assert config.online_store.api_key_file == f"{mounts['secrets']}/qdrant"


@pytest.mark.parametrize("name", ["deployment", "cronjob"])
def test_pods(name: str) -> None:
    """As the user of the image, with nothing to write to but volumes that are there."""
    user = pod(name)["securityContext"]["runAsUser"]
    assert f"USER {user}:{user}" in (ROOT / "Dockerfile").read_text()
    assert pod(name)["securityContext"]["runAsNonRoot"]
    security = container(name)["securityContext"]
    assert security["readOnlyRootFilesystem"]
    assert not security["allowPrivilegeEscalation"]
    mounts = container(name)["volumeMounts"]
    volumes = {volume["name"]: set(volume) - {"name"} for volume in pod(name)["volumes"]}
    assert {mount["name"] for mount in mounts} == set(volumes)
    writable = {mount["mountPath"] for mount in mounts if not mount.get("readOnly")}
    assert writable == {"/repo/data", "/tmp"}  # noqa: S108 - of the container
    assert volumes["tmp"] == {"emptyDir"}
    keys = {
        variable["valueFrom"]["secretKeyRef"]["key"] for variable in container(name)["env"] if "valueFrom" in variable
    }
    assert keys == {"registry"}


def test_commands() -> None:
    """Each is one that the command line takes, with the files that are mounted."""
    words = container("deployment")["command"]
    assert words[:2] == ["feast-embeddings", "serve"]
    options = serve.make_context("serve", words[2:]).params
    assert (options["repo"], options["port"]) == ("/repo", container("deployment")["ports"][0]["containerPort"])
    mounts = [Path(mount["mountPath"]) for mount in container("deployment")["volumeMounts"]]
    assert options["key_file"].parent in mounts
    assert Path(options["repo"], "feature_store.yaml") in mounts
    words = container("cronjob")["command"]
    assert words[:2] == ["feast-embeddings", "refresh"]
    assert refresh.make_context("refresh", words[2:]).params["model"] == "shop"
    assert MANIFESTS["cronjob"]["spec"]["concurrencyPolicy"] == "Forbid"


def test_rollout() -> None:
    """No request without a pod: a new one is ready before an old one ends, and those that run are answered."""
    spec = MANIFESTS["deployment"]["spec"]
    assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"] == MANIFESTS["service"]["spec"]["selector"] == labels
    assert MANIFESTS["service"]["spec"]["ports"][0]["targetPort"] == container("deployment")["ports"][0]["name"]
    probes = {name: container("deployment")[f"{name}Probe"]["httpGet"]["path"] for name in ("liveness", "readiness")}
    assert probes == {"liveness": "/healthz", "readiness": "/readyz"}
    assert pod("deployment")["terminationGracePeriodSeconds"] > 30

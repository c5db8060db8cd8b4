"""The gates: what may not replace the live version unasked, said all at once, each with its way past it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.conftest import Command
from tests.support.shop import Shop, write_version

from feast_embeddings.artifact import Manifest
from feast_embeddings.errors import GateError
from feast_embeddings.publish.gates import Gates, Live, evaluate_gates, refuse_failed
from feast_embeddings.publish.run import publish_artifact
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.times import is_future


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """A manifest with two metrics."""
    written = write_version(tmp_path_factory.mktemp("data"), n_users=100, n_items=50).manifest
    metrics = {"popular_recall@20": 0.9, "recall@20": 0.20, "ndcg@20": 0.10}
    return written.model_copy(update={"metrics": metrics, "evaluated_on": "newest 10% of the interactions, 90 users"})


def results(new: Manifest, old: Manifest | None, gates: Gates | None = None, **live: Any) -> dict[str, tuple[str, str]]:
    """Gate -> status and detail."""
    of = new if old is None else old
    counts: Any = {"user": of.n_users, "item": of.n_items}
    described = Live(
        **{"versions": frozenset([of.version]), "spaces": frozenset([of.space_id]), "counts": counts, "manifest": old}
        | live
    )
    return {r.name: (r.status, r.detail) for r in evaluate_gates(new, described, gates or Gates())}


def changed(manifest: Manifest, **changes: Any) -> Manifest:
    return manifest.model_copy(update=changes)


@pytest.mark.parametrize(("recall", "status"), [(0.25, "passed"), (0.19, "passed"), (0.1899, "failed")])
def test_a_metric_may_drop_by_the_margin(manifest: Manifest, recall: float, status: str) -> None:
    """Five percent of the live value by default; the detail names metric, both values and the margin."""
    new = changed(manifest, metrics={"recall@20": recall}, evaluated_on="newest 10% of the interactions, 300 users")
    found, detail = results(new, manifest)["metric"]
    assert found == status
    assert detail == f"recall@20 is {recall:.4f}, live 0.2000; expected at least 0.1900, a drop of 5%"
    assert results(new, manifest, Gates(max_metric_drop=0.5))["metric"][0] == "passed"
    overruled = results(new, manifest, Gates(allow_worse=True))["metric"][0]
    assert overruled == ("overruled" if status == "failed" else "passed")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"metrics": {}}, "not evaluated with the same metric"),
        ({"metrics": {"popular_recall@20": 0.0}}, "not evaluated with the same metric"),
        (
            {"metrics": {"recall@20": 0.0}, "evaluated_on": "random 20% of each user's items, 90 users"},
            "different kinds",
        ),
    ],
)
def test_metrics_that_cannot_be_compared_do_not_count(manifest: Manifest, changes: dict[str, Any], reason: str) -> None:
    """No metric in common, or another kind of holdout: it is said, and nothing is refused."""
    status, detail = results(changed(manifest, **changes), manifest)["metric"]
    assert status == "not comparable"
    assert reason in detail
    assert results(manifest, None)["metric"][0] == "not comparable"


@pytest.mark.parametrize(
    ("n_users", "n_items", "status"),
    [(90, 45, "passed"), (89, 50, "failed"), (100, 44, "failed"), (900, 900, "passed")],
)
def test_coverage_may_shrink_by_the_margin(manifest: Manifest, n_users: int, n_items: int, status: str) -> None:
    """A tenth of the users or of the items by default, of the live artifact or, without it, collection."""
    new = changed(manifest, n_users=n_users, n_items=n_items)
    assert results(new, manifest)["coverage"][0] == status
    counts = {"user": 100, "item": 50}
    found, detail = results(new, None, counts=counts)["coverage"]
    assert found == status
    assert detail.startswith(
        f"it has {n_users} users, live 100 and {n_items} items, live 50; expected at most 10% fewer"
    )
    assert results(new, manifest, Gates(max_shrink=0.9))["coverage"][0] == "passed"
    assert results(new, manifest, Gates(allow_shrink=True))["coverage"][0] in ("passed", "overruled")


def test_another_space_has_to_be_allowed(manifest: Manifest) -> None:
    """An aligned version has the space of the live one and passes; both spaces of a mixed state are named."""
    assert results(manifest, manifest)["space"][0] == "passed"
    other = changed(manifest, space_id="elsewhere")
    status, detail = results(other, manifest)["space"]
    assert status == "failed"
    assert "of space elsewhere" in detail
    assert manifest.space_id in detail
    assert results(other, manifest, Gates(allow_new_space=True))["space"][0] == "overruled"
    mixed = results(manifest, manifest, spaces=frozenset(["a", manifest.space_id]))["space"]
    assert mixed[0] == "failed"


def test_all_that_fails_is_said_at_once(shop: Shop) -> None:
    """One error names every gate with its values and its flag; the live version stays and nothing is loaded."""
    store = shop.publish()
    worse = write_version(shop.repo.data, seed=1, n_users=3)
    shards = shop.repo.path / "qdrant_storage" / "shards"
    before = sorted(path.name for path in shards.iterdir())
    with pytest.raises(GateError) as error:
        publish_artifact(shop.feature_store, worse)
    message = str(error.value)
    assert "3 users, live 20" in message
    assert "--allow-shrink" in message
    assert "--allow-new-space" in message
    assert shop.artifact.manifest.space_id in message
    assert "--allow-worse" not in message
    assert sorted(path.name for path in shards.iterdir()) == before
    assert store.live_version() == shop.artifact.manifest.version
    gates = Gates(allow_shrink=True, allow_new_space=True)
    result = publish_artifact(shop.feature_store, worse, gates=gates)
    assert [gate.status for gate in result.gates] == ["not comparable", "overruled", "overruled"]
    assert EmbeddingStore(shop.feature_store, "shop").live_version() == worse.manifest.version


def test_data_of_the_future_has_to_be_allowed(shop: Shop, command: Command) -> None:
    """Also as the first version, and in a dry run; a log in the local time of any place is none."""
    write_version(shop.repo.data, seed=1, as_of=datetime(9999, 1, 2, tzinfo=UTC))
    for arguments in ((), ("--dry-run",)):
        refused = command("publish", "--repo", shop.repo.path, "--quiet", *arguments)
        assert refused.code == 2
        assert refused.err.count("\n") == 1
        assert "its data reaches to 9999-01-02T00:00:00+00:00, which is in the future" in refused.err
        assert "--allow-future publishes it anyway" in refused.err
    allowed = command("publish", "--repo", shop.repo.path, "--quiet", "--allow-future")
    assert (allowed.code, "time overruled" in allowed.out) == (0, True), allowed.err
    assert not is_future(datetime.now(UTC) + timedelta(hours=14))
    assert is_future(datetime.now(UTC) + timedelta(hours=25))


def test_nothing_live_nothing_to_compare(shop: Shop) -> None:
    """The first version goes live without any flag."""
    assert publish_artifact(shop.feature_store, shop.artifact).gates == []
    refuse_failed("v", [])


def test_the_command_line(shop: Shop, command: Command) -> None:
    """A dry run says what would happen and changes nothing, with the exit code of the real run; flags open gates."""
    place = ("--repo", shop.repo.path)
    first = shop.artifact.manifest.version
    plan = json.loads(command("publish", *place, "--dry-run", "--json").out)
    assert (plan["version"], plan["live"], plan["changed"], plan["gates"]) == (first, None, True, [])
    assert [(side["points"], side["to_load"]) for side in plan["sides"]] == [(20, 20), (40, 40)]
    assert not (shop.repo.path / "qdrant_storage").exists()
    assert command("publish", *place).code == 0
    second = write_version(shop.repo.data, seed=1).manifest.version
    for dry in ((), ("--dry-run",)):
        refused = command("publish", *place, *dry)
        assert refused.code == 2
        assert refused.err.count("\n") == 1
        assert "--allow-new-space" in refused.err
    assert "space failed: its vectors are of space" in refused.out
    answer = command("publish", *place, "--dry-run", "--allow-new-space")
    assert answer.code == 0
    assert f"shop {second} would become live, after {first}; nothing was changed" in answer.out
    assert "40 items, 40 of them to load" in answer.out
    assert json.loads(command("versions", *place, "--json").out)["live"] == first
    published = json.loads(command("publish", *place, "--allow-new-space", "--json").out)
    assert (published["changed"], published["previous"], published["version"]) == (True, first, second)
    assert published["recall"]["item"] == {"embedding": 1.0, "embedding__cosine": 1.0}
    again = command("publish", *place)
    assert (again.code, again.out) == (0, f"shop {second} is live already; nothing changed\n")


def test_margins_are_shares(shop: Shop, command: Command) -> None:
    """A margin below 0 or above 1 is bad input."""
    for option in ("--max-shrink", "--max-metric-drop"):
        refused = command("publish", "--repo", shop.repo.path, option, "1.5")
        assert refused.code == 2
        assert option in refused.err

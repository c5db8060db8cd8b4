"""Drift of a live version, over each engine, against numpy and dictionaries; and what the command says."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from tests.conftest import Command
from tests.support.shop import (
    AS_OF,
    ENGINES,
    METRICS,
    Shop,
    apply,
    item_table,
    served_shop,
    write_tables,
    write_version,
)

from feast_embeddings.analysis.drift import (
    Drift,
    Limits,
    live_rows,
    measure_drift,
    read_interactions,
    recorded_interactions,
)
from feast_embeddings.artifact import Artifact
from feast_embeddings.errors import InputError
from feast_embeddings.events import event_log_of
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.repo import init_repo

N_USERS, N_ITEMS = 20, 40
DRIFTED = 3
DAY = timedelta(days=1)


@pytest.fixture(scope="module", params=ENGINES)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A published shop over each engine in turn; tests only read from it."""
    yield from served_shop(request, tmp_path_factory.mktemp("shop"), functools.partial(write_version, metrics=METRICS))


def log_of(*pairs: tuple[str, str], after: timedelta = DAY) -> pa.Table:
    users, items = zip(*pairs, strict=True)
    return pa.table({"user_id": users, "item_id": items, "timestamp": [AS_OF + after] * len(pairs)})


def drift_of(shop: Shop, *logs: pa.Table, limits: Limits | None = None, since: datetime | None = None) -> Drift:
    live = EmbeddingStore(shop.feature_store, "shop").live()
    new = read_interactions(logs, shop.artifact, since)
    return measure_drift(live, shop.artifact, new, limits, now=AS_OF + 10 * DAY)


def values_of(drift: Drift) -> dict[str, Any]:
    return {measure.name: measure.value for measure in drift.measures}


def shannon(p: dict[str, float], q: dict[str, float]) -> float:
    total = 0.0
    for key in p.keys() | q.keys():
        a, b = p.get(key, 0.0), q.get(key, 0.0)
        total += sum(x * np.log2(2 * x / (a + b)) / 2 for x in (a, b) if x)
    return float(total**0.5)


def test_every_measure_by_the_slow_way(served: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the interactions are with items that no one knows, a quarter by users that no one knows."""
    monkeypatch.setattr(live_rows, "_ROWS", 20)  # all users are a block
    rng = np.random.default_rng(1)
    pairs = [(f"u-{rng.integers(N_USERS)}", f"sku-{rng.integers(N_ITEMS)}") for _ in range(60)]
    pairs += [(f"u-{n % N_USERS}", f"new-{n % 7}") for n in range(60)]
    pairs = [(f"stranger-{n % 3}" if n % 4 == 0 else user, item) for n, (user, item) in enumerate(pairs)]
    found = drift_of(served, log_of(*pairs))
    values = values_of(found)
    assert (found.n_interactions, found.n_new_ids) == (120, {"user": 3, "item": 7})
    assert (values["unknown_users"], values["unknown_items"], values["age_days"]) == (0.25, 0.5, 10)

    users, items = (served.artifact.table(entity).to_pandas() for entity in ("user", "item"))
    scores = np.stack(list(users.embedding)) @ np.stack(list(items.embedding)).T + items.bias.to_numpy()
    popular = [items.item_id[i] for i in np.argsort(-items.n_interactions, kind="stable")]
    by_user: dict[str, list[float]] = {}
    for row, user in enumerate(users.user_id):
        seen = set(users.seen_items[row])
        truth = {item for who, item in pairs if who == user and item.startswith("sku-")} - seen
        if truth:
            ranked = [items.item_id[i] for i in np.argsort(-scores[row]) if items.item_id[i] not in seen]
            by_user[user] = []
            for order in (ranked, [item for item in popular if item not in seen]):
                places = [place for place, item in enumerate(order[:20]) if item in truth]
                gains = sum(1 / np.log2(place + 2) for place in places)
                ideal = sum(1 / np.log2(place + 2) for place in range(min(20, len(truth))))
                by_user[user] += [len(places) / len(truth), gains / ideal]
    assert found.n_users == len(by_user) > 10
    names = ["recall@20", "ndcg@20", "popular_recall@20", "popular_ndcg@20"]
    np.testing.assert_allclose([values[name] for name in names], np.mean(list(by_user.values()), axis=0), rtol=1e-6)
    assert values["recall_ratio"] == pytest.approx(values["recall@20"] / METRICS["recall@20"])
    (recall,) = (measure for measure in found.measures if measure.name == "recall@20")
    assert recall.low is not None
    assert recall.high is not None
    assert 0 <= recall.low < values["recall@20"] < recall.high <= 1

    now = {item: n / 120 for item, n in Counter(item for _, item in pairs).items()}
    counts = items.n_interactions / items.n_interactions.sum()
    assert values["popularity_shift"] == pytest.approx(shannon(now, dict(zip(items.item_id, counts, strict=True))))
    # Nothing was written since.
    assert (values["later_users"], values["changed_users"], values["user_norm_ratio"]) == (0, 0, 1)
    assert (values["later_items"], values["changed_items"], values["item_norm_ratio"]) == (0, 0, 1)
    assert (values["neighbour_overlap"], found.n_items) == (1, N_ITEMS)
    assert {measure.name for measure in found.beyond} == {"unknown_items", "popularity_shift"}


@pytest.mark.parametrize(("n", "again"), [(1, False), (9, False), (30, True)])
def test_a_few_interactions_are_no_shift(shop: Shop, n: int, again: bool) -> None:
    """However rare or unknown their items are."""
    shop.publish()
    found = drift_of(shop, log_of(*[(f"u-{row % N_USERS}", "sku-0") for row in range(n)]))
    assert ("popularity_shift" in {measure.name for measure in found.beyond}) == again


def push(shop: Shop, table: pa.Table) -> None:
    """Write rows of items into the live collection, as fold-in does."""
    store = EmbeddingStore(shop.feature_store, "shop")
    shop.feature_store.write_to_online_store(
        store.side("item").view.name, store.side("item").renamed(table).to_pandas()
    )


def test_live_rows_that_came_later(shop: Shop) -> None:
    """Ten items doubled and turned, five new ones: what is later, changed and no longer near, by the slow way."""
    shop.publish()
    trained = shop.artifact.table("item").to_pandas()
    moved, new = trained[:10].copy(), trained[10:15].copy()
    old = np.stack(list(trained.embedding))
    turned = -2 * old[:10]
    moved["embedding"], new["item_id"] = list(turned), [f"new-{n}" for n in range(5)]
    for rows in (moved, new):
        rows["event_timestamp"] = pd.Timestamp(AS_OF + DAY).as_unit("us")
        push(shop, pa.Table.from_pandas(rows, schema=shop.artifact.table("item").schema, preserve_index=False))
    found = drift_of(shop, log_of(("u-1", "new-1"), ("u-1", "sku-9")))
    values = values_of(found)
    assert values["later_items"] == 15 / 45
    assert values["changed_items"] == 10 / 40
    assert values["item_norm_ratio"] == pytest.approx((10 * 2 + 30) / 40)
    assert (values["later_users"], values["changed_users"]) == (0, 0)
    assert (values["unknown_items"], found.n_new_ids["item"]) == (0, 0)

    def nearest(vectors: Any, ids: list[str]) -> list[set[str]]:
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        cosines = unit @ unit.T
        np.fill_diagonal(cosines, -np.inf)
        return [{ids[j] for j in np.argsort(-row)[:10]} for row in cosines]

    ids = trained.item_id.tolist()
    now = np.concatenate([turned, old[10:], old[10:15]])
    pairs = zip(nearest(old, ids), nearest(now, ids + new.item_id.tolist())[:N_ITEMS], strict=True)
    assert values["neighbour_overlap"] == pytest.approx(np.mean([len(a & b) / 10 for a, b in pairs]))
    assert {measure.name for measure in found.beyond} >= {"later_items", "neighbour_overlap"}


def test_what_is_new(shop: Shop) -> None:
    """Later than the version, or from a time on; all rows of a log without times."""
    old, edge, new = (log_of(("u-1", "sku-1"), after=after) for after in (-DAY, timedelta(), timedelta(microseconds=1)))
    found = read_interactions([old, edge, new], shop.artifact)
    assert (len(found), found.n_older, found.since) == (1, 2, AS_OF)
    assert len(read_interactions([old, edge, new], shop.artifact, AS_OF)) == 2
    untimed = old.drop_columns(["timestamp"])
    assert (len(read_interactions([untimed], shop.artifact)), read_interactions([untimed], shop.artifact).since) == (
        1,
        None,
    )
    with pytest.raises(InputError, match="'timestamp'"):
        read_interactions([untimed], shop.artifact, AS_OF)
    with pytest.raises(InputError, match="some of the files have a column 'timestamp'"):
        read_interactions([untimed, new], shop.artifact)


def version_of_events(data: Path, **reading: str) -> Artifact:
    """A version that recorded other names, what each type of event weighs, and how its log was read."""
    columns = {"user": "who", "item": "what", "timestamp": "at", "weight": "stars", "event": "kind"}
    preparation = {"event_weights": {"view": 0, "buy": 2}}
    return write_version(data, interactions={"columns": columns, "preparation": preparation, "reading": reading})


def test_read_as_the_training_read(tmp_path: Path) -> None:
    """Names of columns, ids as text, and rows of weight 0 or of a type that weighs 0 left out."""
    artifact = version_of_events(tmp_path)
    log = tmp_path / "log.csv"
    rows = ["7,sku-1,2026-06-01,5,buy", "7,sku-2,2026-06-01,0,buy", "8,sku-3,2026-06-01,5,view", "9,4,2020-01-01,1,buy"]
    log.write_text("\n".join(["who,what,at,stars,kind", *rows]))
    found = read_interactions([log], artifact)
    assert {entity: ids.to_pylist() for entity, ids in found.ids.items()} == {"user": ["7"], "item": ["sku-1"]}
    assert (found.n_older, found.n_bad) == (1, 0)
    log.write_text(f"{log.read_text()}\n9,4,2026-06-01,1,gift")
    with pytest.raises(InputError, match="1 of 5 rows cannot be used"):
        read_interactions([log], artifact)
    found = read_interactions([log], version_of_events(tmp_path, on_bad_rows="drop"))
    assert (len(found), found.n_bad) == (1, 1)


def test_recorded_events_do_not_predict_themselves(shop: Shop) -> None:
    """What is recorded changes `rank`, but is judged by the vectors that were trained, and is not seen."""
    store = shop.publish()
    told = [{"user_id": f"u-{n}", "item_id": f"sku-{n + 5}", "timestamp": AS_OF + DAY} for n in range(10)]
    store.add_interactions([*told, {"user_id": "u-1", "item_id": "sku-30", "timestamp": AS_OF - DAY}])
    new = recorded_interactions(event_log_of(shop.repo.data, "shop"), shop.artifact)
    found = measure_drift(store.live(), shop.artifact, new)
    same = drift_of(shop, log_of(*((f"u-{n}", f"sku-{n + 5}") for n in range(10))))
    assert (len(new), new.n_older, found.n_users) == (10, 1, 10)
    assert [m.value for m in found.measures if m.name != "age_days"] == [
        m.value for m in same.measures if m.name != "age_days"
    ]


def test_an_interval_is_what_counts(shop: Shop) -> None:
    """A ratio below the limit is beyond it only if its whole interval is."""
    shop.publish()
    log = log_of(*((f"u-{n}", f"sku-{(n * 7 + 20) % N_ITEMS}") for n in range(N_USERS)))
    (before,) = (m for m in drift_of(shop, log).measures if m.name == "recall@20")
    assert before.value is not None
    assert before.low is not None
    assert before.high is not None
    for own, beyond in ((before.value * 1.01, False), (before.high * 1.01, True)):
        artifact = Artifact(
            shop.artifact.path, shop.artifact.manifest.model_copy(update={"metrics": {"recall@20": own}})
        )
        found = drift_of(Shop(shop.repo, artifact, shop.feature_store), log, limits=Limits(min_recall_ratio=1))
        (ratio,) = (m for m in found.measures if m.name == "recall_ratio")
        assert ratio.beyond == beyond
        assert ratio.value == pytest.approx(before.value / own)


def test_another_version(shop: Shop) -> None:
    shop.publish()
    other = write_version(shop.repo.data, seed=1)
    with pytest.raises(InputError, match=f"cannot be compared with {other.manifest.version}"):
        drift_of(Shop(shop.repo, other, shop.feature_store), log_of(("u-1", "sku-1")))


def test_items_alone_with_whole_numbers_as_ids(tmp_path: Path) -> None:
    """What needs users is left out; ids are numbers, also those of a file that has text."""
    repo = init_repo(tmp_path / "repo")
    ids = pa.array(range(N_ITEMS), pa.int64())
    artifact = write_tables(repo.data, items=item_table(np.random.default_rng(0), ids))
    made = Shop(repo, artifact, apply(repo))
    made.publish()
    found = drift_of(made, log_of(("u-1", "3"), ("u-1", "39"), ("u-2", "40"), ("u-3", "40")))
    values = values_of(found)
    assert (values["unknown_items"], found.n_new_ids, values["neighbour_overlap"]) == (0.5, {"item": 1}, 1)
    assert [name for name in values if "user" in name or "recall" in name] == []
    counts = {str(n): (n + 1) / 820 for n in range(N_ITEMS)}
    assert values["popularity_shift"] == pytest.approx(shannon({"3": 0.25, "39": 0.25, "40": 0.5}, counts))


def fresh_shop(shop: Shop) -> Shop:
    """The same shop with a version of today."""
    artifact = write_version(shop.repo.data, as_of=datetime.now(UTC) - timedelta(hours=1), metrics=METRICS)
    made = Shop(shop.repo, artifact, shop.feature_store)
    made.publish()
    return made


def test_the_command(command: Command, shop: Shop, tmp_path: Path) -> None:
    """Exit codes, lines, metrics and JSON: nothing new, something new, unknown items, old, and bad input."""
    place = ("drift", "--repo", shop.repo.path, "--model", "shop")
    ran = command(*place)
    assert (ran.code, len(ran.err.splitlines())) == (1, 1)  # nothing is live
    made = fresh_shop(shop)
    metrics = tmp_path / "drift.prom"
    ran = command(*place, "--textfile", metrics)
    assert (ran.code, ran.err) == (0, "")
    assert "there are no new interactions, so only the age counts" in ran.out
    assert ran.out.endswith("no reason to train again\n")
    assert 'feast_embeddings_drift_exit_code{model="shop"} 0.0\n' in metrics.read_text()
    ran = command(*place, "--max-age", "0.01", "--textfile", metrics)
    assert (ran.code, ran.out.splitlines()[-1]) == (DRIFTED, "train again: age_days")
    assert 'drift_exit_code{model="shop"} 3.0\n' in metrics.read_text()
    assert 'drift_beyond{model="shop",name="age_days"} 1.0\n' in metrics.read_text()

    moment = (made.artifact.manifest.as_of + timedelta(minutes=1)).isoformat()
    logs = [tmp_path / "known.csv", tmp_path / "new.csv"]
    for log, prefix in zip(logs, ("sku", "new"), strict=True):
        rows = [f"u-{n % N_USERS},{prefix}-{(n * 11 + 3) % N_ITEMS},{moment}" for n in range(80)]
        log.write_text("\n".join(["user_id,item_id,timestamp", *rows]))
    ran = command(*place, "--interactions", logs[0], "--min-recall-ratio", 0)
    assert ran.code == 0, ran.out
    one = tmp_path / "one.csv"
    one.write_text(f"user_id,item_id,timestamp\nu-1,new-1,{moment}\nu-1,sku-1,2026-01-01\n")
    ran = command(*place, "--interactions", one)
    heading, older, *lines = ran.out.splitlines()
    assert (heading.partition(": ")[2].partition(" since")[0], older) == ("1 new interaction", "1 older one left out")
    assert [line.split()[-2:] for line in lines if "unknown_" in line] == [["0", "ids"], ["1", "id"]]
    both = [argument for log in logs for argument in ("--interactions", log)]
    ran = command(*place, *both, "--min-recall-ratio", 0)
    marked = [line.split()[1] for line in ran.out.splitlines() if line.startswith("!")]
    assert (ran.code, marked) == (DRIFTED, ["unknown_items", "popularity_shift"]), ran.out
    found = json.loads(command(*place, *both, "--json").out)
    assert (found["train_again"], found["n_interactions"]) == (True, 160)
    assert {each["name"]: each["value"] for each in found["measures"]}["unknown_items"] == 0.5
    loose = ("--max-unknown-items", 0.5, "--max-popularity-shift", 1, "--min-recall-ratio", 0)
    assert command(*place, *both, *loose).code == 0
    assert json.loads(command(*place, *both, "--since", "2100-01-01", "--json").out)["n_interactions"] == 0

    lock = shop.repo.data / "shop.drift.lock"
    lock.unlink()
    lock.mkdir()  # so that the services cannot be told
    ran = command(*place, "--since", "2100-01-01")
    assert (ran.code, ran.out.splitlines()[-1]) == (0, "no reason to train again")
    assert [line.partition(":")[0] for line in ran.err.splitlines()] == ["warning"]
    lock.rmdir()

    ran = command(*place, "--interactions", tmp_path / "gone.csv", "--textfile", metrics)
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
    assert 'drift_exit_code{model="shop"} 2.0\n' in metrics.read_text()
    assert command(*place, "--textfile", tmp_path / "drift.txt").code == 2
    assert command(*place, "--max-later", 2).code == 2

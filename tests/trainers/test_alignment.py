"""Alignment: planted rotations are found, scores stay, bad matches are refused, and a downstream model goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding_trainers.alignment import MAX_RESIDUAL, Aligned, align
from embedding_trainers.commands.train import train
from embedding_trainers.interactions import Preparation
from embedding_trainers.procrustes import Sums, sum_up
from embedding_trainers.train import train_model
from embedding_trainers.trainer import RunOptions
from feast_embeddings.artifact import ENTITIES, Artifact, EmbeddingTable, Entity, TrainerInfo, write_artifact
from feast_embeddings.demo import generate_shop, write_shop
from feast_embeddings.errors import ArtifactError, InputError

AS_OF = datetime(2026, 5, 1, tzinfo=UTC)
Tables = dict[Entity, EmbeddingTable]
Floats = npt.NDArray[np.float64]


def tables_of(rng: np.random.Generator, n_users: int = 60, n_items: int = 40, dim: int = 6) -> Tables:
    """Random vectors of users and items; text ids for users, whole numbers for items."""

    def table(ids: pa.Array, bias: bool) -> EmbeddingTable:
        n = len(ids)
        vectors = (rng.standard_normal((n, dim)) * np.linspace(3, 0.1, dim)).astype(np.float32)
        counts = rng.integers(1, 100, n)
        return EmbeddingTable(ids, vectors, counts, rng.standard_normal(n).astype(np.float32) if bias else None)

    users = pa.array([f"u{n:03}" for n in range(n_users)])
    return {"user": table(users, False), "item": table(pa.array(range(n_items)), True)}


def written(data: Path, tables: Tables) -> Artifact:
    return write_artifact(
        data,
        "m",
        users=tables["user"],
        items=tables["item"],
        as_of=AS_OF,
        trainer=TrainerInfo(name="none", config={}),
        seed=None,
        metrics={},
        fingerprint="",
        n_interactions=1,
    )


def orthogonal(rng: np.random.Generator, dim: int) -> Floats:
    q, r = np.linalg.qr(rng.standard_normal((dim, dim)))
    return np.asarray(q * np.sign(np.diag(r)))


def turned(tables: Tables, rotation: Floats) -> Tables:
    return {
        entity: replace(table, embedding=(table.embedding @ rotation).astype(np.float32))
        for entity, table in tables.items()
    }


def scores(tables: Any) -> Floats:
    users, items = (tables[entity].embedding.astype(np.float64) for entity in ENTITIES)
    return np.asarray(users @ items.T)


@pytest.mark.parametrize("reflected", [False, True])
def test_a_planted_rotation_is_found(tmp_path: Path, rng: np.random.Generator, reflected: bool) -> None:
    """A version that is an earlier one turned comes back to it: residual 0, cosine 1, bias and order untouched."""
    tables = tables_of(rng)
    previous = written(tmp_path, tables)
    rotation = orthogonal(rng, 6)
    if (np.linalg.det(rotation) < 0) != reflected:
        rotation[0] *= -1
    new = turned(tables, rotation)
    aligned = align(previous, new)

    assert aligned.refused == ""
    assert aligned.alignment is not None
    for entity in ENTITIES:
        np.testing.assert_allclose(aligned.tables[entity].embedding, tables[entity].embedding, rtol=0, atol=5e-6)
        assert aligned.tables[entity].ids is new[entity].ids
    assert aligned.tables["item"].bias is new["item"].bias
    found = aligned.alignment
    assert (found.version, found.space_id) == (previous.manifest.version, previous.manifest.space_id)
    assert (found.shared_users, found.shared_items) == (60, 40)
    assert found.residual < 1e-5
    assert found.cosine == pytest.approx(1, abs=1e-6)
    assert found.cosine_before < 0.9


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), dim=st.integers(1, 40), scale=st.sampled_from([1e-3, 1.0, 1e3]))
def test_scores_stay_what_they_were(
    tmp_path_factory: pytest.TempPathFactory, seed: int, dim: int, scale: float
) -> None:
    """Every user · item moves by less than 1e-5 of it, or of the product of the two lengths where it is near 0."""
    rng = np.random.default_rng(seed)
    tables = tables_of(rng, 70, 50, dim)
    previous = written(tmp_path_factory.mktemp("data"), tables)
    noisy = {
        entity: replace(
            table,
            embedding=(scale * (table.embedding + 0.1 * rng.standard_normal(table.embedding.shape))).astype(np.float32),
        )
        for entity, table in turned(tables, orthogonal(rng, dim)).items()
    }
    aligned = align(previous, noisy)

    assert aligned.alignment is not None
    before, after = scores(noisy), scores(aligned.tables)
    lengths = [np.linalg.norm(noisy[entity].embedding, axis=1) for entity in ENTITIES]
    assert (np.abs(after - before) <= 1e-5 * np.maximum(np.abs(before), 0.1 * np.outer(*lengths))).all()
    assert aligned.tables["user"].embedding.dtype == np.float32


def test_the_rotation_is_the_best_weighted_one(tmp_path: Path, rng: np.random.Generator) -> None:
    """In two dimensions, no angle and no reflection gives a smaller distance weighted by n·m / (n + m)."""
    tables = tables_of(rng, 30, 30, 2)
    previous = written(tmp_path, tables)
    # Users and items are turned by different angles, so that the best is a compromise that the weights decide.
    new = {
        entity: replace(
            table,
            embedding=(table.embedding @ plane(angle) + 0.1 * rng.standard_normal((30, 2))).astype(np.float32),
            n_interactions=rng.integers(1, 1000, 30) * (10 if entity == "user" else 1),
        )
        for (entity, table), angle in zip(tables.items(), (2.0, 2.6), strict=True)
    }
    aligned = align(previous, new)
    assert aligned.alignment is not None

    def distance(turned: Any) -> float:
        total = 0.0
        for entity in ENTITIES:
            n, m = tables[entity].n_interactions, new[entity].n_interactions
            apart = ((turned[entity] - tables[entity].embedding) ** 2).sum(axis=1)
            total += float((n * m / (n + m) * apart).sum())
        return total

    found = distance({e: aligned.tables[e].embedding for e in new})
    others = [
        distance({e: new[e].embedding @ plane(angle, mirror) for e in new})
        for angle in np.linspace(0, 2 * np.pi, 5000)
        for mirror in (1, -1)
    ]
    assert found == pytest.approx(min(others), rel=1e-5)
    assert found <= min(others) * (1 + 1e-6)


def plane(angle: float, mirror: int = 1) -> Floats:
    """The rotation of the plane by an angle, and its mirror image."""
    return np.array([[np.cos(angle), np.sin(angle)], [-mirror * np.sin(angle), mirror * np.cos(angle)]])


def test_only_shared_ids_decide(tmp_path: Path, rng: np.random.Generator) -> None:
    """Users and items that the earlier version does not know are turned too, and have no say."""
    tables = tables_of(rng)
    previous = written(tmp_path, {e: table_rows(t, range(len(t.ids) - 10)) for e, t in tables.items()})
    rotation = orthogonal(rng, 6)
    new = turned(tables, rotation)
    new["user"].embedding[-10:] *= 50
    aligned = align(previous, new)

    assert aligned.alignment is not None
    assert (aligned.alignment.shared_users, aligned.alignment.shared_items) == (50, 30)
    expected = new["user"].embedding.astype(np.float64) @ rotation.T
    np.testing.assert_allclose(aligned.tables["user"].embedding, expected, rtol=1e-4, atol=1e-4)


def table_rows(table: EmbeddingTable, rows: Any) -> EmbeddingTable:
    rows = np.array(rows)
    bias = None if table.bias is None else table.bias[rows]
    return EmbeddingTable(table.ids.take(pa.array(rows)), table.embedding[rows], table.n_interactions[rows], bias)


def refused(previous: Artifact, tables: Tables) -> str:
    aligned = align(previous, tables)
    assert aligned == Aligned(tables, None, aligned.refused)
    return aligned.refused


def test_strangers_are_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    """Vectors that have nothing in common are refused with their residual, however few they are."""
    for n in (6, 60):
        previous = written(tmp_path / str(n), tables_of(rng, n, n))
        reason = refused(previous, tables_of(rng, n, n))
        assert f"{2 * n} ids shared with version {previous.manifest.version} are too far from it" in reason
        residual = float(reason.split("residual ")[1].split(",")[0])
        assert MAX_RESIDUAL < residual <= 1


def test_few_ids_do_not_look_good_by_chance(tmp_path: Path, rng: np.random.Generator) -> None:
    """In many dimensions a rotation brings even strangers near; the other half of the ids tells."""
    before, after = tables_of(rng, 40, 40, 40), tables_of(rng, 40, 40, 40)
    heavy = np.where(np.arange(40) < 15, 10_000, 1)
    before, after = ({e: replace(t, n_interactions=heavy) for e, t in tables.items()} for tables in (before, after))
    # Fitted and measured on the same ids, the residual would be 0.65.
    assert "too far" in refused(written(tmp_path, before), after)


def test_equal_vectors_keep_their_bits(tmp_path: Path, rng: np.random.Generator) -> None:
    """The same training again writes the same bytes, also where the vectors hardly reach into some directions."""
    tables = turned(tables_of(rng, 200, 100, 40), np.diag(np.logspace(0, -9, 40)) @ orthogonal(rng, 40))
    aligned = align(written(tmp_path, tables), tables)
    for entity in ENTITIES:
        assert aligned.tables[entity].embedding.tobytes() == tables[entity].embedding.tobytes()


def test_what_all_have_in_common_is_not_agreement(tmp_path: Path, rng: np.random.Generator) -> None:
    """Vectors that agree in nothing but a large mean, as popularity makes it, are refused."""
    first, second = tables_of(rng), tables_of(rng)
    mean = 20 * np.ones(6, np.float32)
    with_mean = [{e: replace(t, embedding=t.embedding + mean) for e, t in tables.items()} for tables in (first, second)]
    assert "too far" in refused(written(tmp_path, with_mean[0]), with_mean[1])


def test_too_few_shared_ids_are_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    """Below two shared ids per dimension there is no rotation to speak of; ids of another type are not shared."""
    tables = tables_of(rng, 6, 5)
    previous = written(tmp_path, tables)
    assert refused(previous, tables) == (
        f"only 6 users and 5 items are shared with version {previous.manifest.version}; 6 dimensions need 12 together"
    )
    tables = tables_of(rng)
    previous = written(tmp_path / "other", tables)
    as_text = {**tables, "item": replace(tables["item"], ids=tables["item"].ids.cast(pa.string()))}
    aligned = align(previous, as_text)
    assert aligned.alignment is not None
    assert (aligned.alignment.shared_users, aligned.alignment.shared_items) == (60, 0)


# Through `train`, on a generated shop.

SMALL: dict[str, Any] = {"trainer": "bpr", "parameters": {"factors": 16, "iterations": 60}}


@pytest.fixture(scope="module")
def shop_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 users, 200 items, 24,000 purchases."""
    shop = generate_shop(n_users=600, n_items=200, n_interactions=24_000)
    return write_shop(shop, tmp_path_factory.mktemp("shop"))["interactions"]


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory, shop_log: Path) -> dict[str, Artifact]:
    """Version 1 of the first part of the log, and its retraining on all of it with another seed, aligned and not."""
    repo = tmp_path_factory.mktemp("repo")
    (repo / "feature_store.yaml").touch()
    until = datetime(2026, 9, 15, tzinfo=UTC)

    def run(seed: int, **more: Any) -> Artifact:
        options = RunOptions(seed=seed, threads=1)
        return train_model(repo, "shop", shop_log, **SMALL, options=options, evaluation=False, **more).artifact

    first = run(1, preparation=Preparation(until=until))
    unaligned = run(2, align_to=None)
    return {"first": first, "unaligned": unaligned, "aligned": run(2, align_to=first.manifest.version)}


def vectors(artifact: Artifact, entity: Entity) -> tuple[list[Any], Floats]:
    table = artifact.table(entity)
    return table[f"{entity}_id"].to_pylist(), np.stack(table["embedding"].to_numpy()).astype(np.float64)


def test_a_retraining_is_aligned(versions: dict[str, Artifact]) -> None:
    """It is the unaligned one turned by one matrix for both sides, and the manifest says how well it fits."""
    first, unaligned, aligned = (versions[name] for name in ("first", "unaligned", "aligned"))
    manifest = aligned.manifest
    assert manifest.aligned_to == first.manifest.version
    assert manifest.space_id == first.manifest.space_id == f"shop-{first.manifest.version}"
    assert manifest.new_space_reason == ""
    assert aligned.table("user")["space"].unique().to_pylist() == [manifest.space_id]
    before, after = ([vectors(artifact, entity)[1] for entity in ENTITIES] for artifact in (unaligned, aligned))
    rotation = np.linalg.lstsq(np.concatenate(before), np.concatenate(after), rcond=None)[0]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(16), atol=1e-5)
    np.testing.assert_allclose(before[0] @ rotation, after[0], atol=1e-5)
    np.testing.assert_allclose(after[0] @ after[1].T, before[0] @ before[1].T, rtol=1e-5, atol=1e-5)
    assert unaligned.table("item")["bias"].equals(aligned.table("item")["bias"])

    known = {entity: set(vectors(first, entity)[0]) & set(vectors(aligned, entity)[0]) for entity in ENTITIES}
    assert (manifest.alignment_shared_users, manifest.alignment_shared_items) == tuple(map(len, known.values()))
    assert manifest.alignment_residual is not None
    assert 0 < manifest.alignment_residual < MAX_RESIDUAL
    assert manifest.alignment_cosine is not None
    assert manifest.alignment_cosine_before is not None
    assert manifest.alignment_cosine > 0.6 > 0.2 > abs(manifest.alignment_cosine_before)

    assert unaligned.manifest.space_id == f"shop-{unaligned.manifest.version}"
    assert (unaligned.manifest.aligned_to, unaligned.manifest.new_space_reason) == (None, "asked for")
    assert first.manifest.new_space_reason == "the first version of the model"


def test_a_model_trained_on_version_1_goes_on(versions: dict[str, Artifact], shop_log: Path) -> None:
    """A classifier of version 1 vectors reads aligned version 2 vectors of other users; unaligned ones it does not."""
    favourite = favourite_categories(shop_log)

    def labelled(artifact: Artifact, held_out: bool) -> tuple[Floats, npt.NDArray[np.str_]]:
        ids, matrix = vectors(artifact, "user")
        rows = [n for n, id in enumerate(ids) if (int(id.removeprefix("u-")) % 2 == 0) == held_out]
        return matrix[rows], np.array([favourite[ids[n]] for n in rows])

    centroids = Centroids(*labelled(versions["first"], held_out=False))
    accuracy = {name: centroids.accuracy(*labelled(versions[name], held_out=True)) for name in ("aligned", "unaligned")}
    _, labels = labelled(versions["aligned"], held_out=True)
    ceiling = Centroids(*labelled(versions["aligned"], held_out=False)).accuracy(
        *labelled(versions["aligned"], held_out=True)
    )
    floor = max(np.mean(labels == category) for category in set(labels))
    assert ceiling > 2 * floor
    assert accuracy["aligned"] > 0.9 * ceiling
    assert accuracy["unaligned"] < 0.5 * ceiling


class Centroids:
    """The plainest classifier: the class whose mean direction is nearest by cosine."""

    def __init__(self, matrix: Floats, labels: npt.NDArray[np.str_]) -> None:
        self.classes = sorted(set(labels))
        unit = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
        means = np.stack([unit[labels == name].mean(axis=0) for name in self.classes])
        self.means = means / np.linalg.norm(means, axis=1, keepdims=True)

    def accuracy(self, matrix: Floats, labels: npt.NDArray[np.str_]) -> float:
        return float(np.mean(np.array(self.classes)[(matrix @ self.means.T).argmax(axis=1)] == labels))


def favourite_categories(log: Path) -> dict[str, str]:
    """Per user the category of most purchases."""
    items = pq.read_table(log.with_name("items.parquet")).select(["item_id", "category"])
    counts = pq.read_table(log).join(items, "item_id").group_by(["user_id", "category"]).aggregate([([], "count_all")])
    counts = counts.sort_by([("user_id", "ascending"), ("count_all", "ascending"), ("category", "ascending")])
    return dict(zip(counts["user_id"].to_pylist(), counts["category"].to_pylist(), strict=True))


Train = Callable[..., str]


@pytest.fixture
def run(repo: Path, log: Path) -> Train:
    """The command on the checkerboard, briefly; what it printed."""

    def command(*arguments: str, interactions: Path = log) -> str:
        common = ["--repo", str(repo), "--model", "m", "--interactions", str(interactions), "--no-evaluate"]
        common += ["--quiet", "--threads", "1", "--trainer", "bpr", "--param", "iterations=30"]
        result = CliRunner().invoke(train, [*common, *arguments], standalone_mode=False)
        if result.exception:
            raise result.exception
        return result.stdout

    return command


def test_the_command_aligns_to_the_latest(run: Train) -> None:
    """By default and with `latest`; the first version, another dimension and --no-align start a space, and say so."""
    first = run("--factors", "2")
    assert "  new vector space m-" in first
    assert "(the first version of the model)" in first
    version = first.split()[3]
    by_default = run("--factors", "2", "--seed", "1")
    assert f"  aligned to version {version}, vector space m-{version}: residual 0." in by_default
    assert "; shared 50 users, 50 items\n" in by_default
    second = by_default.split()[3]
    report = json.loads(run("--factors", "2", "--seed", "2", "--align-to", "latest", "--json"))
    assert (report["aligned_to"], report["space_id"]) == (second, f"m-{version}")
    assert {"read", "fit", "align", "write"} == set(report["seconds"])
    third = report["version"]
    assert f"(version {third} has 2 dimensions, the new one 3)" in run("--factors", "3")
    assert "(asked for)" in run("--factors", "2", "--no-align")
    back = json.loads(run("--factors", "2", "--align-to", version, "--json"))
    assert back["aligned_to"] == version
    assert back["alignment_residual"] == 0  # the same training: the vectors keep their bits


def test_what_cannot_be_aligned_is_known_before_the_fit(run: Train, repo: Path, tmp_path: Path) -> None:
    """A named version that is not there, of another dimension or without shared ids is bad input; nothing is fitted."""
    version = run("--factors", "2").split()[3]
    strangers = tmp_path / "strangers.csv"
    strangers.write_text("user_id,item_id\n" + "".join(f"x{n},y{n % 7}\n" for n in range(40)))
    never = ("--param", "learning_rate=1e9")  # would diverge, if it came to that

    def message(*arguments: str, **more: Any) -> str:
        with pytest.raises(InputError) as error:
            run(*arguments, "--align-to", version, *never, **more)
        return str(error.value)

    assert message("--factors", "3") == (
        f"cannot align: version {version} has 2 dimensions, the new one 3; train with --factors 2, or start a new "
        "space with --no-align"
    )
    assert message("--factors", "2", interactions=strangers).startswith("cannot align: only 0 users and 0 items")
    with pytest.raises(InputError, match="model 'm' has no version '20200101T000000000Z'; it has"):
        run("--factors", "2", "--align-to", "20200101T000000000Z")
    with pytest.raises(InputError, match="exclude each other"):
        run("--align-to", version, "--no-align")
    assert [path.name for path in (repo / "data" / "m").glob("2*")] == [version]
    # By default it is a new space.
    assert "(only 0 users and 0 items are shared" in run("--factors", "2", interactions=strangers)


def test_a_bad_match_becomes_a_new_space(run: Train, tmp_path: Path) -> None:
    """The same ids with other tastes: refused after the fit, whether the version was named or not."""
    rng = np.random.default_rng(3)
    shuffled = tmp_path / "shuffled.csv"
    users, items = (rng.permutation(50) for _ in range(2))
    pairs = [(f"u{users[n // 50]:02}", f"i{items[n % 50]:02}") for n in range(2500) if (n // 50 + n % 50) % 2 == 0]
    shuffled.write_text("user_id,item_id\n" + "".join(f"{u},{i}\n" for u, i in pairs))
    for name in (lambda version: (), lambda version: ("--align-to", version)):
        version = run("--factors", "2", "--no-align", interactions=shuffled).split()[3]
        out = run("--factors", "2", "--seed", "9", *name(version))
        assert "  new vector space m-" in out
        assert f"100 ids shared with version {version} are too far from it under any rotation: residual " in out


def test_a_damaged_version_stops_only_who_asked_for_it(run: Train, repo: Path) -> None:
    """By default a damaged latest version leads to a new space with the damage as the reason."""
    version = run("--factors", "2").split()[3]
    table = repo / "data" / "m" / version / "users.parquet"
    pq.write_table(pq.read_table(table).slice(1), table.with_suffix(".new"))
    table.with_suffix(".new").replace(table)
    with pytest.raises(ArtifactError, match="was changed after training"):
        run("--factors", "2", "--align-to", version)
    assert "users.parquet was changed after training" in run("--factors", "2")


def test_blocks_turn_by_themselves(tmp_path: Path, rng: np.random.Generator) -> None:
    """The planted rotation of each block is found, and one block that is unrelated refuses all."""
    tables = tables_of(rng)
    previous = written(tmp_path, tables)
    planted = np.zeros((6, 6))
    planted[:2, :2], planted[2:, 2:] = orthogonal(rng, 2), orthogonal(rng, 4)
    aligned = align(previous, turned(tables, planted), [2, 4])
    assert aligned.alignment is not None
    assert aligned.alignment.residual < 1e-5
    for entity in ENTITIES:
        np.testing.assert_allclose(aligned.tables[entity].embedding, tables[entity].embedding, rtol=0, atol=5e-6)

    mixed = align(previous, turned(tables, orthogonal(rng, 6)), [2, 4])
    assert mixed.alignment is None or mixed.alignment.residual > 0.1
    strange = turned(tables, np.eye(6))
    for table in strange.values():
        table.embedding[:, 4:] = rng.standard_normal((len(table.ids), 2)) * 0.01
    assert align(previous, strange).alignment is not None
    assert "too far from it under any rotation" in align(previous, strange, [4, 2]).refused


def test_sums_of_parts(rng: np.random.Generator) -> None:
    """As a row of numbers and back they are the same, and those of a block are those of its dimensions alone."""
    x, y = rng.standard_normal((2, 30, 5))
    n, m = rng.integers(1, 9, (2, 30))
    sums = sum_up(x, y, n, m)
    for name, value in vars(Sums.from_flat(sums.flat(), 5)).items():
        np.testing.assert_array_equal(value, getattr(sums, name), name)
    alone, block = sum_up(x[:, 1:4], y[:, 1:4], n, m), sums.block(slice(1, 4))
    for name in ("products", "new", "old", "new_squares", "old_squares", "counts"):
        np.testing.assert_allclose(getattr(block, name), getattr(alone, name), rtol=1e-12, err_msg=name)

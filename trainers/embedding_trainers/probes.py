"""Probes: the score of a model trained on the vectors of one version on the vectors of the next.

A probe is a table of labels of users or items, such as who churned. A fixed model learns them from the earlier vectors
of half of the ids, and is scored on the other half: on their earlier vectors, on their new ones, and, trained again, on
their new ones. The first two say whether models downstream go on, the last what the new vectors know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedding_trainers.extra import import_extra
from embedding_trainers.interactions.attributes import read_attribute_file
from feast_embeddings.artifact import ENTITIES, Artifact, Entity, embedding_matrix
from feast_embeddings.artifact.ids import id_names
from feast_embeddings.errors import InputError
from feast_embeddings.reading import Location, read_table

__all__ = ["Labels", "ProbeScore", "located", "read_labels", "score_probe", "score_probes"]

_FEWEST = 40  # ids with a label that both versions know: fewer say nothing
_FEWEST_OF_CLASS = 10
_MOST_CLASSES = 20  # whole numbers of more values are numbers
_RESAMPLES = 200
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Labels:
    """The labels of a probe.

    Attributes:
        entity: whose they are.
        ids: distinct, as text.
        values: one for each, without nulls: numbers as float64, classes as text.
    """

    entity: Entity
    ids: pa.Array
    values: pa.Array

    @property
    def is_number(self) -> bool:
        """Whether a regression learns them, and not a classifier."""
        return bool(pa.types.is_floating(self.values.type))


@dataclass(frozen=True)
class ProbeScore:
    """What a probe found.

    Attributes:
        name, target: of the probe, and the column of its labels.
        metric: ``roc_auc`` of two classes, its mean over classes of more (one against the rest), or ``r2`` of numbers.
        n: ids that were scored.
        before: of the model of the earlier vectors, on these.
        after: of the same model on the new vectors.
        again: of a model trained on the new vectors.
        margin: 1.96 standard errors of ``after - before``, by bootstrap over the ids.
    """

    name: str
    target: str
    metric: str
    n: int
    before: float
    after: float
    again: float
    margin: float

    @property
    def chance(self) -> float:
        """What a model that knows nothing scores."""
        return 0.0 if self.metric == "r2" else 0.5

    def __str__(self) -> str:
        return (
            f"{self.name}: a model of the earlier vectors scores {self.before:.3f} on them and {self.after:.3f} "
            f"± {self.margin:.3f} on these ({self.metric} of {self.target}, {self.n:,} ids); trained again "
            f"{self.again:.3f}"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"chance": self.chance}


def located(where: str, folder: Path) -> str:
    """Return ``FILE:COLUMN`` with a relative file taken from a folder."""
    path, colon, column = where.rpartition(":")
    return f"{Location(path).relative_to(folder)}{colon}{column}" if path else where


def read_labels(name: str, where: str, columns: Mapping[Entity, str | None]) -> Labels:
    """Read the labels of a probe.

    Args:
        name: of the probe, for errors.
        where: ``FILE:COLUMN``, a table with a row for each user or item, and the column that is to be predicted.
        columns: the names of the id columns in the log.

    Raises:
        InputError: the table cannot be read, or has no such column, or ids of none or of both.
    """
    path, _, target = where.rpartition(":")
    if not path or not target:
        raise InputError(f"--probe {name}={where}: expected NAME=FILE:COLUMN, e.g. churn=labels.parquet:churned")
    names = {entity: id_names(entity, columns[entity]) for entity in ENTITIES}
    try:
        table = read_table(_source(path), ids=(*names["user"], *names["item"]))
        sides = [entity for entity in ENTITIES if not set(names[entity]).isdisjoint(table.column_names)]
        if len(sides) != 1:
            has = "ids of users and of items; leave one of them out" if sides else "no column of ids"
            expected = " or ".join(repr(names[entity][0]) for entity in ENTITIES)
            raise InputError(f"{path} has {has}; expected {expected}, got {', '.join(table.column_names)}")
        entity = sides[0]
        file = read_attribute_file(table, names[entity], {})
    except InputError as error:
        raise InputError(f"--probe {name}: {error}") from None
    if target not in file.columns.column_names:
        there = ", ".join(file.columns.column_names) or "no other"
        raise InputError(f"--probe {name}: {path} has no column {target!r}; it has {there}")
    column = file.columns[target].combine_chunks()
    has_label = column.is_valid()
    if pa.types.is_floating(column.type):
        has_label = pc.and_(has_label, pc.invert(pc.fill_null(pc.is_nan(column), True)))
        if pc.any(pc.is_inf(column)).as_py():
            raise InputError(f"--probe {name}: column {target!r} of {path} has an infinite number; correct it")
    ids, values = file.ids.filter(has_label), column.filter(has_label)
    if pa.types.is_floating(values.type) or pa.types.is_decimal(values.type):
        return Labels(entity, ids, values.cast(pa.float64()))
    if pa.types.is_integer(values.type) and pc.count_distinct(values).as_py() > _MOST_CLASSES:
        return Labels(entity, ids, values.cast(pa.float64()))
    if pa.types.is_nested(values.type) or pa.types.is_temporal(values.type):
        raise InputError(f"--probe {name}: labels of type {values.type} cannot be predicted; give numbers or classes")
    return Labels(entity, ids, values.cast(pa.string()))


def score_probes(new: Artifact, old: Artifact) -> tuple[list[ProbeScore], dict[str, str]]:
    """Score all probes that a version names.

    Args:
        new: the version.
        old: an earlier one, of the same space.

    Returns:
        The scores; and why there is none, by name of the probe.

    Raises:
        InputError: labels cannot be read.
        ArtifactError: a version is damaged.
    """
    scores, lacking = [], {}
    columns: dict[Entity, str | None] = {entity: new.manifest.log_column(entity) for entity in ENTITIES}
    for name, where in (new.manifest.probes or {}).items():
        labels = read_labels(name, where, columns)
        if labels.entity not in new.manifest.sides or labels.entity not in old.manifest.sides:
            lacking[name] = f"a version has no {labels.entity}s"
            continue
        found = score_probe(name, where.rpartition(":")[2], labels, _trained(new, labels), _trained(old, labels))
        if isinstance(found, str):
            lacking[name] = found
        else:
            scores.append(found)
    return scores, lacking


def score_probe(name: str, target: str, labels: Labels, new: pa.Table, old: pa.Table) -> ProbeScore | str:
    """Score one probe.

    Args:
        name, target: of the probe.
        labels: of users or items.
        new, old: tables of that side, with the columns of ids and ``embedding``.

    Returns:
        The score, or why there is none.
    """
    ids, values = _in_both(labels, new, old)
    if not labels.is_number:
        counts = values.value_counts()
        large = counts.field("values").filter(pc.greater_equal(counts.field("counts"), _FEWEST_OF_CLASS))
        keep = pc.is_in(values, value_set=large)
        ids, values = ids.filter(keep), values.filter(keep)
    n_values = pc.count_distinct(values).as_py()
    if len(ids) < _FEWEST or n_values < 2:
        return f"too few labels: {len(ids):,} ids that both versions know, of {n_values} values"
    y = values.to_numpy(zero_copy_only=False)
    model_selection = import_extra("sklearn.model_selection")
    learn, test = model_selection.train_test_split(
        np.arange(len(y)), test_size=0.5, random_state=0, stratify=None if labels.is_number else y
    )
    before, after = (embedding_matrix(table).astype(np.float64)[_rows(table, labels, ids)] for table in (old, new))
    model = _fitted(before[learn], y[learn], labels.is_number)
    again = _fitted(after[learn], y[learn], labels.is_number)
    wanted = _wanted(y[test], labels.is_number, model)
    said = [_said(each, x[test], labels.is_number) for each, x in ((model, before), (model, after), (again, after))]
    scored = [float(_score(wanted, each, labels.is_number)) for each in said]
    return ProbeScore(
        name=name,
        target=target,
        metric="r2" if labels.is_number else "roc_auc",
        n=len(test),
        before=scored[0],
        after=scored[1],
        again=scored[2],
        margin=_margin(wanted, said[0], said[1], labels.is_number),
    )


def _source(path: str) -> Any:
    location = Location(path)
    return location if location.scheme else Path(path)


def _trained(artifact: Artifact, labels: Labels) -> pa.Table:
    """Ids and vectors of those that were trained on: content alone is no vector to learn from."""
    columns = [f"{labels.entity}_id", "embedding", "n_interactions"]
    return artifact.trained_on(labels.entity, artifact.table(labels.entity, columns))


def _in_both(labels: Labels, new: pa.Table, old: pa.Table) -> tuple[pa.Array, pa.Array]:
    keep = pa.array(np.ones(len(labels.ids), bool))
    for table in (new, old):
        keep = pc.and_(keep, pc.is_in(labels.ids, value_set=_text_ids(table, labels)))
    return labels.ids.filter(keep), labels.values.filter(keep)


def _rows(table: pa.Table, labels: Labels, ids: pa.Array) -> npt.NDArray[np.int64]:
    return np.asarray(pc.index_in(ids, value_set=_text_ids(table, labels)).to_numpy())


def _text_ids(table: pa.Table, labels: Labels) -> pa.Array:
    return table[f"{labels.entity}_id"].combine_chunks().cast(pa.string())


def _fitted(x: _Floats, y: npt.NDArray[Any], is_number: bool) -> Any:
    """A ridge or logistic regression of standardized vectors, whose strength is chosen by cross-validation."""
    linear = import_extra("sklearn.linear_model")
    scaler = import_extra("sklearn.preprocessing").StandardScaler()
    if is_number:
        model = linear.RidgeCV(alphas=np.logspace(-1, 4, 11))
    else:
        model = linear.LogisticRegression(C=0.01, max_iter=1000)
    return import_extra("sklearn.pipeline").make_pipeline(scaler, model).fit(x, y)


def _said(model: Any, x: _Floats, is_number: bool) -> _Floats:
    """What a model says of n rows, shape (n, 1); or with classes (n, n_classes), of two classes the second alone."""
    if is_number:
        return np.asarray(model.predict(x))[:, None]
    said = np.asarray(model.predict_proba(x))
    return said[:, 1:] if said.shape[1] == 2 else said


def _wanted(y: npt.NDArray[Any], is_number: bool, model: Any) -> _Floats:
    """What a model should have said, of the same shape."""
    if is_number:
        return np.asarray(y, np.float64)[:, None]
    classes = model.classes_ if len(model.classes_) > 2 else model.classes_[1:]
    return np.asarray(y[:, None] == classes, np.float64)


def _score(wanted: _Floats, said: _Floats, is_number: bool) -> _Floats:
    """R² or the mean area under the ROC curve, shape (…), of n rows and c columns, both of shape (…, n, c)."""
    if is_number:
        rest, spread = ((wanted - by) ** 2 for by in (said, wanted.mean(axis=-2, keepdims=True)))
        return np.asarray(1 - rest.sum(axis=(-2, -1)) / spread.sum(axis=(-2, -1)))
    # By the rank sum of the positives (Mann-Whitney); a resample may lack a class, which then does not count.
    ranks = import_extra("scipy.stats").rankdata(said, axis=-2)
    n, n_rows = wanted.sum(axis=-2), wanted.shape[-2]
    with np.errstate(invalid="ignore"):
        areas = ((ranks * wanted).sum(axis=-2) - n * (n + 1) / 2) / (n * (n_rows - n))
    return np.asarray(np.nanmean(areas, axis=-1))


def _margin(wanted: _Floats, before: _Floats, after: _Floats, is_number: bool) -> float:
    drawn = np.random.default_rng(0).integers(0, len(wanted), (_RESAMPLES, len(wanted)))
    differences = _score(wanted[drawn], after[drawn], is_number) - _score(wanted[drawn], before[drawn], is_number)
    return float(1.96 * differences.std())

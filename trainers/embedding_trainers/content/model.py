"""What a version keeps of content: encoders, map and strengths, in one file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from embedding_trainers.content.encoder import State, find_encoder, state_hash
from embedding_trainers.content.features import Features
from embedding_trainers.content.prior import FoldIn, Prior, Trained, fit_prior
from embedding_trainers.content.ridge import Ridge
from embedding_trainers.content.spec import ContentColumn
from embedding_trainers.trainer import Folded
from feast_embeddings.errors import ArtifactError

__all__ = ["ContentModel"]

_KEY = b"content"
_BLOCK_ROWS = 1 << 16
_MAP = "ridge"


@dataclass(frozen=True)
class ContentModel:
    """Features of a side, and what they say of its vectors."""

    features: Features
    prior: Prior

    @classmethod
    def fitted(
        cls,
        table: pa.Table,
        columns: Sequence[ContentColumn],
        trained: Trained,
        fold_in: FoldIn | None,
        *,
        seed: int = 0,
    ) -> ContentModel:
        """Fit encoders and map on the trained rows.

        Args:
            table: content of the trained rows, in their order.
            columns: of the table.
            trained: the side.
            fold_in: of its trainer; None if it cannot.
            seed: of the rows held back to choose λ and τ.
        """
        features = Features.fitted(table, columns)
        widths = features.widths(table)
        return cls(features, fit_prior(features.of(table), trained, fold_in, widths=widths, seed=seed))

    def of(self, table: pa.Table) -> Folded:
        """What content alone says of rows, a block at a time."""
        return self._by_block(table, lambda features, _: self.prior.of(features))

    def mixed(self, folded: Folded, n_interactions: npt.NDArray[np.integer], table: pa.Table) -> Folded:
        """What content and behaviour say together."""

        def of_block(features: Any, rows: slice) -> Folded:
            own = Folded(folded.factors[rows], folded.bias[rows])
            return self.prior.mixed(own, n_interactions[rows], features)

        return self._by_block(table, of_block)

    def to_json(self) -> dict[str, Any]:
        """For the manifest: what was used, with the hash of each encoder's state."""
        return {
            "columns": [
                {
                    "name": column.name,
                    "encoder": column.how,
                    "kind": encoder.kind,
                    "model": column.model,
                    "class": f"{type(encoder).__module__}:{type(encoder).__qualname__}",
                    "settings": encoder.state()[0],
                    "sha256": state_hash(encoder.state()),
                }
                for column, encoder in zip(self.features.columns, self.features.encoders, strict=True)
            ],
            "penalty": self.prior.penalty,
            "strength": self.prior.strength,
            "scales": list(self.prior.scales),
        }

    def save(self, path: Path) -> None:
        """Write one Parquet file of one row: a list for each array, and the rest as JSON in its metadata."""
        arrays = {
            f"{i}.{name}": array
            for i, encoder in enumerate(self.features.encoders)
            for name, array in encoder.state()[1].items()
        }
        ridge = self.prior.ridge
        arrays[f"{_MAP}.weights"] = pa.array(ridge.weights.ravel())
        arrays[f"{_MAP}.offset"] = pa.array(ridge.offset)
        lists = {name: pa.LargeListArray.from_arrays([0, len(array)], array) for name, array in arrays.items()}
        table = pa.table(lists).replace_schema_metadata({_KEY: json.dumps(self.to_json())})
        pq.write_table(table, path)

    @classmethod
    def load(cls, path: Path) -> ContentModel:
        """Read what `save` wrote.

        Raises:
            ArtifactError: it is damaged, or an installed encoder is another one.
            InputError: an encoder is not installed.
        """
        try:
            table = pq.read_table(path)
            described = json.loads(table.schema.metadata[_KEY])
            arrays = {name: table[name].chunk(0).values for name in table.column_names}
            columns = tuple(ContentColumn(c["name"], c["encoder"], c["model"]) for c in described["columns"])
            states: list[State] = [(c["settings"], _own(arrays, f"{i}.")) for i, c in enumerate(described["columns"])]
            offset = arrays[f"{_MAP}.offset"].to_numpy()
            ridge = Ridge(arrays[f"{_MAP}.weights"].to_numpy().reshape(-1, len(offset)), offset)
            prior = Prior(ridge, described["penalty"], described["strength"], tuple(described.get("scales", ())))
        except (OSError, pa.ArrowInvalid, KeyError, TypeError, ValueError, IndexError) as error:
            raise ArtifactError(f"{path} is damaged ({type(error).__name__}: {error}); train again") from None
        encoders = []
        for column, state, described_column in zip(columns, states, described["columns"], strict=True):
            encoder = find_encoder(column.how).from_state(*state)
            if state_hash(encoder.state()) != described_column["sha256"]:
                raise ArtifactError(
                    f"{path}: the encoder of {column} is not the one that was fitted, {described_column['class']}; "
                    "install the package that it came from, or train again"
                )
            encoders.append(encoder)
        return cls(Features(columns, tuple(encoders)), prior)

    def _by_block(self, table: pa.Table, of_block: Any) -> Folded:
        starts = range(0, max(len(table), 1), _BLOCK_ROWS)
        parts = [
            of_block(self.features.of(table.slice(start, _BLOCK_ROWS)), slice(start, start + _BLOCK_ROWS))
            for start in starts
        ]
        return Folded(np.concatenate([part.factors for part in parts]), np.concatenate([part.bias for part in parts]))


def _own(arrays: Mapping[str, pa.Array], prefix: str) -> dict[str, pa.Array]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}

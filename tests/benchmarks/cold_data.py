"""The logs and catalogues of `tests.benchmarks.cold_start`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from model2vec import StaticModel
from safetensors.numpy import load_file
from scipy.sparse import csr_matrix
from tokenizers import Tokenizer

from embedding_trainers.content.encoder import make_encoder
from embedding_trainers.content.guess import guess_content
from embedding_trainers.content.spec import ContentColumn
from embedding_trainers.interactions import read_interactions
from feast_embeddings.demo import generate_shop

__all__ = ["Data", "movielens", "shop", "wordllama"]


@dataclass(frozen=True)
class Data:
    """A log as a matrix of ones, the catalogue in the order of its columns, and sets of content to compare."""

    matrix: csr_matrix
    items: pa.Table
    sets: dict[str, tuple[ContentColumn, ...]]


def movielens(folder: Path, texts: Sequence[str]) -> Data:
    """Its release years have one that is no number."""
    log = read_interactions(folder / "ml-100k_interactions.parquet")
    items = pq.read_table(folder / "ml-100k_items.parquet")
    items = items.take(pc.index_in(log.items.cast(pa.string()), value_set=items["item_id"].combine_chunks()))
    years = items["release_year"]
    years = pc.if_else(pc.match_substring_regex(years, r"^\d+$"), years, None).cast(pa.int64())
    items = items.drop_columns(["release_year"]).append_column("year", years)
    dated = [f"{title} ({year})" for title, year in zip(items["title"].to_pylist(), years.to_pylist(), strict=True)]
    items = items.append_column("dated", pa.array(dated))
    genres, year = ContentColumn("genres", "list"), ContentColumn("year", "number")
    sets: dict[str, tuple[ContentColumn, ...]] = {"genres + year": (genres, year)}
    for text in texts:
        encoder, _, model = text.partition(":")
        title, with_year = (ContentColumn(name, encoder, model) for name in ("title", "dated"))
        if model:  # it learns nothing of a part of the items: once for all seeds
            items, title, with_year = _encoded(items, title, with_year)
        name = f"{encoder} {Path(model).name}".strip()
        sets |= {
            f"title by {name}": (title,),
            f"title and year by {name}": (with_year,),
            f"title by {name} + genres": (title, genres),
            f"title and year by {name} + genres": (with_year, genres),
            f"title by {name} + genres + year": (title, genres, year),
        }
    return Data(_ones(log.to_csr()), items, sets)


def _encoded(items: pa.Table, *columns: ContentColumn) -> tuple[Any, ...]:
    """The items with vectors of these columns, and the columns of vectors."""
    made = []
    for column in columns:
        encoder = make_encoder(column)
        encoder.fit(items[column.name])
        made.append(ContentColumn(str(column), "vector"))
        items = items.append_column(str(column), pa.array(list(encoder.encode(items[column.name]))))
    return items, *made


def shop(_: Path, __: Sequence[str]) -> Data:
    """The generated one, with 2,600 items."""
    made = generate_shop(n_users=4000, n_items=2600, n_interactions=120_000)
    log = read_interactions(made.interactions)
    items = made.items.take(pc.index_in(log.items, value_set=made.items["item_id"].combine_chunks()))
    content = guess_content(items.drop_columns(["item_id"])).content
    return Data(_ones(log.to_csr()), items, {"title": content[:1], "all": content})


def _ones(matrix: csr_matrix) -> csr_matrix:
    matrix.data[:] = 1
    return matrix


def wordllama(folder: Path) -> str:
    """The weights inside that package, as model2vec reads them."""
    package = Path(find_spec("wordllama").submodule_search_locations[0])  # type: ignore[union-attr, index]
    (weights,) = load_file(package / "weights" / "l2_supercat_256.safetensors").values()
    tokenizer = Tokenizer.from_file(str(package / "tokenizers" / "l2_supercat_tokenizer_config.json"))
    StaticModel(weights.astype(np.float32), tokenizer).save_pretrained(folder / "wordllama")
    return f"model2vec:{folder / 'wordllama'}"

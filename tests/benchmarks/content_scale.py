"""What content of many items costs: processor seconds and the highest memory.

    python -m tests.benchmarks.content_scale [--items 1000000]

Titles of 4 words and descriptions of 30, drawn from 200,000 words by Zipf's law, a category and a price; vectors of 64
dimensions, drawn; 20 interactions an item at the mean. There is no fold-in, so that what is measured is the encoding,
the choice of λ, the map and its use for all items.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import csr_matrix

from embedding_trainers.content.features import Features
from embedding_trainers.content.model import ContentModel
from embedding_trainers.content.prior import Trained, fit_prior
from embedding_trainers.content.spec import parse_content
from embedding_trainers.trainer import KnownSide

WORDS, DIM, USERS = 200_000, 64, 100_000


def texts(rng: np.random.Generator, n: int, length: int) -> pa.Array:
    """Texts of some words each."""
    numbers = np.minimum(rng.zipf(1.2, n * length), WORDS) - 1
    words = pa.array([f"w{number}" for number in range(WORDS)]).take(pa.array(numbers))
    lists = pa.ListArray.from_arrays(np.arange(0, n * length + 1, length, dtype=np.int32), words)
    return pc.binary_join(lists, " ")


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=1_000_000)
    n = parser.parse_args().items
    rng = np.random.default_rng(0)
    table = pa.table(
        {
            "title": texts(rng, n, 4),
            "description": texts(rng, n, 30),
            "category": pa.array(rng.integers(0, 300, n)).cast(pa.string()),
            "price": rng.lognormal(3, 1, n),
        }
    )
    counts = rng.geometric(1 / 20, n)
    starts = np.concatenate([[0], np.cumsum(counts)])
    entries = rng.integers(0, USERS, starts[-1], dtype=np.int32)
    interactions = csr_matrix((np.ones(len(entries), np.float32), entries, starts), shape=(n, USERS))
    users = rng.standard_normal((USERS, DIM), dtype=np.float32)
    known = KnownSide("user", users, np.zeros(USERS, np.float32), np.ones(USERS, np.int64))
    trained = Trained(rng.standard_normal((n, DIM), dtype=np.float32), np.zeros(n, np.float32), interactions, known)
    columns = parse_content("title:text,description:text,category:category,price:number", table.column_names)
    print(f"{n:,} items: {peak_gib():.2f} GiB before", flush=True)

    start = time.process_time()
    features = Features.fitted(table, columns)
    print(f"encoders fitted: {time.process_time() - start:.0f} CPU s, {peak_gib():.2f} GiB", flush=True)
    encoded = features.of(table)
    print(f"encoded, {encoded.nnz:,} values: {time.process_time() - start:.0f} CPU s, {peak_gib():.2f} GiB", flush=True)
    prior = fit_prior(encoded, trained, None, widths=features.widths(table))
    del encoded
    print(f"map fitted: {time.process_time() - start:.0f} CPU s, {peak_gib():.2f} GiB", flush=True)
    ContentModel(features, prior).of(table)
    print(f"all items mapped: {time.process_time() - start:.0f} CPU s, {peak_gib():.2f} GiB", flush=True)


if __name__ == "__main__":
    main()

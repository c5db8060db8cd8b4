"""What a map costs and keeps: the product's own, and the defaults of openTSNE, UMAP, PaCMAP and scikit-learn's t-SNE.

    python -m tests.benchmarks.maps --items 10000 100000
    pip install openTSNE umap-learn pacmap
    python -m tests.benchmarks.maps --libraries opentsne umap pacmap sklearn

The points are the items of a generated shop, trained with als. Kept is the share of the 10 nearest by cosine, found by
brute force, that are among the 10 nearest on the map, of 2,000 items. Seconds are of the map alone, after one small map
that compiles.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedding_trainers.interactions import read_interactions
from embedding_trainers.trainer import RunOptions, find_trainer
from feast_embeddings.analysis.maps.places import places_of
from feast_embeddings.analysis.members import Members
from feast_embeddings.demo import generate_shop

Floats = npt.NDArray[np.float32]
K = 10
SAMPLE = 2000


def product(x: Floats, seed: int) -> Any:
    """What `feast-embeddings map` draws."""
    ids = pa.array(range(len(x)))
    norms = np.ones(len(x), np.float32)
    return places_of(Members("item", "item_id", ids, norms, x, pa.table({}), version="", as_of=""), seed=seed)


def opentsne(x: Floats, seed: int) -> Any:
    from openTSNE import TSNE

    return TSNE(metric="cosine", random_state=seed, n_jobs=2).fit(x)


def umap(x: Floats, seed: int) -> Any:
    from umap import UMAP

    return UMAP(metric="cosine", random_state=seed, n_jobs=1).fit_transform(x)


def pacmap(x: Floats, seed: int) -> Any:
    from pacmap import PaCMAP

    return PaCMAP(distance="angular", random_state=seed).fit_transform(x)


def sklearn(x: Floats, seed: int) -> Any:
    from sklearn.manifold import TSNE

    return TSNE(metric="cosine", random_state=seed, n_jobs=2).fit_transform(x)


LIBRARIES: dict[str, Callable[[Floats, int], Any]] = {
    "product": product,
    "opentsne": opentsne,
    "umap": umap,
    "pacmap": pacmap,
    "sklearn": sklearn,
}


def item_vectors(n_items: int) -> Floats:
    """Unit vectors of the items of a shop."""
    shop = generate_shop(n_users=2 * n_items, n_items=n_items, n_interactions=40 * n_items)
    trainer = find_trainer("als")
    matrix = read_interactions(shop.interactions).to_csr()
    learned = trainer.train(matrix, trainer.configure({"factors": 64}), RunOptions(seed=0, threads=2))
    vectors = np.asarray(learned.item_factors, np.float32)
    unit: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit


def kept(x: Floats, places: npt.NDArray[np.floating]) -> float:
    """Share of the nearest by cosine that are among the nearest on the map."""
    from sklearn.neighbors import NearestNeighbors

    sample = np.random.default_rng(0).choice(len(x), min(SAMPLE, len(x)), replace=False)

    def nearest(points: Any) -> Any:
        found = NearestNeighbors(n_neighbors=K + 1).fit(points).kneighbors(points[sample], return_distance=False)
        return [set(row) - {own} for row, own in zip(found.tolist(), sample.tolist(), strict=True)]

    shares = [len(a & b) / K for a, b in zip(nearest(x), nearest(places), strict=True)]
    return float(np.mean(shares))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[10_000])
    parser.add_argument("--libraries", nargs="*", choices=LIBRARIES, default=["product"])
    given = parser.parse_args()
    print("| items | map | kept | CPU s | wall s |\n|---|---|---|---|---|")
    for n_items in given.items:
        x = item_vectors(n_items)
        for name in given.libraries:
            LIBRARIES[name](x[:500], 0)
            cpu, wall = time.process_time(), time.perf_counter()
            places = np.asarray(LIBRARIES[name](x, 0))
            took = f"{time.process_time() - cpu:.0f} | {time.perf_counter() - wall:.0f}"
            print(f"| {len(x):,} | {name} | {kept(x, places):.3f} | {took} |", flush=True)


if __name__ == "__main__":
    main()

"""What `EmbeddingStore.search` finds for the titles of 300 movies of MovieLens 100K, without their years.

    python -m tests.benchmarks.text_relevance --data DIR

Prints how often the movie itself is among the first ten by content, the mean of 1 / place by content and of all
rankings together (MRR), and the genre Jaccard of the movie with the ten others that are first by content. DIR has
ml-100k_interactions.parquet and ml-100k_items.parquet.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from embedding_trainers.train import train_model
from feast_embeddings import EmbeddingStore, embedding_views, publish_artifact
from feast_embeddings.repo import init_repo

QUERIES, K = 300, 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--trainer", default="als")
    options = parser.parse_args()
    log, items = (pq.read_table(options.data / f"ml-100k_{name}.parquet") for name in ("interactions", "items"))
    movies = {movie["item_id"]: movie for movie in items.to_pylist()}
    genres = {id: set(movie["genres"]) for id, movie in movies.items()}
    with tempfile.TemporaryDirectory() as folder:
        repo = init_repo(Path(folder) / "repo")
        artifact = train_model(
            repo.path,
            "movies",
            log,
            trainer=options.trainer,
            item_attributes=items,
            content="title:text,genres:list",
            evaluation=False,
        ).artifact
        feature_store = repo.feature_store()
        feature_store.apply(list(embedding_views("movies", repo.data).by_name().values()))
        publish_artifact(feature_store, artifact)
        store = EmbeddingStore(feature_store, "movies")
        by_content, fused, jaccard = [], [], []
        for id in np.random.default_rng(0).permutation(np.array(list(movies), object))[:QUERIES]:
            found = store.search(re.sub(r"\(\d{4}\)", "", movies[id]["title"]), k=K)
            places = {
                each: place["content"]
                for each, place in zip(found.ids, found.places, strict=True)
                if "content" in place
            }
            by_content.append(1 / places[id] if id in places else 0)
            fused.append(1 / (found.ids.index(id) + 1) if id in found.ids else 0)
            first = sorted(places.keys() - {id}, key=lambda each: places[each])[:10]
            jaccard += [len(genres[id] & genres[each]) / len(genres[id] | genres[each]) for each in first]
        print(
            f"{options.trainer}: itself among the first 10 by content {np.mean(np.array(by_content) >= 0.1):.3f}, MRR "
            f"{np.mean(by_content):.3f}; of all rankings {np.mean(fused):.3f}; genre Jaccard {np.mean(jaccard):.3f}"
        )


if __name__ == "__main__":
    main()

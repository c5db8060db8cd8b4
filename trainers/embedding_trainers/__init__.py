"""Training: from an interaction log to an artifact that `feast_embeddings` serves.

`train.train_model` runs the whole of it; `trainer` holds the contract that a new trainer fulfils.
Needs the extra ``feast-embeddings[trainers]`` as soon as a matrix is built, and not before.
"""

AUTO = "auto"
"""In place of a trainer's name: race the cheap ones, and fit the winner; see `embedding_trainers.search.racing`."""

"""Fold-in: vectors for new users or items, without training again.

The plugin finds these by the entry-point group ``feast_embeddings.fold_in``.
"""

from embedding_trainers.fold_in.from_log import fold_in
from embedding_trainers.fold_in.loaded import FoldIn
from embedding_trainers.fold_in.new_rows import fold_in_new_rows

__all__ = ["FoldIn", "fold_in", "fold_in_new_rows"]

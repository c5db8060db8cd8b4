"""Fold-in: vectors for new users or items, without training again.

The plugin finds these by the entry-point group ``feast_embeddings.fold_in``.
"""

from embedding_trainers.fold_in.from_log import FoldIn, fold_in
from embedding_trainers.fold_in.new_items import fold_in_new_items

__all__ = ["FoldIn", "fold_in", "fold_in_new_items"]

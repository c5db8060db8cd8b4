"""Import: a version of vectors that were made elsewhere."""

from embedding_trainers.importing.vector_tables import VectorFile
from embedding_trainers.importing.version import import_model

__all__ = ["VectorFile", "import_model"]

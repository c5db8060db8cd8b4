"""What this Feast repo serves: the embeddings of every model that was trained into it.

Add your own entities, sources and feature views below or in other files; `feast apply` finds them all.
"""

from pathlib import Path

from feast_embeddings import embedding_views, trained_models

DATA = Path(__file__).parent / "data"

for model in trained_models(DATA):
    # Feast looks for its objects among a module's globals.
    globals().update(embedding_views(model, DATA).by_name())

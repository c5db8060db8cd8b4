"""Search items by a text: keywords, what the text means as content, and whom it is for."""

from feast_embeddings.query.text.search import MOST_CHARACTERS, search_items
from feast_embeddings.query.text.version_text import VersionText

__all__ = ["MOST_CHARACTERS", "VersionText", "search_items"]

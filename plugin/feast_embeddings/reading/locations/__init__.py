"""Tables that are not files of this machine."""

from feast_embeddings.reading.locations.location import Location, located, opened

__all__ = ["Location", "located", "opened"]

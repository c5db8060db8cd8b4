"""Which attributes come back with each answer."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from feast_embeddings.errors import OptionError
from feast_embeddings.model.sides import Side

__all__ = ["Returned"]


@dataclass(frozen=True)
class Returned:
    """The attributes of some users or items that come back.

    Attributes:
        names: of the attributes, in their order.
        payload: the payload keys to read; None for all.
    """

    names: Sequence[str]
    payload: list[str] | None

    @classmethod
    def of(cls, side: Side, attributes: bool | Sequence[str]) -> Returned:
        """Return the attributes asked for: all for true, none for false, or the names of a list.

        Raises:
            OptionError: a name is not one of the attributes, or it is no list.
        """
        if attributes is True:
            return cls(side.attribute_names, None)
        asked = () if attributes is False else attributes
        if isinstance(asked, str) or not isinstance(asked, Sequence):
            raise OptionError(
                "attributes", f"attributes must be true, false or a list of names, got {attributes!r:.80}"
            )
        known = side.attribute_names
        if unknown := [name for name in asked if name not in known]:
            close = difflib.get_close_matches(str(unknown[0]), known, n=1)
            raise OptionError(
                "fields",
                f"{side.entity}s have no attribute {str(unknown[0])!r:.80}"
                + "".join(f", did you mean {name!r}?" for name in close)
                + f"; there are {', '.join(known) or 'none'}",
            )
        names = list(dict.fromkeys(asked))
        return cls(names, [side.id_name, *(key for name in names for key in side.codec.payload_keys(name))])

    def reading(self, *keys: str) -> list[str] | None:
        """Return the payload keys to read if these are needed, too."""
        return None if self.payload is None else [*self.payload, *keys]

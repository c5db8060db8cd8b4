"""The file of added attributes."""

from __future__ import annotations

from pathlib import Path

import pytest

from feast_embeddings.codec.attribute_values import named_type
from feast_embeddings.errors import EmbeddingsError
from feast_embeddings.events.added import AddedAttributes


def test_every_type_that_can_be_added_is_read_again(tmp_path: Path) -> None:
    names = ("text", "int", "float", "bool", "time", "texts", "ints")
    types = {name: named_type(name, name).name for name in names}
    AddedAttributes(tmp_path / "m.attributes.json").add("item", types)
    assert AddedAttributes(tmp_path / "m.attributes.json").now() == {"item": types}


@pytest.mark.parametrize(
    "damaged", ['{"item": {"x": "FANCY"}}', '{"item": 3}', '{"item": {"x": [1]}}', "3", '"x"', "{"]
)
def test_a_damaged_file_is_named(tmp_path: Path, damaged: str) -> None:
    (tmp_path / "m.attributes.json").write_text(damaged)
    with pytest.raises(EmbeddingsError, match=r"^the added attributes in .*m\.attributes\.json cannot be used: "):
        AddedAttributes(tmp_path / "m.attributes.json").now()

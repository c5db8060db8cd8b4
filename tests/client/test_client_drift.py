"""The clients know exactly the endpoints, request fields and answer fields of the service's OpenAPI document."""

from __future__ import annotations

import copy
import inspect
import re
from typing import Any

import pytest
from tests.client.js_types import DECLARATIONS, Document, Schema, endpoints_of_client, page

from feast_embeddings.client import calls
from feast_embeddings.client.answers import Found


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Document:
    """Of the service."""
    return Document.of_service(tmp_path_factory.mktemp("repo"))


def test_javascript_has_a_method_for_each_endpoint(document: Document) -> None:
    """No more and no fewer, and each of them is declared to take and give what its endpoint does."""
    endpoints = endpoints_of_client()
    assert sorted(endpoint for endpoint, _ in endpoints.values()) == sorted(document.endpoints)
    signature = re.compile(r"^  (\w+)\(request\??: (\S+), options\?: CallOptions\): Promise<(\w+)>;$", re.MULTILINE)
    without_body = {"models": "{}", "versions": "VersionsRequest", "map": "MapRequest"}
    assert {m[1]: (m[2], m[3]) for m in signature.finditer(DECLARATIONS.read_text())} == {
        method: (taken or without_body[method], given)
        for method, (endpoint, _) in endpoints.items()
        for taken, given in [document.endpoints[endpoint]]
    }


def test_javascript_types_are_the_documents(document: Document) -> None:
    """index.d.ts is up to date; python -m tests.client.js_types makes its types again."""
    text = DECLARATIONS.read_text()
    assert page(text, document) == text


@pytest.mark.parametrize("change", ["renamed", "optional", "of another type", "gone"])
def test_javascript_types_follow_the_document(document: Document, change: str) -> None:
    """A change of a request's field is one of its declaration."""
    schemas = copy.deepcopy(document.schemas)
    changed = Document({"components": {"schemas": schemas}, "paths": {}})
    changed.endpoints = document.endpoints
    fields = schemas["NewItem"]["properties"]
    declared = {
        "renamed": "  newItemId?: Id;\n",
        "optional": "  itemId?: Id;\n",
        "of another type": "  itemId: boolean;\n",
        "gone": "",
    }[change]
    if change == "renamed":
        fields = {"new_item_id": fields.pop("item_id"), **fields}
    elif change == "optional":
        schemas["NewItem"]["required"] = ["metadata"]
    elif change == "of another type":
        fields["item_id"] = {"type": "boolean"}
    else:
        del fields["item_id"]
    schemas["NewItem"]["properties"] = fields
    text, old = DECLARATIONS.read_text(), "export interface NewItem {\n  itemId: Id;\n"
    assert old in text
    assert page(text, changed) == text.replace(old, f"export interface NewItem {{\n{declared}")


def test_javascript_leaves_names_alone_that_are_data(document: Document) -> None:
    """In answers, exactly in the fields whose names the document leaves open."""
    free = {
        name
        for schema in document.schemas.values()
        for name, field in schema.get("properties", {}).items()
        if any("additionalProperties" in part for part in [field, *field.get("anyOf", ())])
    }
    declared = re.search(r"FREE = new Set\(\[(.*?)\]\)", DECLARATIONS.with_name("wire.js").read_text())
    assert declared is not None
    assert set(re.findall(r'"(\w+)"', declared[1])) == free


# --- Python: calls are made, and fed with answers that know what is read of them.

PYTHON = {name: call for name, call in vars(calls).items() if inspect.isfunction(call) and not name.startswith("_")}
PYTHON = {name: call for name, call in PYTHON.items() if call.__module__ == calls.__name__}
ARGUMENTS = {
    "model": "shop", "user_id": "u", "item_id": "i", "user_ids": ["u"], "item_ids": ["i"], "entity": "item",
    "limit": 1, "filter": "f", "cursor": "c", "version": "v", "interactions": {"i": 2.0}, "items": {"i": {}},
    "users": {"u": {}}, "positive": ["i"], "negative": ["i"], "vector": [1.0], "fields": ["f"],
    "exclude_ids": ["i"], "max_per": {}, "boosts": [{"filter": "f", "weight": 1.0}], "text": "t",
}  # fmt: skip
# The caller knows the model; each vector is of the version of the answer; each version says whether it is live.
UNREAD = {
    *(f"{name}Answer.model" for name in ("Embedding", "Neighbours", "Ranking", "Batch", "Page", "Search")),
    *("AddedAnswer.model", "AddedAnswer.duplicates", "AddedAnswer.without_weight"),
    *("NewItemsAnswer.model", "NewItemsAnswer.version"),
    *("EmbeddingRow.version", "EmbeddingRow.as_of", "VersionsAnswer.model", "VersionsAnswer.live_version"),
}


class Answer(dict[str, Any]):
    """An answer that notes what is read of it."""

    def __init__(self, schema: str, fields: dict[str, Any], read: set[str]) -> None:
        super().__init__(fields)
        self._schema, self._read = schema, read

    def __getitem__(self, field: str) -> Any:
        self._read.add(f"{self._schema}.{field}")
        return super().__getitem__(field)

    def all_read(self) -> None:
        for field in self:
            value = self[field]
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, Answer):
                    part.all_read()


def example(document: Document, name: str, read: set[str]) -> Answer:
    """An answer with every field of the schema."""

    def value(field: str, schema: Schema) -> Any:
        if "anyOf" in schema:
            return value(field, schema["anyOf"][0])
        if "$ref" in schema:
            return example(document, document.name(schema), read)
        if field == "vector":
            return "AACAPw==" if name == "EmbeddingRow" else [1.0]
        kind = schema["type"]
        if kind == "array":
            return [value(field, schema["items"])]
        return {"string": "x", "integer": 1, "number": 1.0, "boolean": True, "object": {}}[kind]

    return Answer(name, {field: value(field, schema) for field, schema in document.fields(name).items()}, read)


def names(body: Any) -> set[str]:
    """The names of a request's fields, and of those within them."""
    if isinstance(body, dict):
        return set(body).union(*map(names, body.values()))
    return set().union(*map(names, body)) if isinstance(body, list) else set()


def test_python_sends_and_reads_every_field(document: Document) -> None:
    """Over all calls: the request fields of each endpoint, and of each answer all but what is known already."""
    sent: dict[str, set[str]] = {}
    read = set[str]()
    for make in PYTHON.values():
        arguments = {name: ARGUMENTS.get(name, True) for name in inspect.signature(make).parameters}
        if make is calls.rank_batch:
            arguments["interactions"] = [arguments["interactions"]]
        if make is calls.add_interactions:
            event = {"user_id": "u", "item_id": "i", "weight": 2.0, "timestamp": "t", "event": "buy"}
            arguments["interactions"] = [event]
        call = make(**arguments)
        endpoint = f"{call.method} {call.path.replace('/shop', '/{model}').replace('/map/item', '/map/{entity}')}"
        sent.setdefault(endpoint, set()).update(names(call.body))
        answer = example(document, document.endpoints[endpoint][1], read)
        result = call.read(answer)
        whole: list[Any] = [answer] if result == answer else []
        if isinstance(result, list):
            whole = result
        elif isinstance(result, Found):
            whole = result.places
        for handed_on in whole:
            handed_on.all_read()
    assert sent == {
        endpoint: {field for part in document.parts(taken) for field in document.fields(part)} if taken else set()
        for endpoint, (taken, _) in document.endpoints.items()
    }
    answers = {part for _, given in document.endpoints.values() for part in document.parts(given)}
    known = {f"{name}.{field}" for name in answers for field in document.fields(name)}
    assert read <= known
    assert known - read == UNREAD

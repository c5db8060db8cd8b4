"""The clients know exactly the endpoints, request fields and answer fields of the service's OpenAPI document."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
from tests.conftest import ROOT

from feast_embeddings.client import calls
from feast_embeddings.repo import init_repo
from feast_embeddings.service import ServiceSettings, create_app

JS = ROOT / "clients" / "js" / "src"
Schema = dict[str, Any]


class Document:
    """The OpenAPI document: endpoints as ``POST /v1/…``, and the schema of what each takes and gives."""

    def __init__(self, openapi: Schema) -> None:
        self.schemas: dict[str, Schema] = openapi["components"]["schemas"]
        self.endpoints: dict[str, tuple[str | None, str]] = {}
        for path, methods in openapi["paths"].items():
            if path.startswith("/v1/"):
                for method, operation in methods.items():
                    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
                    answer = operation["responses"]["200"]["content"]["application/json"]
                    taken = self.name(body["schema"]) if body else None
                    self.endpoints[f"{method.upper()} {path}"] = taken, self.name(answer["schema"])

    def name(self, schema: Schema) -> str:
        return str(schema["$ref"].rsplit("/", 1)[1])

    def parts(self, name: str) -> set[str]:
        """The schemas that this one is made of, itself among them."""
        found, left = set[str](), {name}
        while left:
            found |= left
            left = set(re.findall(r"schemas/(\w+)", str([self.fields(part) for part in left]))) - found
        return found

    def fields(self, name: str) -> dict[str, Schema]:
        found: dict[str, Schema] = self.schemas[name]["properties"]
        return found


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Document:
    """Of the service."""
    repo = init_repo(tmp_path_factory.mktemp("repo"))
    return Document(create_app(ServiceSettings(repo=repo.path)).openapi())


# --- JavaScript: index.d.ts says what methods take and give, endpoints.js what they ask.

Fields = dict[str, tuple[bool, str]]
"""Name -> whether it may be left out, and its type."""


def camel(name: str) -> str:
    return re.sub("_([a-z])", lambda match: match[1].upper(), name)


def js_endpoints() -> dict[str, tuple[str, set[str]]]:
    """Method -> endpoint, and the fields of the request that the client fills in itself."""
    row = re.compile(r'(\w+): \{ method: "(\w+)", path: "(\S+)"(?:, body: \{ (\w+): "\w+" \})?(?:, \w+: false)? \}')
    table = (JS / "endpoints.js").read_text().split("{", 1)[1]
    found = {m[1]: (f"{m[2]} {m[3]}", {m[4]} - {None}) for m in row.finditer(table)}
    assert len(found) == table.count("method:")
    return found


class Declarations:
    """The interfaces and methods of index.d.ts."""

    def __init__(self) -> None:
        text = re.sub(r"/\*\*.*?\*/", "", (JS / "index.d.ts").read_text(), flags=re.DOTALL)
        interfaces = re.finditer(r"interface (\w+)(?: extends (\w+))? \{\n(.*?)^\}", text, re.DOTALL | re.MULTILINE)
        self._interfaces = {m[1]: (m[2], m[3]) for m in interfaces}
        signature = re.compile(r"^  (\w+)\(request\??: (\S+), options\?: CallOptions\): Promise<(\w+)>;$", re.MULTILINE)
        self.methods = {m[1]: (m[2], m[3]) for m in signature.finditer(text)}

    def fields(self, name: str) -> Fields:
        base, body = self._interfaces[name]
        own = re.findall(r"^  (?:readonly )?(\w+)(\??): (.+);$", body, re.MULTILINE)
        assert len(own) == sum(bool(line.strip()) for line in body.splitlines()), name
        inherited = self.fields(base) if base else {}
        return inherited | {field: (bool(mark), kind) for field, mark, kind in own}


def typescript(name: str, schema: Schema, request: bool) -> str:
    """The type that a field must be declared with."""
    if name == "vector":
        return "Float32Array | null"
    if "$ref" in schema:
        return str(schema["$ref"].rsplit("/", 1)[1])
    if "const" in schema:
        return f'"{schema["const"]}"'
    if "enum" in schema:
        return " | ".join(f'"{value}"' for value in schema["enum"])
    if "anyOf" in schema:
        parts = list(dict.fromkeys(typescript("", part, request) for part in schema["anyOf"]))
        return " | ".join(["Id", *parts[2:]] if parts[:2] == ["string", "number"] else parts)
    if schema["type"] == "array":
        items = typescript("", schema["items"], request)
        return f"readonly {f'({items})' if ' ' in items else items}[]" if request else f"{items}[]"
    if schema["type"] == "object":
        return "Attributes" if schema["additionalProperties"] is True else "Record<string, number>"
    return {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}[
        schema["type"]
    ]


def declared_as(document: Document, name: str, request: bool) -> Fields:
    """How an interface for this schema must read."""
    required = document.schemas[name].get("required", ())
    return {
        camel(field): (field not in required, typescript(field, schema, request))
        for field, schema in document.fields(name).items()
    }


def test_javascript_has_a_method_for_each_endpoint(document: Document) -> None:
    """No more and no fewer, and each of them has types."""
    endpoints = js_endpoints()
    assert sorted(endpoint for endpoint, _ in endpoints.values()) == sorted(document.endpoints)
    assert Declarations().methods.keys() == endpoints.keys()


@pytest.mark.parametrize("method", js_endpoints())
def test_javascript_types_are_the_documents(document: Document, method: str) -> None:
    """What a method takes and gives: every field, whether it may be left out, and its type."""
    declarations = Declarations()
    endpoint, own = js_endpoints()[method]
    taken, given = document.endpoints[endpoint]
    request, answer = declarations.methods[method]

    expected: Fields = {"modelName": (False, "string")} if "{model}" in endpoint else {}
    if taken is not None:
        expected |= declared_as(document, taken, request=True)
    found = declarations.fields(request) if request != "{}" else {}
    assert found == {field: kind for field, kind in expected.items() if field not in own}
    for part in document.parts(taken) - {taken} if taken else ():
        assert declarations.fields(part) == declared_as(document, part, request=True), part

    assert answer == given
    for part in document.parts(given):
        assert declarations.fields(part) == declared_as(document, part, request=False), part


def test_javascript_leaves_names_alone_that_are_data(document: Document) -> None:
    """In answers, exactly in the fields whose names the document leaves open."""
    free = {
        name
        for schema in document.schemas.values()
        for name, field in schema.get("properties", {}).items()
        if any("additionalProperties" in part for part in [field, *field.get("anyOf", ())])
    }
    declared = re.search(r"FREE = new Set\(\[(.*?)\]\)", (JS / "wire.js").read_text())
    assert declared is not None
    assert set(re.findall(r'"(\w+)"', declared[1])) == free


# --- Python: calls are made, and fed with answers that know what is read of them.

PYTHON = {name: call for name, call in vars(calls).items() if inspect.isfunction(call) and not name.startswith("_")}
PYTHON = {name: call for name, call in PYTHON.items() if call.__module__ == calls.__name__}
ARGUMENTS = {
    "model": "shop", "user_id": "u", "item_id": "i", "user_ids": ["u"], "item_ids": ["i"], "entity": "item",
    "limit": 1, "filter": "f", "cursor": "c", "version": "v", "interactions": {"i": 2.0}, "items": {"i": {}},
    "exclude_ids": ["i"], "max_per": {},
}  # fmt: skip
# The caller knows the model; each vector is of the version of the answer; each version says whether it is live.
UNREAD = {
    *(f"{name}.model" for name in ("EmbeddingAnswer", "NeighboursAnswer", "BatchAnswer", "PageAnswer")),
    *("AddedAnswer.model", "AddedAnswer.duplicates", "NewItemsAnswer.model", "NewItemsAnswer.version"),
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
            if isinstance(part := self[field], Answer):
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
            arguments["interactions"] = [{"user_id": "u", "item_id": "i", "weight": 2.0, "timestamp": "t"}]
        call = make(**arguments)
        endpoint = f"{'GET' if call.body is None else 'POST'} {call.path.replace('/shop', '/{model}')}"
        sent.setdefault(endpoint, set()).update(names(call.body))
        answer = example(document, document.endpoints[endpoint][1], read)
        result = call.read(answer)
        for handed_on in result if isinstance(result, list) else [answer] if result == answer else []:
            handed_on.all_read()
    assert sent == {
        endpoint: {field for part in document.parts(taken) for field in document.fields(part)} if taken else set()
        for endpoint, (taken, _) in document.endpoints.items()
    }
    answers = {part for _, given in document.endpoints.values() for part in document.parts(given)}
    known = {f"{name}.{field}" for name in answers for field in document.fields(name)}
    assert read <= known
    assert known - read == UNREAD

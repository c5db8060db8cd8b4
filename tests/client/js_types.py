"""The TypeScript types of requests and answers in index.d.ts, made from the service's OpenAPI document.

python -m tests.client.js_types        # writes them again
"""

from __future__ import annotations

import json
import re
import tempfile
import textwrap
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

from feast_embeddings.repo import init_repo
from feast_embeddings.service import ServiceSettings, create_app

DECLARATIONS = ROOT / "clients" / "js" / "src" / "index.d.ts"
_MADE = re.compile(r"(?<=^// Made by `python -m tests\.client\.js_types`\.\n).*", re.DOTALL | re.MULTILINE)
_NAMES = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}
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

    @classmethod
    def of_service(cls, folder: Path) -> Document:
        """Of the service of a new repo in this folder."""
        return cls(create_app(ServiceSettings(repo=init_repo(folder).path)).openapi())

    def name(self, schema: Schema) -> str:
        return str(schema["$ref"].rsplit("/", 1)[1])

    def parts(self, name: str) -> list[str]:
        """The schemas that this one is made of, itself first."""
        found = [name]
        for part in found:
            found += [each for each in re.findall(r"schemas/(\w+)", str(self.fields(part))) if each not in found]
        return found

    def fields(self, name: str) -> dict[str, Schema]:
        found: dict[str, Schema] = self.schemas[name]["properties"]
        return found


def endpoints_of_client() -> dict[str, tuple[str, set[str]]]:
    """Method -> endpoint, and the fields of the request that the client fills in itself."""
    row = re.compile(r'(\w+): \{ method: "(\w+)", path: "(\S+)"(?:, body: \{ (\w+): "\w+" \})?(?:, \w+: false)? \}')
    table = DECLARATIONS.with_name("endpoints.js").read_text().split("{", 1)[1]
    found = {m[1]: (f"{m[2]} {m[3]}", {m[4]} - {None}) for m in row.finditer(table)}
    assert len(found) == table.count("method:")
    return found


def page(text: str, document: Document) -> str:
    """Return index.d.ts with the types that the document asks for."""
    made: dict[str, str] = {}
    for endpoint, own in endpoints_of_client().values():
        taken, given = document.endpoints[endpoint]
        for part in document.parts(taken) if taken else ():
            model = part == taken and "{model}" in endpoint
            made.setdefault(part, _interface(document, part, request=True, model=model, own=own))
        for part in document.parts(given):
            made.setdefault(part, _interface(document, part, request=False))
    assert len(_MADE.findall(text)) == 1, DECLARATIONS
    return _MADE.sub(lambda _: "\n" + "\n".join(made.values()), text)


def _interface(
    document: Document, name: str, *, request: bool, model: bool = False, own: set[str] | frozenset[str] = frozenset()
) -> str:
    schema = document.schemas[name]
    required = schema.get("required", ())
    lines = [*_comment(schema), f"export interface {name} {{", *(["  modelName: string;"] if model else [])]
    for field, about in document.fields(name).items():
        if field not in own:
            lines += [f"  {line}" for line in _comment(about)]
            lines.append(f"  {_camel(field)}{'' if field in required else '?'}: {_type(field, about, request)};")
    return "\n".join([*lines, "}", ""])


def _comment(schema: Schema) -> list[str]:
    """The description, with the names that fields have in JavaScript, and the default."""
    text = re.sub("`[^`]*`", lambda quoted: _camel(quoted[0]), schema.get("description", "")).rstrip(".")
    if schema.get("default") is not None:
        default = json.dumps(schema["default"])
        text += f"; {default.removesuffix('.0')} by default" if text else f"By default {default}"
    if not text:
        return []
    if len(line := f"/** {text}. */") <= 118:
        return [line]
    return ["/**", *(f" * {line}" for line in textwrap.wrap(f"{text}.", 115)), " */"]


def _type(name: str, schema: Schema, request: bool) -> str:
    if name == "vector":
        return "Float32Array | null"
    if "$ref" in schema:
        return str(schema["$ref"].rsplit("/", 1)[1])
    if "enum" in schema:
        return " | ".join(f'"{value}"' for value in schema["enum"])
    if "anyOf" in schema:
        parts = list(dict.fromkeys(_type("", part, request) for part in schema["anyOf"]))
        return " | ".join(["Id", *parts[2:]] if parts[:2] == ["string", "number"] else parts)
    if schema["type"] == "array":
        items = _type("", schema["items"], request)
        return f"readonly {f'({items})' if ' ' in items else items}[]" if request else f"{items}[]"
    if schema["type"] == "object":
        return "Attributes" if schema["additionalProperties"] is True else "Record<string, number>"
    return _NAMES[schema["type"]]


def _camel(name: str) -> str:
    return re.sub("_([a-z])", lambda match: match[1].upper(), name)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        DECLARATIONS.write_text(page(DECLARATIONS.read_text(), Document.of_service(Path(folder) / "repo")))


if __name__ == "__main__":
    main()

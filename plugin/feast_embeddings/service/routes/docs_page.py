"""`/docs`: the OpenAPI document as one plain page. It loads nothing, so it works without a network."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from html import escape
from typing import Any

__all__ = ["DOCS_POLICY", "docs_page"]

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
pre { background: #f4f4f4; padding: .8rem; overflow-x: auto; font-size: 14px }
h2 { border-top: 1px solid #ccc; padding-top: 1rem } code { background: #f4f4f4 }
"""


# Allow only the style above.
DOCS_POLICY = (
    f"default-src 'none'; style-src 'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def docs_page(openapi: dict[str, Any], prefix: str) -> str:
    """Render the page for an OpenAPI document of JSON bodies; `prefix` is where the service is mounted."""
    info = openapi["info"]
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(info['title'])}</title>",
        f"<style>{_STYLE}</style><h1>{escape(info['title'])} {escape(info['version'])}</h1>",
        f"<p>{escape(info['description'])}</p>",
        f'<p>As an OpenAPI document: <a href="{escape(prefix)}/openapi.json">openapi.json</a>.</p>',
    ]
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            parts.append(_operation(openapi, prefix + path, method.upper(), operation))
    return "\n".join(parts) + "</html>"


def _operation(openapi: dict[str, Any], path: str, method: str, operation: dict[str, Any]) -> str:
    lines = [
        f"<h2 id={escape(operation['operationId'])}>{method} <code>{escape(path)}</code></h2>",
        f"<p>{escape(operation.get('description') or operation.get('summary', ''))}</p>",
    ]
    call = f'curl -s{"" if method == "GET" else f" -X {method}"} "$ADDRESS{path}"'
    calls = [call]
    if body := operation.get("requestBody"):
        schema = _resolve(openapi, body["content"]["application/json"]["schema"])
        fields = schema["properties"]
        example = {name: field["examples"][0] for name, field in fields.items() if "examples" in field}
        calls = [
            f"{call} -H 'Content-Type: application/json' -d {shlex.quote(json.dumps(sent))}"
            for sent in schema.get("examples", [example])
        ]
        lines.append(f"<ul>{''.join(_field(name, field, schema) for name, field in fields.items())}</ul>")
    lines.append(f"<pre>{escape(chr(10).join(calls))}</pre>")
    return "\n".join(lines)


def _resolve(openapi: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref")
    found: dict[str, Any] = openapi["components"]["schemas"][reference.rsplit("/", 1)[1]] if reference else schema
    return found


def _field(name: str, field: dict[str, Any], schema: dict[str, Any]) -> str:
    needed = "required" if name in schema.get("required", ()) else f"default {json.dumps(field.get('default'))}"
    return f"<li><code>{escape(name)}</code> ({escape(needed)}) {escape(field.get('description', ''))}</li>"

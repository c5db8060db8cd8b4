"""`/`: a page to look at what the service answers. Its files load nothing but each other."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Response
from starlette.requests import Request
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

__all__ = ["page_routes"]

_HEADERS = {
    # Scripts, styles and answers of this service only; nothing inline, and no script that makes HTML from text.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # asks whether it has changed, so that a page never meets an older script
}


class _Files(StaticFiles):
    def file_response(
        self, full_path: Any, stat_result: os.stat_result, scope: Any, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(_HEADERS)
        return response


def page_routes() -> APIRouter:
    """The page, and what it is made of, under `/page`."""
    folder = Path(__file__).parent / "page"
    files = _Files(directory=folder)
    # An editable install: the client is in the source tree, its only copy.
    client = folder / "client" if (folder / "client").is_dir() else Path(__file__).parents[3] / "clients" / "js" / "src"
    router = APIRouter(
        routes=[
            Mount("/page/client", _Files(directory=client)),
            Mount("/page", files),
        ]
    )

    @router.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def page(request: Request) -> Response:
        """The page; what it names is relative to it, so that it works wherever the service is mounted."""
        return await files.get_response("index.html", request.scope)

    return router

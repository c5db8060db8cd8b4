"""`/`: a page to look at what the service answers. Its files load nothing but each other."""

from __future__ import annotations

from pathlib import Path

from fastapi import Response
from starlette.requests import Request
from starlette.staticfiles import StaticFiles

from feast_embeddings.service.access import GuardedRouter
from feast_embeddings.service.terms import terms

__all__ = ["PLAIN_HEADERS", "page_routes"]

# Of all pages.
PLAIN_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
_HEADERS = PLAIN_HEADERS | {
    # Scripts, styles and answers of this service only; nothing inline, and no script that makes HTML from text.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cache-Control": "no-cache",  # asks whether it has changed, so that a page never meets an older script
}
_METHODS = ["GET", "HEAD"]


def page_routes() -> GuardedRouter:
    """The page, and what it is made of, under `/page`."""
    folder = Path(__file__).parents[1] / "page"
    # An editable install: the client is in the source tree, its only copy.
    client = folder / "client" if (folder / "client").is_dir() else Path(__file__).parents[4] / "clients" / "js" / "src"
    own, of_client = StaticFiles(directory=folder), StaticFiles(directory=client)
    router = GuardedRouter()

    async def sent(files: StaticFiles, path: str, request: Request) -> Response:
        response = await files.get_response(path, request.scope)
        response.headers.update(_HEADERS)
        return response

    @router.api_route("/page/client/{path:path}", methods=_METHODS, include_in_schema=False)
    @terms("open")
    async def client_file(path: str, request: Request) -> Response:
        return await sent(of_client, path, request)

    @router.api_route("/page/{path:path}", methods=_METHODS, include_in_schema=False)
    @terms("open")
    async def page_file(path: str, request: Request) -> Response:
        return await sent(own, path, request)

    @router.api_route("/", methods=_METHODS, include_in_schema=False)
    @terms("open")
    async def page(request: Request) -> Response:
        """The page; what it names is relative to it, so that it works wherever the service is mounted."""
        return await sent(own, "index.html", request)

    return router

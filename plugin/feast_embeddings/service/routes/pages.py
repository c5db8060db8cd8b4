"""`/`: a page to explore the answers of the service. Its files load only each other."""

from __future__ import annotations

from pathlib import Path

from fastapi import Response
from starlette.requests import Request
from starlette.staticfiles import StaticFiles

from feast_embeddings.service.access import GuardedRouter
from feast_embeddings.service.terms import terms

__all__ = ["PLAIN_HEADERS", "page_routes"]

# Headers of all pages.
PLAIN_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
_HEADERS = PLAIN_HEADERS | {
    # Only scripts, styles and answers of this service; nothing inline, and no script that turns text into HTML.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cache-Control": "no-cache",  # revalidate, so that a page never gets an older script
}
_METHODS = ["GET", "HEAD"]


def page_routes() -> GuardedRouter:
    """Return the router of the page, and of its files under `/page`."""
    folder = Path(__file__).parents[1] / "page"
    # In an editable install, the only copy of the client is in the source tree.
    client = folder / "client" if (folder / "client").is_dir() else Path(__file__).parents[4] / "clients" / "js" / "src"
    # Maps are drawn by the code of the file that `feast-embeddings map` writes.
    drawing = Path(__file__).parents[2] / "analysis" / "drawing"
    own, of_client, of_map = (StaticFiles(directory=each) for each in (folder, client, drawing))
    router = GuardedRouter()

    async def sent(files: StaticFiles, path: str, request: Request) -> Response:
        response = await files.get_response(path, request.scope)
        response.headers.update(_HEADERS)
        return response

    @router.api_route("/page/client/{path:path}", methods=_METHODS, include_in_schema=False)
    @terms("open")
    async def client_file(path: str, request: Request) -> Response:
        return await sent(of_client, path, request)

    @router.api_route("/page/drawing/{path:path}", methods=_METHODS, include_in_schema=False)
    @terms("open")
    async def drawing_file(path: str, request: Request) -> Response:
        return await sent(of_map, path, request)

    @router.api_route("/page/{path:path}", methods=_METHODS, include_in_schema=False)
    @terms("open")
    async def page_file(path: str, request: Request) -> Response:
        return await sent(own, path, request)

    @router.api_route("/", methods=_METHODS, include_in_schema=False)
    @terms("open")
    async def page(request: Request) -> Response:
        """Return the page; its links are relative, so that it works wherever the service is mounted."""
        return await sent(own, "index.html", request)

    return router

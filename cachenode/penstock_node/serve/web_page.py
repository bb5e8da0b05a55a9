"""The web page of the admin port: a browser's view of the cluster, at ``GET /``.

Responsible for: the page's files, each with its type, and headers that let a browser load nothing
from elsewhere and ask again only for what has changed.
Not responsible for: what the page shows: it asks ``/api/…`` for that, every two seconds.
"""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from penstock_node.serve.overview_api import Answer

FOLDER = Path(__file__).with_name("page")
INDEX = "index.html"

_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        # Names come from outside: none of them ever becomes markup.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS = {
    # A new version must not be mixed with an old one; asking costs an answer without a body.
    "Cache-Control": "no-cache",
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class _File:
    """A file of the page, as it is sent."""

    content: bytes
    media_type: str
    etag: str
    """Of the content: files of a wheel all have one time, so that tells nothing."""


def page_routes(*, guarded: Callable[[Answer], Answer]) -> list[Route]:
    """Return what answers ``/`` and the files below ``/page/``; ``guarded`` refuses others."""
    files: dict[str, _File] = {}

    async def file(request: Request) -> Response:
        if not files:
            files.update(await asyncio.to_thread(_read_files))
        found = files.get(request.path_params.get("name", INDEX))
        if found is None:
            return PlainTextResponse("the page has no such file\n", status_code=404)
        return _answer(found, request.headers.get("If-None-Match", ""))

    return [Route("/", guarded(file)), Route("/page/{name}", guarded(file))]


def _answer(file: _File, known: str) -> Response:
    headers = _HEADERS | {"ETag": file.etag}
    # A proxy that compressed the file has made its etag a weak one.
    if file.etag in [etag.strip().removeprefix("W/") for etag in known.split(",")]:
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)


def _read_files() -> dict[str, _File]:
    return {
        path.name: _file(path.read_bytes(), _TYPES[path.suffix])
        for path in FOLDER.iterdir()
        if path.suffix in _TYPES
    }


def _file(content: bytes, media_type: str) -> _File:
    digest = hashlib.blake2b(content, digest_size=12).hexdigest()
    return _File(content, media_type, f'"{digest}"')

"""A bucket that has keys of any form and answers listings as S3 does, in the order of bytes.

No server that can be had here keeps ``a//b`` or ``a/../b`` as S3 does: they have directories.
"""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

from penstock.volumes import Volume

NAME = "flat"
_OBJECT = (
    "<Contents><Key>{key}</Key><LastModified>2026-11-26T17:21:08.000Z</LastModified>"
    '<ETag>"{etag}"</ETag><Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>'
)


class FlatBucket:
    """The bucket behind its server, which is a context manager."""

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        """Of what lies there."""
        self.status = 0
        """What every listing in which keys are encoded is answered with, if not well."""
        self.seen: list[dict[str, str]] = []
        """Headers of those listings."""
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.bucket = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def netloc(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def volume(self, **options: str | bool) -> Volume:
        """Return the whole bucket."""
        usual: dict[str, str | bool] = {"endpoint": f"http://{self.netloc}", "allow_http": True}
        return Volume(NAME, f"s3://{NAME}/", {**usual, **options})

    def put(self, *keys: str) -> None:
        """Have these keys too; those that end in a slash have no bytes."""
        self.sizes.update({key: 0 if key.endswith("/") else 7 for key in keys})

    def remove(self, key: str) -> None:
        """Have it no more."""
        del self.sizes[key]

    def listing(self, query: dict[str, str]) -> str:
        """Return the answer to ``ListObjectsV2``."""
        is_encoded = query.get("encoding-type") == "url"
        after = unquote(query.get("continuation-token", "")) or query.get("start-after", "")
        most = min(1000, int(query.get("max-keys", "1000")))
        keys = sorted(key for key in self.sizes if key.startswith(query["prefix"]) and key > after)
        page = keys[:most]
        told = [quote(key, safe="/") if is_encoded else escape(key) for key in page]
        objects = [
            _OBJECT.format(key=text, etag=f"v-{len(key)}", size=self.sizes[key])
            for key, text in zip(page, told, strict=True)
        ]
        token = f"<NextContinuationToken>{quote(page[-1])}</NextContinuationToken>" if page else ""
        return (
            f"<ListBucketResult><Name>{NAME}</Name><MaxKeys>{most}</MaxKeys>"
            f"<IsTruncated>{str(len(keys) > most).lower()}</IsTruncated>"
            + ("<EncodingType>url</EncodingType>" if is_encoded else "")
            + (token if len(keys) > most else "")
            + "".join(objects)
            + "</ListBucketResult>"
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    bucket: FlatBucket


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        parts, bucket = urlsplit(self.path), self.server.bucket
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        query.setdefault("prefix", "")
        status = 200
        if "encoding-type" in query:
            bucket.seen.append({name.lower(): value for name, value in self.headers.items()})
            status = bucket.status or status
        body = bucket.listing(query) if status == 200 else "<Error><Code>Told</Code></Error>"
        self._answer(status, body.encode())

    def do_HEAD(self) -> None:
        key = unquote(urlsplit(self.path).path).removeprefix(f"/{NAME}/")
        size = self.server.bucket.sizes.get(key)
        if size is None:
            self._answer(404, b"")
            return
        self.send_response(200)
        self.send_header("Last-Modified", "Thu, 26 Nov 2026 17:21:08 GMT")
        self.send_header("ETag", f'"v-{len(key)}"')
        self.send_header("Content-Length", str(size))
        self.end_headers()

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
        """Say nothing."""

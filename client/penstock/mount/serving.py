"""Answering the kernel: threads that read its requests and write the answers.

Responsible for: as many threads as there is work for, errors as the numbers that programs know,
and undoing what was done for a request that nobody waits for any more.
Not responsible for: what a request means (`file_system`), mounting (`device`).
"""

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from penstock.errors import (
    Cancelled,
    InvalidRequest,
    NotPermitted,
    ObjectChanged,
    ObjectNotFound,
    PenstockError,
)
from penstock.memory import new_memory
from penstock.mount.interrupts import Interrupts
from penstock.mount.messages import (
    READ_BYTES_MAX,
    REQUEST_BYTES_MAX,
    Opcode,
    Request,
    answer_header,
    error_answer,
    parse_handle,
    parse_request,
)

log = logging.getLogger(__name__)

THREADS_MAX = 64
"""So many requests at once; more wait in the kernel."""
IDLE_MAX = 8
"""Threads that wait for requests; more end."""
LOG_EVERY_S = 10.0
"""How often failures of the cluster are logged at most."""
_TRY_AGAIN = (errno.ENOENT, errno.EINTR, errno.EAGAIN)
"""The request that was to be read was interrupted before; or nothing at all."""

Buffers: TypeAlias = Sequence[bytes | memoryview]
EMPTY: Buffers = ()
NO_ANSWER: Buffers = [b"none"]
"""What a handler returns when the kernel waits for nothing: this very object."""


class Memory:
    """Memory of one thread for what it reads; there once it is asked for."""

    def __init__(self) -> None:
        self._memory: memoryview | None = None

    def take(self, size_bytes: int) -> memoryview:
        """Return memory of at least that size, which the next call returns again."""
        if self._memory is None or len(self._memory) < size_bytes:
            self._memory = new_memory(max(size_bytes, READ_BYTES_MAX))
        return self._memory


@dataclass(slots=True)
class Call:
    """A request, and what a handler needs beside it to answer."""

    request: Request
    memory: Memory
    stop: threading.Event
    """Set once nobody waits for the answer."""
    send: Callable[[Buffers], bool]
    """Answers; False: nobody waits any more."""
    undo: Callable[[], None] | None = None
    """Undoes what was done, if the answer reaches nobody."""


Handler: TypeAlias = Callable[[Call], Buffers | None]
"""Returns the answer's payload; None: it has sent it itself."""


def errno_of(error: BaseException) -> int:
    """Return the number by which programs know what went wrong."""
    match error:
        case OSError() if error.errno:
            return error.errno
        case ObjectNotFound():
            return errno.ENOENT
        case ObjectChanged():
            return errno.ESTALE
        case NotPermitted():
            return errno.EACCES
        case InvalidRequest():
            return errno.EINVAL
        case Cancelled():
            return errno.EINTR
    return errno.EIO


class Server:
    """Serves one mount until it is unmounted."""

    def __init__(self, descriptor: int, handler: Handler) -> None:
        """Answer nothing yet.

        Args:
            descriptor: Of the device; stays the caller's.
            handler: Answers requests, in any thread.
        """
        self._descriptor, self._handler = descriptor, handler
        self._interrupts = Interrupts(self._give_up)
        self._changed = threading.Condition()
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self._logged_at = -LOG_EVERY_S

    def start(self) -> None:
        """Begin to answer."""
        with self._changed:
            self._start_thread()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Tell whether all threads have ended, as they do once it is unmounted."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._threads, timeout_s)

    def close(self) -> None:
        """Have what runs end soon."""
        self._interrupts.close()

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._run, name="penstock-mount", daemon=True)
        self._threads.add(thread)
        self._idle += 1
        thread.start()

    def _run(self) -> None:
        try:
            self._serve()
        except Exception:
            log.exception("a thread of the mount has ended")
        finally:
            with self._changed:
                self._threads.discard(threading.current_thread())
                self._changed.notify_all()

    def _serve(self) -> None:
        buffer, memory = memoryview(bytearray(REQUEST_BYTES_MAX)), Memory()
        while True:
            try:
                length = os.readv(self._descriptor, [buffer])
            except OSError as error:
                if error.errno in _TRY_AGAIN:
                    continue
                if error.errno != errno.ENODEV:  # Which means that it is unmounted.
                    log.error("the kernel gives no requests: %s", error)
                return
            with self._changed:
                self._idle -= 1
                if not self._idle and len(self._threads) < THREADS_MAX:
                    self._start_thread()
            self._answer(parse_request(buffer[:length]), memory)
            with self._changed:
                if self._idle >= IDLE_MAX:
                    return
                self._idle += 1

    def _answer(self, request: Request, memory: Memory) -> None:
        if request.opcode == Opcode.INTERRUPT:
            self._interrupt(request)
            return
        running = self._interrupts.begin(request.unique)

        def send(payload: Buffers) -> bool:
            size = sum(map(len, payload))
            return self._interrupts.end(running) and self._write(
                [answer_header(request.unique, size), *payload]
            )

        call = Call(request, memory, running.stop, send)
        try:
            payload = self._handler(call)
            if payload is None:
                return
            is_sent = payload is NO_ANSWER or send(payload)
            if not is_sent and call.undo is not None:
                call.undo()
        except Exception as error:  # noqa: BLE001 - whatever it is, somebody waits for an answer
            self._refuse(request, error)
            if self._interrupts.end(running):
                self._write([error_answer(request.unique, errno_of(error))])
        finally:
            self._interrupts.end(running)

    def _refuse(self, request: Request, error: Exception) -> None:
        """Log what programs are told with a number only."""
        if isinstance(error, OSError | ObjectNotFound | Cancelled):
            return
        if not isinstance(error, PenstockError):
            log.error("request %d failed", request.opcode, exc_info=error)
            return
        now = time.monotonic()
        if now >= self._logged_at + LOG_EVERY_S:
            self._logged_at = now
            log.warning("%s: %s", error.name, error)

    def _interrupt(self, request: Request) -> None:
        if not self._interrupts.interrupt(parse_handle(request.body)):
            # It may not have been begun yet: the kernel says it again.
            self._write([error_answer(request.unique, errno.EAGAIN)])

    def _give_up(self, unique: int) -> None:
        self._write([error_answer(unique, errno.EINTR)])

    def _write(self, message: Buffers) -> bool:
        """Send an answer; False: nobody waits for it."""
        try:
            os.writev(self._descriptor, message)
        except OSError as error:
            # ENOENT: the request was interrupted. ENODEV and EBADF: unmounted meanwhile.
            if error.errno not in (errno.ENOENT, errno.ENODEV, errno.EBADF):
                log.error("the kernel does not take an answer: %s", error)
            return False
        return True

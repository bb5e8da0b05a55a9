"""The record's file: lines are appended to it by a thread of its own, whatever the disk does.

Responsible for: appending whole lines, beginning anew where the file was moved away, and telling
in the log once when lines cannot be written, and once when they can again.
Not responsible for: what stands in a line (`audit`), which is in the log in any case.
"""

import contextlib
import os
import queue
import threading
import time
from pathlib import Path

import structlog

from penstock.errors import InvalidConfiguration

LINES_WAITING_MAX = 10_000
"""On their way to the file: a disk that hangs must not keep the process from answering."""
CLOSE_S = 5.0
"""How long a process that ends waits for what is on its way."""

_log = structlog.get_logger(__name__)


class AuditFile:
    """Appends lines. Thread-safe."""

    def __init__(self, path: Path) -> None:
        """Open it, and begin; `close` ends it.

        Raises:
            InvalidConfiguration: It cannot be written.
        """
        self._path = path
        self._descriptor: int | None = None
        self._is: tuple[int, ...] = ()
        """Which file is open; see `_identity`."""
        self._torn: tuple[int, ...] = ()
        """Which file ends within a line: a disk was full."""
        self._lost = 0
        """Lines that could not be written, since one could."""
        try:
            self._open()
        except OSError as error:
            raise InvalidConfiguration(
                f"auth.audit_file: {path} cannot be written: {error.strerror}"
            ) from error
        self._waiting: queue.Queue[str | None] = queue.Queue(LINES_WAITING_MAX)
        # A daemon: a disk that hangs for ever keeps no process from ending.
        self._thread = threading.Thread(target=self._run, name="penstock-audit", daemon=True)
        self._thread.start()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is on its way."""
        return not self._waiting.unfinished_tasks

    def write(self, line: str) -> None:
        """Append a line in a moment."""
        try:
            self._waiting.put_nowait(line)
        except queue.Full:
            _log.error("the audit file takes no more lines: they are in the log alone")

    def close(self, *, timeout_s: float = CLOSE_S) -> None:
        """Write what is on its way, within ``timeout_s``. Blocks."""
        ends_at = time.monotonic() + timeout_s
        is_told = False
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=timeout_s)
            is_told = True
        self._thread.join(max(0.0, ends_at - time.monotonic()))
        if self._thread.is_alive():
            _log.error(
                "the audit file was not written to its end: its last lines are in the log alone",
                path=str(self._path),
                lines=self._waiting.unfinished_tasks - is_told,
            )

    def _run(self) -> None:
        while (line := self._waiting.get()) is not None:
            self._take(line)
            self._waiting.task_done()
        self._shut()

    def _take(self, line: str) -> None:
        try:
            self._append(line)
        except OSError as error:
            # Whatever is wrong with it, the next line opens it again.
            self._shut()
            self._lost += 1
            if self._lost == 1:
                _log.error(
                    "the audit file cannot be written: until it can, lines are in the log alone",
                    path=str(self._path),
                    error=error.strerror,
                )
            return
        if self._lost:
            _log.warning(
                "the audit file is written again: lines before are in the log alone",
                path=str(self._path),
                lines=self._lost,
            )
            self._lost = 0

    def _append(self, line: str) -> None:
        if self._descriptor is None or self._was_moved():
            self._open()
        assert self._descriptor is not None
        rest = f"{line}\n".encode()
        if self._torn == self._is:
            rest = b"\n" + rest
        while rest:
            written = os.write(self._descriptor, rest)
            rest = rest[written:]
            self._torn = self._is if rest else ()

    def _was_moved(self) -> bool:
        try:
            return self._is != _identity(self._path.stat())
        except FileNotFoundError:
            return True

    def _open(self) -> None:
        self._shut()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, 0o666)
        self._is = _identity(os.fstat(self._descriptor))

    def _shut(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(descriptor)


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino

"""The parts of one object on its way to its origin: given in any order, taken in theirs.

Responsible for: holding no more than a window of them, telling whoever gave one when it was
taken, and ending with exactly the bytes that the sender counted, or with an error.
Not responsible for: messages, origins.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from penstock.errors import InvalidRequest, PenstockError


@dataclass(frozen=True, slots=True)
class _End:
    parts: int
    size: int
    """In bytes."""


class Parts:
    """An async iterator over what `give` was given. On one event loop."""

    def __init__(self, *, window: int) -> None:
        """Hold nothing yet.

        Args:
            window: How many parts may be held, the one that is taken next included.
        """
        self._window = window
        self._held: dict[int, bytes] = {}
        self._next = 0
        self._end: _End | None = None
        self._changed = asyncio.Event()
        self.size = 0
        """Bytes taken."""
        self.failure: PenstockError | None = None
        """Why it ended early."""

    def __repr__(self) -> str:
        return f"<Parts: {self._next} taken, {len(self._held)} held>"

    def give(self, index: int, data: bytes) -> None:
        """Add a part; one that was given before is not looked at.

        Raises:
            InvalidRequest: It lies beyond the window, or behind the end.
            PenstockError: It ended early.
        """
        self._check()
        if index >= self._next + self._window or (self._end and index >= self._end.parts):
            raise InvalidRequest(f"part {index} does not belong here: {self!r}")
        if index >= self._next:
            self._held.setdefault(index, data)
            self._tell()

    async def taken(self, index: int, *, timeout_s: float) -> bool:
        """Wait until a part was taken; False: not in time.

        Raises:
            InvalidRequest: It was never given.
            PenstockError: It ended early.
        """
        if index >= self._next and index not in self._held:
            self._check()
            raise InvalidRequest(f"part {index} was never given: {self!r}")
        try:
            async with asyncio.timeout(timeout_s):
                await self._until(lambda: self.failure is not None or index < self._next)
        except TimeoutError:
            return False
        self._check()
        return True

    def end(self, *, parts: int, size: int) -> None:
        """Say that ``parts`` parts of ``size`` bytes are all; again does nothing.

        Raises:
            InvalidRequest: There were more, or it was said otherwise before.
            PenstockError: It ended early.
        """
        self._check()
        end = _End(parts, size)
        if self._end not in (None, end) or parts < self._next + len(self._held):
            raise InvalidRequest(f"{parts} parts of {size} bytes cannot be all: {self!r}")
        self._end = end
        self._tell()

    def fail(self, error: PenstockError) -> None:
        """End early: whoever takes or gives gets ``error``, from now on."""
        if self.failure is None:
            self.failure = error
            self._held.clear()
            self._tell()

    def __aiter__(self) -> "Parts":
        return self

    async def __anext__(self) -> bytes:
        await self._until(lambda: bool(self.failure) or self._next in self._held or self._is_over)
        self._check()
        if self._is_over:
            assert self._end is not None, "it is over"
            if self.size != self._end.size:
                raise InvalidRequest(f"{self.size} bytes came, and {self._end.size} were sent")
            raise StopAsyncIteration
        data = self._held.pop(self._next)
        self._next += 1
        self.size += len(data)
        self._tell()
        return data

    @property
    def _is_over(self) -> bool:
        return self._end is not None and self._next == self._end.parts

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await self._changed.wait()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

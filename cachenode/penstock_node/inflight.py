"""Payload bytes in this process's memory: a stated bound, kept by waiting.

Responsible for: lending bytes out of a fixed sum, in the order of asking, and taking them back
when whatever holds them is gone.
Not responsible for: bytes that never enter the process (sendfile, descriptors).

There are four lanes, so that no wait can go in a circle through nodes: what comes from an origin
waits for the origin alone, or for what a node has; what an owner copies from the first owner waits
for that one's origin lane; what a machine's readers want waits for an owner's, of either kind; and
what is sent, by gRPC or as a sealed copy, waits for its reader. Who waits to send holds what came
in for a moment at most (`Lane.take_turn`); who has memory to send from waits for its reader alone.
"""

import asyncio
import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

BYTES_MAX_DEFAULT = 320 * 1024 * 1024
_ORIGIN_PARTS, _COPIES_PARTS, _PEER_PARTS, _SENDS_PARTS = 2, 1, 1, 1
LANE_SHARES = _ORIGIN_PARTS + _COPIES_PARTS + _PEER_PARTS + _SENDS_PARTS
"""The smallest lane gets one of so many: no less than a chunk, for the bound to be kept."""

TURN_S = 1.0
"""How long bytes that came in may wait for memory to be sent from: they keep others out."""


@dataclass(slots=True, eq=False)
class _Waiter:
    size_bytes: int
    granted: "asyncio.Future[None]"


class Lane:
    """A sum of bytes that is lent out. `acquire` on one event loop; `release` from any thread."""

    def __init__(self, bytes_max: int) -> None:
        assert bytes_max > 0, f"bytes_max={bytes_max} lends nothing"
        self.bytes_max = bytes_max
        self._lock = threading.RLock()  # A finalizer may release in the midst of anything.
        self._used = 0
        self._waiters: deque[_Waiter] = deque()

    @property
    def used_bytes(self) -> int:
        """What is lent out now; never more than ``bytes_max``."""
        return self._used

    @property
    def is_contended(self) -> bool:
        """Whether somebody waits."""
        return bool(self._waiters)

    @property
    def waiting_count(self) -> int:
        """How many wait."""
        return len(self._waiters)

    async def acquire(self, size_bytes: int) -> "Loan":
        """Wait for ``size_bytes`` (at most all there are), and return them as a loan."""
        wanted = min(size_bytes, self.bytes_max)
        with self._lock:
            if not self._waiters and self._used + wanted <= self.bytes_max:
                self._used += wanted
                return Loan(self, wanted)
            waiter = _Waiter(wanted, asyncio.get_running_loop().create_future())
            self._waiters.append(waiter)
        try:
            await waiter.granted
        except asyncio.CancelledError:
            self._give_up(waiter)
            raise
        return Loan(self, wanted)

    async def take_turn(self, size_bytes: int) -> "Loan | None":
        """As `acquire`, for who holds what others wait for meanwhile; None: not within `TURN_S`.

        Whoever gets nothing lets go of what it holds, and begins again.
        """
        try:
            async with asyncio.timeout(TURN_S):
                return await self.acquire(size_bytes)
        except TimeoutError:
            return None

    def _give_up(self, waiter: _Waiter) -> None:
        with self._lock:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            else:  # Granted and cancelled at once.
                self._used -= waiter.size_bytes
            self._grant()

    def take_back(self, size_bytes: int) -> None:
        """Take bytes back and lend them to who has waited longest."""
        with self._lock:
            self._used -= size_bytes
            assert self._used >= 0, "more came back than was lent"
            self._grant()

    def _grant(self) -> None:
        while self._waiters and self._used + self._waiters[0].size_bytes <= self.bytes_max:
            # Counted before it is taken out: a finalizer may come in between and grant as well.
            self._used += self._waiters[0].size_bytes
            waiter = self._waiters.popleft()
            loop = waiter.granted.get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(_set, waiter.granted)


def _set(granted: "asyncio.Future[None]") -> None:
    if not granted.done():
        granted.set_result(None)


class Loan:
    """Bytes lent by a lane until `release`, or until nobody refers to this any more."""

    def __init__(self, lane: Lane, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._end = weakref.finalize(self, lane.take_back, size_bytes)

    @contextlib.contextmanager
    def unless_it_fails(self) -> Iterator[None]:
        """Give the bytes back at once if the ``with`` ends with an error.

        An error keeps the frames that it passed, and so this, for as long as anybody has it.
        """
        try:
            yield
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Give the bytes back; again does nothing."""
        self._end()


class Inflight:
    """All payload bytes in memory: ``bytes_max`` together."""

    def __init__(self, bytes_max: int = BYTES_MAX_DEFAULT) -> None:
        part = max(1, bytes_max // LANE_SHARES)
        self.origin = Lane(_ORIGIN_PARTS * part)
        """For chunks on their way from an origin, or from whoever has them already."""
        self.copies = Lane(_COPIES_PARTS * part)
        """For copies of chunks, on their way from the first owner, which may have to fetch them."""
        self.peer = Lane(_PEER_PARTS * part)
        """For chunks on their way from an owner to this machine's readers, or to a new owner."""
        self.sends = Lane(_SENDS_PARTS * part)
        """For what is copied to be sent."""

    @property
    def used_bytes(self) -> int:
        """In memory now."""
        return sum(lane.used_bytes for lane in self._lanes)

    @property
    def bytes_max(self) -> int:
        """What ``used_bytes`` never passes."""
        return sum(lane.bytes_max for lane in self._lanes)

    def waiting(self) -> dict[str, int]:
        """Return how many wait for each kind of memory."""
        names = ("origin", "copies", "peer", "sends")
        return {name: lane.waiting_count for name, lane in zip(names, self._lanes, strict=True)}

    @property
    def _lanes(self) -> tuple[Lane, ...]:
        return (self.origin, self.copies, self.peer, self.sends)

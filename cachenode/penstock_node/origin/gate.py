"""What every call to an origin passes: its outages, its slots, its rates, its deadline.

Responsible for: how much of one origin this node asks at once and by the second. It holds for one
volume on one node.
Not responsible for: requests, and their attempts; whether the origin is asked at all (`outages`).
"""

import asyncio
import contextlib
import math
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator

from penstock import tracing
from penstock.deadline import Deadline
from penstock.errors import OriginUnavailable, Overloaded, PenstockError
from penstock.volumes import Volume
from penstock_node.origin.interface import OriginCounters, OriginLimits, describe
from penstock_node.origin.outages import Admission, Outages, Unanswered
from penstock_node.pace import Pace


class Call:
    """One call under way: it holds a slot of its gate's for all of its attempts."""

    def __init__(self, gate: "Gate", admission: Admission, attempts_max: int) -> None:
        self._gate = gate
        self.admission = admission
        self.attempts_max = 1 if admission.is_probe else attempts_max
        self.is_waiting = False
        """For its slot, or for its turn."""

    async def turn(self, *, size_bytes: int = 0) -> None:
        """Wait until a request for ``size_bytes`` may be sent.

        Raises:
            OriginUnavailable: Others found meanwhile that the origin does not answer.
        """
        await self._gate.turn(self, size_bytes)


class Gate:
    """Stands before one origin, on one event loop. See the module."""

    def __init__(
        self,
        volume: Volume,
        *,
        limits: OriginLimits,
        counters: OriginCounters,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        """Begin with an origin that is thought to answer.

        Args:
            volume: Whose origin it is.
            limits: What this node may ask of it.
            counters: Where calls that were refused are counted.
            clock: Monotonic seconds, of the circuit breakers.
            rng: For the length of its pauses.
        """
        self.counters = counters
        self._volume = volume
        self._limits = limits
        self._outages = Outages(
            volume,
            counters=counters,
            clock=clock,
            rng=rng or random.Random(),  # noqa: S311 - no secret
        )
        self._slots = asyncio.Semaphore(limits.requests_max)
        self._requests = Pace(lambda: limits.requests_per_s)
        self._bytes = Pace(lambda: limits.bytes_per_s)
        self._waiting = 0

    def __repr__(self) -> str:
        return f"<Gate of {self._volume.name}: {self._outages}, {self._waiting} wait>"

    @property
    def is_healthy(self) -> bool:
        """Whether calls pass: False while the origin does not answer."""
        return self._outages.is_healthy

    @property
    def waiting(self) -> int:
        """Calls that wait for a slot, or for their turn in the rate."""
        return self._waiting

    @contextlib.asynccontextmanager
    async def call(self, path: str, *, deadline: Deadline | None) -> AsyncIterator[Call]:
        """Let a call through until the block ends, and learn from how it ends.

        Args:
            path: What is asked for.
            deadline: When to give up; `OriginLimits.deadline_s` from now at the latest.

        Raises:
            OriginUnavailable: The origin does not answer, or did not when it was last asked.
            Overloaded: No turn came in time.
        """
        with tracing.span("origin", volume=self._volume.name, host=self._outages.host):
            async with self._call(path, deadline) as call:
                yield call

    @contextlib.asynccontextmanager
    async def _call(self, path: str, deadline: Deadline | None) -> AsyncIterator[Call]:
        admission = self._outages.enter(path)
        call = Call(self, admission, self._limits.attempts_max)
        remaining_s = deadline.remaining_s if deadline else math.inf
        try:
            async with asyncio.timeout(min(self._limits.deadline_s, remaining_s)):
                with self._waits(call):
                    await self._slots.acquire()
                try:
                    yield call
                finally:
                    self._slots.release()
        except Unanswered as failure:
            self._outages.failed(admission, failure.reason, of_object=failure.of_object)
            raise self._outages.told(admission, failure.error) from None
        except TimeoutError:
            raise self._late(call) from None
        except PenstockError:
            self._outages.answered(admission)  # Whatever the origin said, it answered.
            raise
        else:
            self._outages.answered(admission)
        finally:
            self._outages.left(admission)

    async def pace(self, *, requests: int, size_bytes: int) -> None:
        """Wait until so much may be sent by a put, whose attempts are not counted here."""
        self._waiting += 1
        try:
            if requests:
                await self._requests.wait(requests)
            await self._bytes.wait(size_bytes)
        finally:
            self._waiting -= 1

    async def turn(self, call: Call, size_bytes: int) -> None:
        """See `Call.turn`."""
        self._outages.check(call.admission)
        with self._waits(call):
            await self._requests.wait(1)
            if size_bytes:
                await self._bytes.wait(size_bytes)
        self._outages.check(call.admission)
        self._outages.asks(call.admission)

    @contextlib.contextmanager
    def _waits(self, call: Call) -> Iterator[None]:
        self._waiting += 1
        call.is_waiting = True
        begun = time.monotonic()
        try:
            with tracing.here().queued():
                yield
            call.is_waiting = False  # Else it is known that it waited when its time was over.
        finally:
            self._waiting -= 1
            self.counters.waited_s += time.monotonic() - begun

    def _late(self, call: Call) -> PenstockError:
        """Return what a call that ran out of time is told: whether it ever had its turn."""
        admission, host = call.admission, self._outages.host
        where = f"{describe(self._volume, admission.path)}: volume {self._volume.name!r}"
        if call.is_waiting:
            return Overloaded(
                f"{where}: no turn to ask {host} came in time, others wait too; raise the "
                "volume's limits if the origin bears more, or try again later"
            )
        error = OriginUnavailable(f"{where}: {host} did not answer in time")
        if admission.permit.asked_at is None:
            return error
        self._outages.failed(admission, "no answer in time", of_object=False)
        return self._outages.told(admission, error)

"""What every call to an origin passes: its circuit breaker, its slots, its rates, its deadline.

Responsible for: how much of one origin this node asks at once and by the second, failing calls at
once while it does not answer, and saying why. It holds for one volume on one node.
Not responsible for: requests, and their attempts.
"""

import asyncio
import contextlib
import math
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta

import structlog

from penstock.deadline import Deadline
from penstock.errors import OriginUnavailable, Overloaded, PenstockError
from penstock.volumes import Volume
from penstock_node.origin.breaker import Breaker, Permit
from penstock_node.origin.interface import OriginCounters, OriginLimits, describe
from penstock_node.origin.stores import origin_host
from penstock_node.pace import Pace

_log = structlog.get_logger(__name__)


class Unanswered(Exception):
    """The origin did not answer, or said that it cannot: another attempt may help."""

    def __init__(self, error: PenstockError, reason: str) -> None:
        """Keep what the caller is told if no other attempt helps.

        Args:
            error: That.
            reason: In a few words, of no object in particular.
        """
        super().__init__(str(error))
        self.error = error
        self.reason = reason


class Call:
    """One call under way: it holds a slot of its gate's for all of its attempts."""

    def __init__(self, gate: "Gate", permit: Permit, what: str, attempts_max: int) -> None:
        self._gate = gate
        self.permit = permit
        self.what = what
        """What is asked for, for messages."""
        self.attempts_max = 1 if permit.is_probe else attempts_max
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
            clock: Monotonic seconds, of the circuit breaker.
            rng: For the length of its pauses.
        """
        self._volume = volume
        self._host = "the directory" if volume.kind == "file" else origin_host(volume)
        self._limits = limits
        self._counters = counters
        self._clock = clock
        self._breaker = Breaker(clock=clock, rng=rng or random.Random())  # noqa: S311 - no secret
        self._slots = asyncio.Semaphore(limits.requests_max)
        self._requests = Pace(lambda: limits.requests_per_s)
        self._bytes = Pace(lambda: limits.bytes_per_s)
        self._waiting = 0

    def __repr__(self) -> str:
        return f"<Gate of {self._volume.name}: {self._breaker}, {self._waiting} wait>"

    @property
    def is_healthy(self) -> bool:
        """Whether calls pass: False while the origin does not answer."""
        return self._breaker.outage is None

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
        call = self._let_through(describe(self._volume, path))
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
            self._note_failure(call, failure.reason)
            raise (failure.error if self.is_healthy else self._unavailable(call.what)) from None
        except TimeoutError:
            raise self._late(call) from None
        except PenstockError:
            self._note_answer(call)  # Whatever the origin said, it answered.
            raise
        else:
            self._note_answer(call)
        finally:
            self._breaker.left(call.permit)

    def _let_through(self, what: str) -> Call:
        permit = self._breaker.enter()
        if permit is None:
            raise self._refusal(what)
        return Call(self, permit, what, self._limits.attempts_max)

    async def turn(self, call: Call, size_bytes: int) -> None:
        """See `Call.turn`."""
        self._check(call)
        with self._waits(call):
            await self._requests.wait(1)
            if size_bytes:
                await self._bytes.wait(size_bytes)
        self._check(call)
        self._breaker.asks(call.permit)

    @contextlib.contextmanager
    def _waits(self, call: Call) -> Iterator[None]:
        self._waiting += 1
        call.is_waiting = True
        try:
            yield
            call.is_waiting = False  # Else it is known that it waited when its time was over.
        finally:
            self._waiting -= 1

    def _check(self, call: Call) -> None:
        if self._breaker.stands(call.permit):
            return
        renewed = self._breaker.enter() if self.is_healthy else None
        if renewed is None:
            raise self._refusal(call.what)
        call.permit = renewed  # While the call waited, the origin was away and came back.

    def _note_answer(self, call: Call) -> None:
        ended = self._breaker.answered(call.permit)
        if ended is not None:
            lasted_s = round(self._clock() - ended.since, 1)
            _log.info("an origin answers again", volume=self._volume.name, lasted_s=lasted_s)

    def _note_failure(self, call: Call, reason: str) -> None:
        begun = self._breaker.failed(call.permit, reason)
        if begun is not None:
            _log.warning(
                "an origin does not answer: what is not cached cannot be read",
                volume=self._volume.name,
                host=self._host,
                reason=reason,
            )

    def _late(self, call: Call) -> PenstockError:
        """Return what a call that ran out of time is told: whether it ever had its turn."""
        name, host = self._volume.name, self._host
        if call.is_waiting:
            return Overloaded(
                f"{call.what}: volume {name!r}: no turn to ask {host} came in time, others wait "
                "too; raise the volume's limits if the origin bears more, or try again later"
            )
        if call.permit.asked_at is not None:
            self._note_failure(call, "no answer in time")
        return OriginUnavailable(f"{call.what}: volume {name!r}: {host} did not answer in time")

    def _refusal(self, what: str) -> OriginUnavailable:
        self._counters.refused_calls += 1
        return self._unavailable(what)

    def _unavailable(self, what: str) -> OriginUnavailable:
        """Return what is told of an outage: since when, why, and when that may change."""
        outage = self._breaker.outage
        assert outage is not None, "nothing is refused while the origin answers"
        now = self._clock()
        since = datetime.now(UTC) - timedelta(seconds=now - outage.since)
        again = f"tried again in {max(0.0, outage.retry_at - now):.0f} s"
        return OriginUnavailable(
            f"{what}: volume {self._volume.name!r}: {self._host} has not answered since "
            f"{since:%Y-%m-%d %H:%M:%S} UTC ({outage.reason}); it is "
            + ("being tried again now" if self._breaker.is_probing else again)
        )

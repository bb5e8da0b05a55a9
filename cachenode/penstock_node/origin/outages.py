"""Which of an origin's calls are let through: a circuit breaker for all, and one for each object
that fails.

Responsible for: telling an origin that is down from an object that it cannot give, what is told
of either, and the log. Not responsible for: when a breaker opens and closes (`breaker`).

An origin that says nothing is down for all. One that answers with an error may mean the object
alone: calls for one object that fail so count once, and it is left alone by itself; five objects
that fail in a row mean the origin.
"""

import random
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog

from penstock.errors import OriginUnavailable, PenstockError
from penstock.volumes import Volume
from penstock_node.origin.breaker import Breaker, Permit
from penstock_node.origin.interface import Kind, OriginCounters, describe
from penstock_node.origin.stores import origin_host

_log = structlog.get_logger(__name__)

OBJECTS_MAX = 1024
"""Objects that fail and are remembered; the rest is asked for as if nothing had been."""


class Unanswered(Exception):
    """The origin did not answer, or said that it cannot: another attempt may help."""

    def __init__(
        self, error: PenstockError, reason: str, *, of_object: bool, kind: Kind = "other"
    ) -> None:
        """Keep what the caller is told if no other attempt helps.

        Args:
            error: That.
            reason: In a few words, of no object in particular.
            of_object: The origin answers: the failure may be this object's alone.
            kind: What it is counted as.
        """
        super().__init__(str(error))
        self.error = error
        self.reason = reason
        self.of_object = of_object
        self.kind = kind


@dataclass(slots=True)
class Admission:
    """One call that was let through."""

    path: str
    permit: Permit
    """The origin's."""
    object_permit: Permit | None = None
    """The object's, if it has failed before."""

    @property
    def is_probe(self) -> bool:
        """Whether the call finds out if something is back."""
        return any(each is not None and each.is_probe for each in (self.permit, self.object_permit))


class Outages:
    """What is known of one origin that does not answer, on one node. See the module."""

    def __init__(
        self,
        volume: Volume,
        *,
        counters: OriginCounters,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        """Begin with an origin that is thought to answer.

        Args:
            volume: Whose origin it is.
            counters: Where calls that were refused are counted.
            clock: Monotonic seconds.
            rng: For the length of pauses.
        """
        self._volume = volume
        self.host = "the directory" if volume.kind == "file" else origin_host(volume)
        self._counters = counters
        self._clock = clock
        self._rng = rng
        self._all = Breaker(clock=clock, rng=rng)
        self._objects: OrderedDict[str, Breaker] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Outages of {self._volume.name}: {self._all}, {len(self._objects)} objects>"

    @property
    def is_healthy(self) -> bool:
        """Whether the origin answers, as far as is known."""
        return self._all.outage is None

    def enter(self, path: str) -> Admission:
        """Let a call through.

        Raises:
            OriginUnavailable: The origin, or this object, failed when it was last asked for.
        """
        permit = self._all.enter()
        if permit is None:
            raise self._refusal(path)
        admission = Admission(path, permit)
        if path in self._objects:
            admission.object_permit = self._objects[path].enter()
            if admission.object_permit is None:
                self._all.left(permit)
                raise self._refusal(path)
        return admission

    def check(self, admission: Admission) -> None:
        """Look again, after a wait.

        Raises:
            OriginUnavailable: Others have found meanwhile that the origin does not answer.
        """
        if not (self._all.stands(admission.permit) and self._object_stands(admission)):
            renewed = self.enter(admission.path)  # What was away may be back.
            admission.permit, admission.object_permit = renewed.permit, renewed.object_permit

    def _object_stands(self, admission: Admission) -> bool:
        known, permit = self._objects.get(admission.path), admission.object_permit
        if known is None or known.outage is None:
            return True
        return permit is not None and known.stands(permit)

    def asks(self, admission: Admission) -> None:
        """Take note that the call asks the origin now, or again."""
        self._all.asks(admission.permit)

    def answered(self, admission: Admission) -> None:
        """Take note that the origin answered."""
        ended = self._all.answered(admission.permit)
        known = self._objects.get(admission.path)
        if known is not None and (known.outage is None or self._is_of(known, admission)):
            del self._objects[admission.path]
        if ended is not None:
            self._objects.clear()
            lasted_s = round(self._clock() - ended.since, 1)
            _log.info("an origin answers again", volume=self._volume.name, lasted_s=lasted_s)

    def failed(self, admission: Admission, reason: str, *, of_object: bool) -> None:
        """Take note that the call failed; see `Unanswered`."""
        is_first = True
        if of_object:
            is_first = admission.path not in self._objects
            self._object_failed(admission, reason)
        if not is_first and not admission.permit.is_probe:
            return
        if self._all.failed(admission.permit, reason) is not None:
            _log.warning(
                "an origin does not answer: what is not cached cannot be read",
                volume=self._volume.name,
                host=self.host,
                reason=reason,
            )

    def left(self, admission: Admission) -> None:
        """Take note that the call is over, whatever came of it."""
        self._all.left(admission.permit)
        known = self._objects.get(admission.path)
        if known is not None and admission.object_permit is not None:
            known.left(admission.object_permit)

    def told(self, admission: Admission, error: PenstockError) -> PenstockError:
        """Return what a call that has failed is told: of the outage, if there is one."""
        return self._unavailable(admission.path) or error

    def _is_of(self, known: Breaker, admission: Admission) -> bool:
        permit = admission.object_permit
        return permit is not None and permit.is_probe and known.stands(permit)

    def _object_failed(self, admission: Admission, reason: str) -> None:
        known = self._objects.setdefault(admission.path, Breaker(clock=self._clock, rng=self._rng))
        self._objects.move_to_end(admission.path)
        if len(self._objects) > OBJECTS_MAX:
            self._objects.popitem(last=False)
        permit = admission.object_permit or known.enter()
        if permit is None:
            return
        permit.asked_at = admission.permit.asked_at
        if known.failed(permit, reason) is not None:
            _log.warning(
                "an origin fails to give an object",
                object=describe(self._volume, admission.path),
                reason=reason,
            )

    def _refusal(self, path: str) -> OriginUnavailable:
        self._counters.refused_calls += 1
        error = self._unavailable(path)
        assert error is not None, "nothing is refused while the origin answers"
        return error

    def _unavailable(self, path: str) -> OriginUnavailable | None:
        """Return what is told of an outage: since when, why, and when that may change."""
        own = self._objects.get(path)
        breaker, does_what = self._all, "has not answered"
        if self.is_healthy and own is not None:
            breaker, does_what = own, "has not given it"
        outage = breaker.outage
        if outage is None:
            return None
        now = self._clock()
        since = datetime.now(UTC) - timedelta(seconds=now - outage.since)
        again = f"tried again in {max(0.0, outage.retry_at - now):.0f} s"
        return OriginUnavailable(
            f"{describe(self._volume, path)}: volume {self._volume.name!r}: {self.host} {does_what}"
            f" since {since:%Y-%m-%d %H:%M:%S} UTC ({outage.reason}); it is "
            + ("being tried again now" if breaker.is_probing else again)
        )

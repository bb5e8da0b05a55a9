"""What object stores tell: each file that an event names is looked at, and what is there is noted.

Responsible for: which files those are, and counting what became of events.
Not responsible for: formats (`event_bodies`), who may send them (`admin`), looking (`looking`).

An event is a hint. It may be forged, late, or come twice: it costs a look, and what the catalog
notes is what the look has found.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import structlog
from prometheus_client import CollectorRegistry, Counter

from penstock.errors import NoSpace, PenstockError, Retryable
from penstock_node.catalog.watched import Watched, WatchedPlace
from penstock_node.catalog_server.event_bodies import Named, told_in
from penstock_node.catalog_server.looking import LOOKS_MAX, Looking

Outcome = Literal["noted", "unchanged", "ignored", "failed"]

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class EventCounts:
    """What became of the events of a body: each is counted once."""

    noted: int = 0
    """The catalog has a new entry."""
    unchanged: int = 0
    """The catalog had it so already."""
    ignored: int = 0
    """Nothing that is watched, or meant."""
    failed: int = 0

    def add(self, outcome: Outcome, count: int = 1) -> None:
        """Count."""
        setattr(self, outcome, getattr(self, outcome) + count)


class Events:
    """The events of a process. On one event loop."""

    def __init__(
        self,
        watched: Watched,
        *,
        looking: Looking,
        threads: Executor,
        registry: CollectorRegistry,
    ) -> None:
        """Hear nothing yet.

        Args:
            watched: Which places are.
            looking: Looks at files.
            threads: For the database, whose calls block.
            registry: Has the counters.
        """
        self._watched, self._looking, self._threads = watched, looking, threads
        self._counter = Counter(
            "penstock_catalog_events",
            "Events of object stores, by what became of them.",
            labelnames=("outcome",),
            registry=registry,
        )
        for outcome in _TELLING:  # Prometheus sees no rise of what was not there before.
            self._counter.labels(outcome=outcome)

    async def take(self, body: bytes) -> EventCounts:
        """Look at what a body names; returns when all of it is noted.

        Raises:
            InvalidRequest: The body is in no format that is known.
            Retryable: Some of it could not be looked at now: it has to be sent again.
            NoSpace: Nor could it be noted.
        """
        told = told_in(body)
        if told.confirm_url:
            _log.warning("SNS asks whether it is to send events: open this", url=told.confirm_url)
        counts = EventCounts()
        self._count(counts, "ignored", told.ignored)
        left = iter(told.named)
        while some := list(islice(left, LOOKS_MAX)):
            await self._take(some, counts)
        return counts

    async def _take(self, some: Sequence[Named], counts: EventCounts) -> None:
        buckets = list({each.bucket for each in some})
        in_thread = asyncio.get_running_loop().run_in_executor
        places = await in_thread(self._threads, self._watched.in_buckets, buckets)
        outcomes = await asyncio.gather(*(self._note(named, places) for named in some))
        for outcome in outcomes:
            self._count(counts, outcome if isinstance(outcome, str) else "failed")
        for error in outcomes:
            if isinstance(error, PenstockError):
                raise error

    async def _note(
        self, named: Named, places: Sequence[WatchedPlace]
    ) -> Outcome | Retryable | NoSpace:
        """Look at the files that a key is; an error is of one that is to be sent again."""
        outcomes = set[Outcome]()
        for place in places:
            found = place.file_of(named.key) if place.bucket == named.bucket else None
            if found is None:
                continue
            path, url = found
            try:
                looked = await self._looking.look(place.volume, path, url)
            except (Retryable, NoSpace) as error:
                return error
            except PenstockError as error:
                _log.warning("an event could not be followed", url=url, error=str(error))
                outcomes.add("failed")
            else:
                outcomes.add("noted" if looked.is_noted else "unchanged")
        return next((each for each in _TELLING if each in outcomes), "ignored")

    def _count(self, counts: EventCounts, outcome: Outcome, count: int = 1) -> None:
        counts.add(outcome, count)
        self._counter.labels(outcome=outcome).inc(count)


_TELLING: tuple[Outcome, ...] = ("failed", "noted", "unchanged")
"""Of several files that one key is, the first of these tells."""

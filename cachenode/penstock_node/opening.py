"""Opening objects: from urls to versions, asked of the origin once for the whole cluster.

Responsible for: which node asks the origin about an object (the owner of its key, so that a
thousand hosts cost one request), how long an answer is believed, and what happens while the
origin does not answer.
Not responsible for: reading bytes; the gRPC service that clients call.
"""

import asyncio
import hashlib
import itertools
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

from penstock import tracing
from penstock.errors import (
    CatalogUnavailable,
    NodeUnavailable,
    ObjectNotFound,
    OriginUnavailable,
    PenstockError,
)
from penstock.membership.nodes import Nodes
from penstock.membership.view import Member
from penstock.object_info import OpenedObject, OriginSource
from penstock.objects import CHUNK_ID_BYTES, ObjectId
from penstock.rpc import OPEN
from penstock.v1 import cache_pb2
from penstock.volumes import Location, object_key
from penstock.wire import error_from_proto, object_from_proto
from penstock_node.access.grants import check_volume, volume_in
from penstock_node.cluster import Cluster
from penstock_node.durations import Durations, Tally
from penstock_node.flights import Flights
from penstock_node.listed_versions import ListedVersions
from penstock_node.origin import OriginMeta, Origins

REMEMBERED_MAX = 100_000
LOOK_UPS_MAX = 4096
OPEN_BUCKETS_S = (0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 30)
# A slow origin is waited for; a frozen node is told from that by pings, within seconds. The
# one who waits for the other has a little longer: see also the client's `OPEN_TIMEOUT_S`.
LOOK_UP_TIMEOUT_S = 20.0
FORWARD_TIMEOUT_S = 25.0

Result: TypeAlias = OpenedObject | PenstockError


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the origin said, and when it was asked (monotonic seconds)."""

    found: OriginMeta | ObjectNotFound
    asked_at: float


class Opener:
    """Opens objects on behalf of clients and other nodes. On the event loop."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        origins: Origins,
        nodes: Nodes,
        threads: Executor,
        listed: ListedVersions | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with nothing known.

        Args:
            cluster: Tells volumes, owners and settings.
            origins: Are asked.
            nodes: Of the cluster: one of them answers for each object.
            threads: For asking other nodes.
            listed: What listings told of objects.
            clock: Monotonic, in seconds.
        """
        self._listed = listed or ListedVersions()
        self._cluster = cluster
        self._origins = origins
        self._nodes = nodes
        self._threads = threads
        self._clock = clock
        self.outcomes = Tally()
        """Of opens: ``opened``, or the name of the error that was told."""
        self.durations = Durations(OPEN_BUCKETS_S)
        """Of requests to open, of however many objects."""
        self._answers: OrderedDict[str, _Answer] = OrderedDict()
        self._look_ups: Flights[str, _Answer] = Flights(
            flights_max=LOOK_UPS_MAX, lingers=lambda _answer: False
        )

    async def open(self, urls: Sequence[str], *, refresh: bool, forwarded: bool) -> list[Result]:
        """Return an object or an error for each url, in order.

        Args:
            urls: ``penstock://…``, or origin urls inside a volume.
            refresh: Ask the origin even if a recent answer is known.
            forwarded: Another node asks: answer here, do not pass on.

        Raises:
            NodeUnavailable: This node is still starting: another may answer.
        """
        assert self._cluster.view
        with self.durations.timing():
            opened = await asyncio.gather(*(self._open(url, refresh, forwarded) for url in urls))
        for each in opened:
            self.outcomes.add(each.name if isinstance(each, PenstockError) else "opened")
        return list(opened)

    async def known_to_cluster(self, url: str) -> OpenedObject | None:
        """Return an object as some node of the cluster knows it; None: none does."""
        (result,) = await self.open([url], refresh=False, forwarded=False)
        return result if isinstance(result, OpenedObject) else None

    async def _open(self, url: str, refresh: bool, forwarded: bool) -> Result:
        try:
            if named := volume_in(url):
                check_volume(named)  # Before anything is said of it.
            location = self._cluster.volumes.resolve(url)
            check_volume(location.volume.name)
            key = object_key(location)
            if not refresh and self._is_known(key):
                return await self._open_here(url, location, key, refresh)
            while (other := self._elsewhere(key)) and not forwarded:
                try:
                    opened = await self._forward(other, url, refresh)
                    self._answers.pop(key, None)  # The other's answer is newer.
                    return opened
                except NodeUnavailable:
                    self._cluster.routing.suspect(other.id)
            return await self._open_here(url, location, key, refresh)
        except PenstockError as error:
            return error

    def _is_known(self, key: str) -> bool:
        """Whether what was heard here is fresh: of an origin, or in a listing."""
        told = self._listed.take(key)
        known = self._answers.get(key)
        if told is not None and (known is None or known.asked_at < told[1]):
            known = _Answer(*told)
            self._remember(key, known)
        return known is not None and self._age(known) < self._ttl_s(known)

    def _elsewhere(self, key: str) -> Member | None:
        """Return the node that answers for the object, or None when it is this one."""
        key_id = hashlib.blake2b(key.encode(), digest_size=CHUNK_ID_BYTES).digest()
        members = self._cluster.view.members
        for owner in self._cluster.owners(key_id):
            if owner == self._cluster.node_id:
                return None
            if owner in members and not self._cluster.routing.is_suspected(owner):
                return members[owner]
        return None

    async def _forward(self, member: Member, url: str, refresh: bool) -> OpenedObject:
        with tracing.span("forward", asks=member.id):
            request = cache_pb2.OpenRequest(
                urls=[url], refresh=refresh, forwarded=True, traceparent=tracing.traceparent()
            )
            response = await asyncio.get_running_loop().run_in_executor(
                self._threads,
                lambda: self._nodes.ask(member, OPEN, request, timeout_s=FORWARD_TIMEOUT_S),
            )
        (result,) = response.results
        if result.WhichOneof("result") == "error":
            raise error_from_proto(result.error)
        return object_from_proto(result.object)

    async def _open_here(
        self, url: str, location: Location, key: str, refresh: bool
    ) -> OpenedObject:
        settings = self._cluster.settings
        answer = self._answers.get(key)
        if refresh or answer is None or self._age(answer) >= self._ttl_s(answer):
            # Who may believe an answer of some seconds ago need not ask anew while one is
            # under way: so a thousand hosts cost one request.
            believed_s = 0.0 if refresh else settings.open_ttl_s
            answer = await self._ask(location, key, not_before=self._clock() - believed_s)
        if isinstance(answer.found, ObjectNotFound):
            raise answer.found
        identity = ObjectId(key, answer.found.version, answer.found.size, settings.chunk_size)
        ticket = self._cluster.sign(identity, location.volume.name)
        return OpenedObject(
            url=url,
            volume=location.volume.name,
            id=identity,
            modified=_moment(answer.found.modified_us),
            ticket=ticket.text,
            ticket_expires_at=ticket.expires_at,
            fresh_for_s=max(0.0, self._ttl_s(answer) - self._age(answer)),
            sources=answer.found.sources or (_source(location, answer.found.version),),
            replicas=self._cluster.replicas_of(key),
        )

    def _age(self, answer: _Answer) -> float:
        return self._clock() - answer.asked_at

    def _ttl_s(self, answer: _Answer) -> float:
        settings = self._cluster.settings
        if isinstance(answer.found, ObjectNotFound):
            return min(settings.not_found_ttl_s, settings.open_ttl_s)
        return settings.open_ttl_s

    async def _ask(self, location: Location, key: str, *, not_before: float) -> _Answer:
        """Return an answer of the origin that was asked for at ``not_before`` or later.

        A look-up under way may have begun earlier: then it is waited for, and if its answer is
        too old one more is begun. So a herd that refreshes costs two requests at most.
        """
        while True:
            flight = self._look_ups.start(key, lambda _: self._look_up(location, key))
            try:
                answer = await flight.wait(LOOK_UP_TIMEOUT_S)
            except (OriginUnavailable, CatalogUnavailable) as error:
                return self._last_known(key, error)
            if answer is None:
                return self._last_known(key, _no_answer(key))
            if answer.asked_at >= not_before:
                return answer

    async def _look_up(self, location: Location, key: str) -> _Answer:
        asked_at = self._clock()
        try:
            found: OriginMeta | ObjectNotFound = await self._origins.get(location.volume).head(
                location.path
            )
        except ObjectNotFound as error:
            found = error
        answer = _Answer(found, asked_at)
        self._remember(key, answer)
        return answer

    def _remember(self, key: str, answer: _Answer) -> None:
        self._answers[key] = answer
        self._answers.move_to_end(key)
        if len(self._answers) > REMEMBERED_MAX:
            self._answers.popitem(last=False)

    def _last_known(self, key: str, error: PenstockError) -> _Answer:
        """Return what was known before the origin stopped answering, if that is recent enough.

        Raises:
            PenstockError: ``error``: nothing is known, or it is too old.
        """
        answer = self._answers.get(key)
        if answer is None or self._age(answer) > self._cluster.settings.open_stale_s:
            raise error
        return answer

    def known(self, *, limit: int) -> Iterator[tuple[ObjectId, float]]:
        """Tell the objects that were opened here, and how many seconds ago, the latest first."""
        chunk_size = self._cluster.settings.chunk_size
        latest = itertools.islice(reversed(self._answers.items()), limit)
        for key, answer in list(latest):
            if not isinstance(answer.found, ObjectNotFound):
                meta = answer.found
                yield ObjectId(key, meta.version, meta.size, chunk_size), self._age(answer)

    async def was_overwritten(self, volume: str, key: str) -> None:
        """Take note that the origin has another version now: the next open sees it."""
        location = self._cluster.location_of(volume, key)
        url = f"penstock://{volume}/{location.path}"
        await self._open(url, True, False)


def _source(location: Location, version: str) -> OriginSource:
    volume = location.volume
    return OriginSource(volume.url + location.path, dict(volume.options), version)


def _no_answer(key: str) -> OriginUnavailable:
    return OriginUnavailable(
        f"{key}: its origin has not answered within {LOOK_UP_TIMEOUT_S:.0f} s; try again later"
    )


def _moment(microseconds: int) -> datetime | None:
    return datetime.fromtimestamp(microseconds / 1e6, tz=UTC) if microseconds else None

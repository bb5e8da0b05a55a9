"""What every origin offers, whatever store it lies in, and how versions are told.

Version rules, in this order: a strong etag as the origin gives it; else
``lm:{modified_us}-{size}``; files ``mtime:{ns}-{size}``. An overwrite within the resolution of
``Last-Modified`` (a second) that keeps the size goes unseen where there is no strong etag.
"""

import math
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Literal, NamedTuple, Protocol, TypeAlias, get_args

from penstock.deadline import Deadline
from penstock.errors import Conflict, NotPermitted, Uncacheable
from penstock.object_info import OriginSource
from penstock.objects import VERSION_BYTES_MAX
from penstock.origin_limits import VolumeLimits
from penstock.volumes import Volume
from penstock_node.durations import Durations, Tally

LIST_PAGE_MAX = 5000

_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)

Buffer: TypeAlias = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class OriginMeta:
    """What an origin says of an object at one moment."""

    version: str
    size: int
    """In bytes."""
    modified_us: int
    """Microseconds since 1970, UTC; 0 when the origin does not say."""
    sources: tuple[OriginSource, ...] = ()
    """Where it lies, if that is not at its path within the volume's url."""


class ListedObject(NamedTuple):
    """One line of a listing."""  # A tuple: of these there are millions.

    path: str
    """Within the volume."""
    size: int
    modified_us: int
    version: str
    """Empty where the listing does not tell it as `Origin.head` would."""


@dataclass(frozen=True, slots=True)
class ListPage:
    """Some objects in the order of their paths, and where to go on."""

    objects: tuple[ListedObject, ...]
    next_after: str
    """Give it as ``after`` for the next page; empty on the last one."""
    no_paths: tuple[str, ...] = ()
    """Keys that lie there too and can be no object's path, as far as the origin tells them."""


@dataclass(frozen=True, slots=True)
class OriginLimits:
    """Bounds of every request to one origin."""

    requests_max: int = 32
    """At once, per volume and node: obstore gains little beyond (0.89 GB/s with 8 requests in
    flight, 1.05 with 32)."""
    requests_per_s: float = math.inf
    """Per volume and node, retries included."""
    bytes_per_s: float = math.inf
    """Payload asked for, per volume and node, retries included."""
    attempts_max: int = 4
    """Of one call, the first included."""
    backoff_s: float = 0.1
    """Before the second attempt; it doubles, with jitter, up to ``backoff_max_s``."""
    backoff_max_s: float = 2.0
    attempts_s: float = 12.0
    """No new attempt begins after so long: two that are met by silence are over in time for the
    reader's open (20 s) to be told why."""
    connect_timeout_s: float = 4.0
    """One packet of the handshake may be lost, and its successor. A volume's option
    ``connect_timeout`` overrides it."""
    silence_timeout_s: float = 8.0
    """Until an answer begins, and between two pieces of its body: object stores begin within a
    second or two. A volume's option ``read_timeout`` overrides it."""
    request_timeout_s: float = 30.0
    """One request, its body included. A volume's option ``timeout`` overrides it."""
    deadline_s: float = 60.0
    """A call with all its attempts and its wait for a slot."""

    def of(self, limits: VolumeLimits) -> "OriginLimits":
        """Return these, but for what a volume's own say."""
        return replace(self, **limits.to_json())


Kind: TypeAlias = Literal["timeout", "connection", "throttled", "server_error", "short", "other"]
"""Of a request that another attempt may mend: no answer in time, no connection, 429 or 503, another
status of 500 and more, an answer that ends early."""
Operation: TypeAlias = Literal["get", "head", "list", "put"]
REQUEST_BUCKETS_S = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


@dataclass(slots=True)
class OriginCounters:
    """What one origin was asked since the node started; only ever grows."""

    get_requests: int = 0
    head_requests: int = 0
    list_requests: int = 0
    bytes_read: int = 0
    """Payload that arrived and was the right version."""
    put_requests: int = 0
    bytes_written: int = 0
    """Payload given to be written, whether or not it was published."""
    refused_calls: int = 0
    """Not made, as the origin did not answer."""
    retries: int = 0
    """Requests that were sent again."""
    waited_s: float = 0.0
    """What calls have waited for a slot, or for their turn in a rate, in seconds together."""
    failures: Tally = field(default_factory=lambda: Tally(*get_args(Kind), NotPermitted.__name__))
    """Requests by what became of them: a `Kind`, or the name of an error."""
    durations: dict[Operation, Durations] = field(default_factory=dict)
    """Of requests, those that fail among them, from when they are sent until all has come."""

    def took(self, operation: Operation) -> Durations:
        """Return the durations of one kind of request."""
        return self.durations.setdefault(operation, Durations(REQUEST_BUCKETS_S))

    @property
    def requests(self) -> int:
        """All requests; retries count again."""
        return self.get_requests + self.head_requests + self.list_requests + self.put_requests


@dataclass(frozen=True, slots=True)
class SecretSettings:
    """A secret as a node's own configuration resolves it."""

    name: str
    values: Mapping[str, str] = field(repr=False)
    """Credential option, in any of `obstore`'s spellings, to its value."""
    hosts: tuple[str, ...] = ()
    """Where it may be sent: ``host``, ``host:port``, or ``.domain`` for all below one. None
    named: only to the usual host of the volume's scheme."""


class Origin(Protocol):
    """One volume, read and written where it lies.

    Every call but `put` ends within its deadline, `OriginLimits.deadline_s` if none is given, and
    may be cancelled. All raise `OriginUnavailable` when the origin does not answer or answers with
    errors after all attempts, and at once while it is known not to; `Overloaded` when their turn
    does not come in time; and `NotPermitted` when it refuses us.
    """

    @property
    def counters(self) -> OriginCounters:
        """Live: read it, do not keep a copy."""

    async def head(self, path: str, *, deadline: Deadline | None = None) -> OriginMeta:
        """Return the object's present version and size.

        Raises:
            ObjectNotFound: There is none.
            Uncacheable: The origin tells nothing that versions could be told by.
        """

    async def read(
        self,
        path: str,
        version: str,
        size: int,
        start: int,
        stop: int,
        *,
        deadline: Deadline | None = None,
    ) -> Buffer:
        """Return bytes ``start`` to ``stop`` of exactly this version and size.

        Never newer bytes, and never fewer: the answer's version, size and range are compared
        with what was asked, whatever condition was sent along.

        Raises:
            ObjectChanged: It is not this version any more.
            ObjectNotFound: It is gone.
        """

    async def list(
        self, prefix: str, *, after: str = "", limit: int, deadline: Deadline | None = None
    ) -> ListPage:
        """Return up to ``limit`` objects below ``prefix``, at any depth, in order of path.

        A page may be short, or empty, and still have a next one.

        Args:
            prefix: Whole segments, ``llama/7b``; empty for the whole volume.
            after: Only paths behind this one.
            limit: 1 to `LIST_PAGE_MAX`.
            deadline: When to give up.
        """

    async def put(
        self, path: str, parts: AsyncIterator[bytes], *, size: int | None, if_absent: bool
    ) -> str:
        """Write an object, which appears whole, in one step, or not at all.

        Takes as long as ``parts`` do. To give up let ``parts`` raise, and wait: what was sent is
        taken away from the origin, and that error is raised. A task that is cancelled takes
        nothing away.

        Args:
            path: Of the object; another there is replaced.
            parts: Its bytes.
            size: How many these are; None if nobody knows yet.
            if_absent: Refuse if there is an object. The origin decides that itself for what it
                takes in one request; for more it is asked before the first byte and after the
                last one.

        Returns:
            What the origin calls the version; empty if it does not say.

        Raises:
            Conflict: There is an object, and ``if_absent``.
            InvalidRequest: More than the origin takes, or a place where no object can be.
            Exception: What ``parts`` raised.
        """

    def close(self) -> None:
        """Release threads. Calls in flight may still end well; no new ones."""


def kind_of_status(status: int) -> Kind:
    """Return what an answer is counted as that says that the origin cannot."""
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        return "throttled"
    return "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "other"


def microseconds(moment: datetime) -> int:
    """Return a time of modification, as `OriginMeta` has it."""
    # obstore gives 1970 where the origin does not say.
    found = (moment - _EPOCH) // _MICROSECOND
    return max(0, found)


def is_strong(version: str) -> bool:
    """Whether ``version`` is a strong etag: it can be asked for with ``If-Match``."""
    return version != "" and not version.startswith(("W/", "lm:", "mtime:"))


def version_of(*, etag: str | None, modified_us: int, size: int, url: str) -> str:
    """Return the version by this module's rules.

    Raises:
        Uncacheable: Neither a strong etag nor a modification time.
    """
    if etag is not None and is_strong(etag) and etag != '""' and len(etag) <= VERSION_BYTES_MAX:
        return etag
    if modified_us > 0:
        return f"lm:{modified_us}-{size}"
    raise Uncacheable(
        f"{url}: the origin gives neither a strong etag nor Last-Modified, so an overwrite could "
        "not be seen; make it send one, or read it without the cache"
    )


def exists_already(volume: Volume, path: str) -> Conflict:
    """Return what a put is told that wanted no object to be there."""
    return Conflict(
        f"{describe(volume, path)} exists already; put it without if_absent to replace it"
    )


def describe(volume: Volume, path: str) -> str:
    """Return an object's name for messages: its canonical origin url."""
    return volume.object_key_prefix + path

"""Putting objects: bytes that a client sends, on their way through this node to their origin.

Responsible for: which volumes may be written, how many bytes are on their way at once, and that
an object is published whole, on its sender's word, or not at all: a sender that fails, falls
silent or breaks off leaves nothing behind.
Not responsible for: writing (`origin`), messages (`serve.put_service`).
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import structlog

from penstock.errors import (
    Cancelled,
    Conflict,
    InvalidRequest,
    NodeUnavailable,
    NotPermitted,
    OriginUnavailable,
    Overloaded,
    PenstockError,
)
from penstock.object_info import OpenedObject
from penstock.volumes import READ_ONLY_KINDS, Location, Volume
from penstock_node.cluster import Cluster
from penstock_node.inflight import Lane, Loan
from penstock_node.opening import Opener
from penstock_node.origin import Origin, Origins, put_memory_bytes
from penstock_node.parts import Parts

_log = structlog.get_logger(__name__)

WINDOW = 4
"""Parts that a sender may be ahead: one is taken while others are on their way here."""
PART_BYTES_MAX = 8 * 1024 * 1024
COPIES = 2
"""Of a part in memory until it was taken: its message, and its bytes."""
PUTS_MAX = 4096
"""Known at once, those that ended a moment ago among them."""
WAIT_S = 2.0
"""How long a call waits: a process that wants to fork waits for it."""
IDLE_S = 30.0
"""A sender that says nothing for so long is gone."""
TOLD_S = 2.0
"""How long a put is known after its sender was told how it ended."""
STOP_S = 10.0
"""How long taking away what was sent may take when the node stops."""
RETRY_AFTER_S = 1.0


@dataclass(slots=True, eq=False)
class _Put:
    """One object on its way."""

    name: str
    url: str
    location: Location
    origin: Origin
    size: int | None
    if_absent: bool
    loan: Loan
    parts: Parts
    begun_at: float = field(default_factory=time.monotonic)
    task: "asyncio.Task[None] | None" = None
    opened: OpenedObject | None = None
    """Once it is published."""
    expiry: asyncio.TimerHandle | None = None


class Puts:
    """The objects that are put through this node. On the event loop."""

    def __init__(
        self, *, cluster: Cluster, origins: Origins, opener: Opener, bytes_max: int
    ) -> None:
        """Begin with none.

        Args:
            cluster: Knows the volumes.
            origins: Where objects go.
            opener: Sees to it that the cluster opens what was put, and nothing older.
            bytes_max: Payload of all puts in memory at once.
        """
        self._cluster = cluster
        self._origins = origins
        self._opener = opener
        self._memory = Lane(bytes_max)
        self._puts: dict[str, _Put] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._is_stopping = False

    async def start(self, url: str, *, size: int | None, if_absent: bool, part_bytes: int) -> str:
        """Begin to put an object, and return the name that all further calls give.

        Args:
            url: Of the object.
            size: In bytes; None if nobody knows yet.
            if_absent: Refuse if there is one.
            part_bytes: Of the largest part.

        Raises:
            NotPermitted: Outside every volume, or in one that is not writable.
            InvalidRequest: Nothing can be put there, or of that size.
            Overloaded: Others put so much that there is no memory for more.
            NodeUnavailable: This node starts or stops: another may do it.
        """
        location = self._writable(url)
        origin = self._origins.get(location.volume)
        if not 0 < part_bytes <= PART_BYTES_MAX:
            raise InvalidRequest(f"part_bytes={part_bytes}: want 1 to {PART_BYTES_MAX}")
        ahead = WINDOW * part_bytes
        ahead = COPIES * (ahead if size is None else min(ahead, size))
        loan = await self._lend(put_memory_bytes(size) + ahead)
        put = _Put(
            secrets.token_hex(16),
            url,
            location,
            origin,
            size,
            if_absent,
            loan,
            Parts(window=WINDOW),
        )
        self._puts[put.name] = put
        put.task = asyncio.create_task(self._carry(put), name=f"put {url}")
        self._running.add(put.task)
        put.task.add_done_callback(self._running.discard)
        self._hear(put)
        return put.name

    def _writable(self, url: str) -> Location:
        if url.endswith("/"):
            raise InvalidRequest(f"{url} is a directory; name the object to put in it")
        location = self._cluster.volumes.resolve(url)
        if not location.volume.writable:
            raise _read_only(location.volume)
        return location

    async def _lend(self, size_bytes: int) -> Loan:
        if self._is_stopping:
            raise NodeUnavailable(f"{self._cluster.node_id} is stopping; put through another node")
        loan = await self._memory.take_turn(size_bytes) if len(self._puts) < PUTS_MAX else None
        if loan is None:
            raise Overloaded(
                f"{self._cluster.node_id} is putting as much as it may; try again later",
                retry_after_s=RETRY_AFTER_S,
            )
        return loan

    async def send(self, name: str, index: int, data: bytes) -> bool:
        """Take a part, or with no ``data`` look for one sent before; tell if it is on its way.

        Raises:
            InvalidRequest: There is no such put, or the part does not belong there.
            PenstockError: Why the put has failed.
        """
        put = self._get(name)
        with _until_it_breaks_off(put):
            if data:
                put.parts.give(index, data)
            return await put.parts.taken(index, timeout_s=WAIT_S)

    async def keep(self, name: str) -> None:
        """Take note that the sender lives; returns after a moment, or when the put has ended.

        Raises:
            InvalidRequest: There is no such put.
            PenstockError: Why the put has failed.
        """
        put = self._get(name)
        with _until_it_breaks_off(put):
            await self._ended(put)
        if put.parts.failure is not None:
            raise put.parts.failure

    async def finish(self, name: str, *, parts: int, size: int) -> OpenedObject | None:
        """Publish the object once all of it is there; None: that takes longer, ask again.

        Raises:
            InvalidRequest: There is no such put, or these are not all parts.
            PenstockError: Why the put has failed.
        """
        put = self._get(name)
        if put.opened is None:
            put.parts.end(parts=parts, size=size)
            await self._ended(put)
        if put.opened is None and put.parts.failure is not None:
            raise put.parts.failure
        if put.opened is not None:
            self._hear(put, silence_s=TOLD_S)
        return put.opened

    async def abort(self, name: str) -> None:
        """Give a put up, and wait a moment until nothing is left of it; none is known: nothing."""
        put = self._puts.get(name)
        if put is not None:
            put.parts.fail(Cancelled(f"{put.url}: its sender gave it up"))
            await self._ended(put)
            self._hear(put, silence_s=TOLD_S)

    async def _ended(self, put: _Put) -> None:
        assert put.task is not None, "it runs from the start on"
        await asyncio.wait([put.task], timeout=WAIT_S)

    def _get(self, name: str) -> _Put:
        put = self._puts.get(name)
        if put is None:
            raise InvalidRequest(
                f"{self._cluster.node_id} knows no such put: it has ended, its sender was silent "
                "for too long, or the node was restarted; look, or put it again"
            )
        self._hear(put)
        return put

    def _hear(self, put: _Put, *, silence_s: float = IDLE_S) -> None:
        """Forget a put once nothing was heard of it for so long, counted from now."""
        if put.expiry is not None:
            put.expiry.cancel()
        put.expiry = asyncio.get_running_loop().call_later(silence_s, self._forget, put)

    def _forget(self, put: _Put) -> None:
        put.parts.fail(Cancelled(f"{put.url}: its sender said nothing for {IDLE_S:.0f} s"))
        del self._puts[put.name]

    async def _carry(self, put: _Put) -> None:
        """Do all of it; what fails is told to the sender, whatever that asks next."""
        try:
            put.opened = await self._published(put)
        except PenstockError as error:
            _log.info("a put failed", url=put.url, error=error.name, reason=str(error))
            put.parts.fail(error)
        except Exception:  # noqa: BLE001 - a task's border: its sender is told
            _log.exception("a put failed inside the node", url=put.url)
            put.parts.fail(PenstockError(f"{put.url}: the node failed; its log says more"))
        else:
            _log.info(
                "an object was put",
                url=put.url,
                size_bytes=put.parts.size,
                version=put.opened.id.version,
                seconds=round(time.monotonic() - put.begun_at, 3),
            )
        finally:
            put.loan.release()

    async def _published(self, put: _Put) -> OpenedObject:
        version = await put.origin.put(
            put.location.path, put.parts, size=put.size, if_absent=put.if_absent
        )
        # Asked of the one that answers for all: from now on nobody opens anything older.
        opened = await self._opened_anew(put)
        if isinstance(opened, OpenedObject) and opened.id.version == version:
            return opened
        return await self._looked_at(put)

    async def _opened_anew(self, put: _Put) -> OpenedObject | PenstockError:
        (result,) = await self._opener.open([put.url], refresh=True, forwarded=False)
        return result

    async def _looked_at(self, put: _Put) -> OpenedObject:
        """Return what was put, where its version is not told, or not this one.

        While an origin does not answer, what was known of it before is opened: so it is asked.
        """
        try:
            found = await put.origin.head(put.location.path)
        except PenstockError as error:
            raise OriginUnavailable(
                f"{put.url} was put, but cannot be looked at: {error}"
            ) from error
        opened = await self._opened_anew(put)
        if isinstance(opened, PenstockError):
            raise opened
        if found.size != put.parts.size or opened.id.version != found.version:
            raise Conflict(f"{put.url} was put, and overwritten by somebody else at once")
        return opened

    async def close(self) -> None:
        """Give up what is on its way, and take no more."""
        self._is_stopping = True
        for put in self._puts.values():
            put.parts.fail(
                NodeUnavailable(f"{self._cluster.node_id} is stopping; nothing was published")
            )
        if self._running:
            await asyncio.wait(self._running, timeout=STOP_S)


@contextlib.contextmanager
def _until_it_breaks_off(put: _Put) -> Iterator[None]:
    """Give ``put`` up if the call is cancelled: its connection is gone, and its sender with it."""
    try:
        yield
    except asyncio.CancelledError:
        put.parts.fail(Cancelled(f"{put.url}: its sender is gone"))
        raise


def _read_only(volume: Volume) -> NotPermitted:
    if volume.kind in READ_ONLY_KINDS:
        return NotPermitted(
            f"volume {volume.name!r} is read over {volume.kind}, and cannot be written"
        )
    return NotPermitted(
        f"volume {volume.name!r} is read-only: set writable = true in [volumes.{volume.name}] "
        "of the nodes' configuration before the cluster forms; later add it again as it is, with: "
        f"penstock volume add {volume.name} … --writable --replace"
    )

"""The cache as a program sees it: open, read, list, locate, warm up, put.

Responsible for: the public blocking interface, and being safe to use after a fork.
Not responsible for: how bytes come (`reader`), where they are (`routing`).
"""

import os
import threading
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

from penstock.address import UNIX, seed_addresses
from penstock.core import FALLBACKS, PLANES, Core, Options
from penstock.counters import Counters, Stats
from penstock.credentials import authorization_for, insecure_from
from penstock.errors import InvalidRequest, ObjectChanged
from penstock.file_calls import FileCalls
from penstock.host_view import Verify, view_object
from penstock.listing import ListingCalls
from penstock.load_lines import Loading, begin_load, say_closed
from penstock.locating import locate
from penstock.membership.view import View
from penstock.memory import new_bytes
from penstock.object_info import ObjectInfo, ObjectLocation
from penstock.objects import check_range
from penstock.opens import Handle
from penstock.put import PART_BYTES
from penstock.ranges import RangeCalls
from penstock.sampling import SHARE_VARIABLE, sampling_for_programs, share_from
from penstock.snapshot_calls import SnapshotCalls
from penstock.tls import Tls
from penstock.trace_calls import TraceCalls
from penstock.warm_calls import start_warmup
from penstock.warm_telling import WarmTelling
from penstock.warming import warm_up
from penstock.warmup import Target, WarmupProgress, WarmupReport

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from penstock.put_source import Source


class Cache(FileCalls, ListingCalls, RangeCalls, SnapshotCalls, TraceCalls):
    """A connection to a Penstock cluster. Thread-safe, and usable in forked children.

    Errors that any call may raise: `ClusterUnavailable` when no node answers, `NotPermitted`
    for a url outside every volume, `ObjectNotFound`, `OriginUnavailable`.
    """

    def __init__(self, make_core: Callable[[], Core], *, address: str) -> None:
        self._make_core = make_core
        self._core = make_core()
        self._address = address
        self._closed = False
        self._of_parents: list[Core] = []
        _caches.add(self)

    def __repr__(self) -> str:
        return f"<Cache of {self._address}{', closed' if self._closed else ''}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close connections and stop threads. Using the cache afterwards is an error."""
        if not self._closed:
            say_closed(repr(self), self._core.stats())
            self._closed = True
            self._core.close()

    def _after_fork(self) -> None:
        # The parent's locks may be held and its threads are gone: keep what has them.
        self._core.abandon()
        self._of_parents.append(self._core)
        self._core = self._make_core()

    def _open_core(self) -> Core:
        if self._closed:
            raise InvalidRequest("this cache was closed; connect() again")
        return self._core

    @property
    def cluster_view(self) -> View:
        """The cluster's placement and members as known here, at most some seconds old."""
        return self._open_core().nodes.view()

    def stat(self, url: str, *, refresh: bool = False) -> ObjectInfo:
        """Return what is known of the object: version, size in bytes, modification time.

        Args:
            url: ``penstock://volume/path``, or an origin url inside a configured volume.
            refresh: Ask the origin even if a recent answer is known.
        """
        core = self._open_core()
        return core.opens.open(url, refresh=refresh).opened.info(plane=core.plane_name)

    def read(
        self,
        url: str,
        offset: int = 0,
        length: int | None = None,
        *,
        refresh: bool = False,
        stop: threading.Event | None = None,
    ) -> bytes:
        """Return ``length`` bytes from ``offset``, by default the whole object.

        A read of the whole object that meets an overwritten object starts over once.

        Raises:
            InvalidRequest: The range begins beyond the end.
            ObjectChanged: The object is overwritten faster than it can be read.
        """
        loading = begin_load("read", url)
        handle = self._open_core().opens.open(url, refresh=refresh)
        try:
            return self._read(handle, offset, length, stop, loading)
        except ObjectChanged:
            if offset != 0 or length is not None:
                raise
        again = self._open_core().opens.open(url, refresh=True)
        return self._read(again, offset, length, stop, loading)

    def _read(
        self,
        handle: Handle,
        offset: int,
        length: int | None,
        stop: threading.Event | None,
        loading: Loading,
    ) -> bytes:
        wanted = check_range(handle.opened.id.size, offset, length)
        (memory,) = new_bytes([wanted])
        self._read_handle(handle, memory.view, offset, stop=stop, tally=loading.counters)
        loading.end(wanted, object_bytes=handle.opened.id.size)
        return memory.take()

    def read_into(
        self,
        url: str,
        buffer: "WriteableBuffer",
        offset: int = 0,
        *,
        stop: threading.Event | None = None,
    ) -> int:
        """Fill ``buffer`` from ``offset``, less only at the object's end; return the bytes read.

        Args:
            url: The object.
            buffer: Writable and contiguous, e.g. a bytearray, a numpy array, a memoryview.
                After an error it may hold anything, and nothing writes into it any more.
            offset: Of the first byte within the object.
            stop: Set from another thread to give up early.
        """
        loading = begin_load("read", url)
        handle = self._open_core().opens.open(url)
        with memoryview(buffer) as view, view.cast("B") as octets:
            wanted = check_range(handle.opened.id.size, offset, len(octets))
            with octets[:wanted] as target:
                self._read_handle(handle, target, offset, stop=stop, tally=loading.counters)
        loading.end(wanted, object_bytes=handle.opened.id.size)
        return wanted

    def _read_handle(
        self,
        handle: Handle,
        target: memoryview,
        offset: int,
        *,
        stop: threading.Event | None = None,
        tally: Counters | None = None,
    ) -> None:
        core = self._open_core()
        try:
            if len(target):
                core.reader.read_into(handle, target, offset, stop=stop, tally=tally)
        except ObjectChanged:
            core.opens.forget(handle.opened.url)
            raise

    def view(
        self,
        url: str,
        verify: Verify = "node",
        *,
        copy_on_write: bool = False,
        stop: threading.Event | None = None,
    ) -> memoryview:
        """Return the whole object as memory over the local node's files: no copy.

        All of it is in memory when this returns. It stays valid for as long as any view of it
        lives, whatever the node evicts; the node counts its chunks as in use until then.

        Args:
            url: The object.
            verify: ``node`` trusts the node, which checked each chunk when it brought it in;
                ``full`` checks every block first.
            copy_on_write: The memory can be written to: of each page that it writes to, this
                process gets its own copy. By default it is read-only.
            stop: Set from another thread to give up early.

        Raises:
            NotPermitted: No node of this machine gives this program files; read the object.
            InvalidConfiguration: The object has more chunks than this process may have maps.
        """
        core, loading = self._open_core(), begin_load("mapped", url)
        handle = core.opens.open(url)
        files = core.chunk_files(handle, stop, tally=loading.counters)
        view = view_object(files, verify=verify, copy_on_write=copy_on_write)
        loading.end(len(view), object_bytes=handle.opened.id.size)
        return view

    def put(
        self,
        url: str,
        source: "Source",
        *,
        if_absent: bool = False,
        on_progress: Callable[[int], None] | None = None,
        part_bytes: int = PART_BYTES,
        stop: threading.Event | None = None,
    ) -> ObjectInfo:
        """Write an object through to its origin, whole or not at all, and return what it is now.

        This cache opens it from now on, all others within ``open_ttl_s``; whoever has the one
        before open is told `ObjectChanged`. Nothing is cached of it until it is read.

        Args:
            url: Of the object, in a volume that is ``writable``.
            source: A path, bytes, or a binary stream, read to its end from where it stands.
            if_absent: Refuse to replace an object.
            on_progress: Called with the bytes that are on their way to the origin so far.
            part_bytes: Of what is sent at once, four times in parallel; at most 8 MiB.
            stop: Set from another thread to give up.

        Raises:
            NotPermitted: The volume is read-only, or its origin refuses.
            Conflict: There is an object, and ``if_absent``; or a file changed meanwhile.
            NodeUnavailable: The node that carried it is gone; put it again.
        """
        core = self._open_core()
        opened = core.putter.put(
            url,
            source,
            if_absent=if_absent,
            on_progress=on_progress,
            part_bytes=part_bytes,
            stop=stop,
        )
        core.opens.was_put(opened)
        return opened.info(plane=core.plane_name)

    def locate(self, url: str, *, refresh: bool = False) -> ObjectLocation:
        """Tell for each chunk of the object which nodes own it and which hold it now."""
        return locate(self._open_core(), url, refresh=refresh)

    def warmup(
        self,
        urls: Iterable[str],
        *,
        to: Target = "owners",
        dry_run: bool = False,
        on_progress: Callable[[WarmupProgress], None] = lambda _progress: None,
        stop: threading.Event | None = None,
    ) -> WarmupReport:
        """Have objects brought into the cache, each chunk once; wait until all are there.

        What is there already costs nothing, so that one that was stopped is gone on with by
        calling this again. No payload comes to this program.

        Args:
            urls: Objects, and prefixes: everything below them. Gone through once.
            to: ``owners``; ``self``: into the tiers of this machine's node; ``hosts``: into those
                of every node, for its machine's readers.
            dry_run: Bring nothing in; what would be counts as cold.
            on_progress: Called a few times a second, and at the end.
            stop: Set from another thread to have no more brought in and get the report so far.

        Raises:
            InvalidRequest: No node has tiers for what ``to`` asks.
        """
        core, wanted = self._open_core(), [urls] if isinstance(urls, str) else urls
        with WarmTelling(core, is_silent=dry_run) as telling:
            return warm_up(
                core,
                telling.named(wanted),
                target=to,
                dry_run=dry_run,
                on_progress=telling.noted(on_progress),
                stop=stop or threading.Event(),
            )

    def start_warmup(self, urls: Iterable[str], *, to: Target = "owners") -> str:
        """As `warmup`, by a node in the background; return which one, at once.

        It ends with that node's process; what has come by then is there. Its log tells the end.

        Raises:
            InvalidRequest: More urls than one request takes, or no node has tiers for ``to``.
            Overloaded: The node has enough of them to do.
        """
        return start_warmup(self._open_core(), list(urls), target=to)

    def shares(self) -> dict[str, float]:
        """Return the share of the key space whose first owner each node is, from 0 to 1."""
        core = self._open_core()
        core.nodes.view()
        return core.routing.ring.shares()

    def stats(self) -> Stats:
        """Return what this cache has counted in this process: bytes, waits, and what went wrong.

        A forked child begins at zero. It costs microseconds, and may be asked at any time.
        """
        return self._open_core().stats()


_caches: "weakref.WeakSet[Cache]" = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for cache in list(_caches):
        cache._after_fork()  # noqa: SLF001 - of this module


os.register_at_fork(after_in_child=_after_fork_in_child)


def connect(
    address: str | None = None,
    *,
    plane: str = "auto",
    fallback: str = "error",
    token: str | None = None,
    tls: Tls | None = None,
    insecure: bool | None = None,
    trace_share: float | None = None,
) -> Cache:
    """Connect to a cluster; nothing is asked of it until the first call.

    Args:
        address: ``host:port,host:port,…`` (gRPC of any nodes), ``unix:PATH`` (the node of this
            machine) or ``etcd://host:port,…/cluster``; by default ``PENSTOCK_ADDRESS``, else
            this machine's node.
        plane: ``auto`` takes the fastest that is reachable; or ``host``, ``bulk``, ``grpc``.
        fallback: ``error``, or ``origin`` to read the origin itself when no node answers.
        token: A bearer token; by default ``PENSTOCK_TOKEN``, else what the file
            ``PENSTOCK_TOKEN_FILE`` has: it is read again when it changes.
        tls: Certificates for gRPC; by default those that ``PENSTOCK_CA``, ``PENSTOCK_CERT``
            and ``PENSTOCK_KEY`` name, else plain text.
        insecure: The token may be sent in plain text to other machines; by default what
            ``PENSTOCK_INSECURE`` says, else not.
        trace_share: Of reads, from 0 to 1, that are traced though nobody follows them: see
            `penstock.otel`; by default ``PENSTOCK_TRACE_SHARE``, else none.

    Raises:
        InvalidRequest: An argument is not one of these.
        InvalidConfiguration: There is no token where one should be, or it would be sent in plain
            text.
    """
    if plane not in PLANES:
        raise InvalidRequest(f"plane={plane!r}: want one of {', '.join(PLANES)}")
    if fallback not in FALLBACKS:
        raise InvalidRequest(f"fallback={fallback!r}: want one of {', '.join(FALLBACKS)}")
    seeds = seed_addresses(address)
    tls, insecure = tls or Tls.from_environment(), insecure_from(insecure)
    share = share_from(os.environ.get(SHARE_VARIABLE) if trace_share is None else trace_share)
    options = Options(
        seeds=seeds,
        plane=plane,
        falls_back=fallback == "origin",
        authorization=authorization_for(
            [seed for seed in seeds if not seed.startswith(UNIX)],
            token=token,
            insecure=insecure,
            is_encrypted=tls is not None,
        ),
        credentials=tls.credentials() if tls else None,
        insecure=insecure,
        make_sampling=partial(sampling_for_programs, share),
    )
    return Cache(lambda: Core(options), address=",".join(seeds))

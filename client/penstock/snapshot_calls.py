"""Snapshots by a cache: `penstock.snapshot`, and `Cache.snapshot`.

Not responsible for: how a snapshot is taken (`snapshots.taking`).
"""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypedDict, Unpack

from penstock.core import Core
from penstock.counters import Counters, Stats, add_to_all
from penstock.errors import ClusterUnavailable, ObjectChanged
from penstock.object_info import ObjectInfo
from penstock.opens import Handle

if TYPE_CHECKING:  # Loaded by those who take snapshots.
    from penstock.snapshots.host_copy import Verify
    from penstock.snapshots.patterns import Patterns
    from penstock.snapshots.plan import Kind
    from penstock.snapshots.source import HostAccess
    from penstock.snapshots.taking import Layout, OnProgress, Wanted
    from penstock.snapshots.tally import SnapshotReport

HOST = "host"


class SnapshotOptions(TypedDict, total=False):
    """What may be said of a snapshot beside its url and directory; see `snapshot`."""

    root: str | PathLike[str] | None
    layout: "Layout"
    allow_patterns: "Patterns"
    ignore_patterns: "Patterns"
    repo: str | None
    revision: str | None
    budget_bytes: int | None
    verify: "Verify"
    check: bool
    refresh: bool
    kind: "Kind"
    name: str | None
    on_progress: "OnProgress | None"
    stop: threading.Event | None


class _Cache(Protocol):
    """What is needed of a `Cache`."""

    def _open_core(self) -> Core: ...

    def list_pages(self, prefix: str) -> Iterator[Sequence[ObjectInfo]]: ...


class SnapshotCalls:
    """The part of a `Cache` that brings files into local directories."""

    def snapshot(
        self: _Cache,
        url: str,
        directory: str | PathLike[str] | None = None,
        **options: Unpack[SnapshotOptions],
    ) -> Path:
        """Bring files into a local directory and return its path: see `penstock.snapshot`."""
        return _take(self, url, directory, options).path

    def take_snapshot(
        self: _Cache,
        url: str,
        directory: str | PathLike[str] | None = None,
        **options: Unpack[SnapshotOptions],
    ) -> "SnapshotReport":
        """As `snapshot`; return what was brought, and how."""
        return _take(self, url, directory, options)


class _CacheSource:
    """A cache, as `penstock.snapshots.source.Source` has it."""

    def __init__(self, cache: _Cache) -> None:
        self._cache = cache
        self._core = cache._open_core  # noqa: SLF001 - this is a part of it
        self._tally = Counters()

    def list_pages(self, prefix: str) -> Iterator[Sequence[ObjectInfo]]:
        """See `Source`."""
        return self._cache.list_pages(prefix)

    def open(self, url: str, *, refresh: bool = False) -> Handle:
        """See `Source`."""
        return self._core().opens.open(url, refresh=refresh)

    def read(
        self, handle: Handle, target: memoryview, offset: int, *, stop: threading.Event
    ) -> None:
        """See `Source`."""
        core = self._core()
        try:
            core.reader.read_into(handle, target, offset, stop=stop, tally=self._tally)
        except ObjectChanged:
            core.opens.forget(handle.opened.url)
            raise

    def host(self) -> "HostAccess | None":
        """See `Source`."""
        from penstock.snapshots.source import HostAccess

        core = self._core()
        if core.routing.view is None:  # It tells where sockets are.
            with contextlib.suppress(ClusterUnavailable):
                core.nodes.view()
        local = core.local_node()
        if local is None or local.is_suspected:
            return None
        brings = local.welcome.keeps_copies or _owns_all(core, local.member.id)
        return HostAccess(lambda: core.connect(local), brings)

    def count(self, source: str, length: int) -> None:
        """See `Source`."""
        add_to_all((self._core().counters, self._tally), "bytes", HOST, source, by=length)

    def stats(self) -> Stats:
        """See `Source`."""
        return self._tally.stats()


def _owns_all(core: Core, node_id: str) -> bool:
    view = core.routing.view
    return view is not None and [node.id for node in view.placement.nodes] == [node_id]


def _take(
    cache: _Cache, url: str, directory: str | PathLike[str] | None, options: SnapshotOptions
) -> "SnapshotReport":
    from penstock.snapshots.taking import take_snapshot

    return take_snapshot(_CacheSource(cache), wanted_of(url, directory, options))


def wanted_of(
    url: str, directory: str | PathLike[str] | None, options: SnapshotOptions
) -> "Wanted":
    """Return what is asked for.

    Raises:
        InvalidRequest: Options that are none, or do not go together.
    """
    from penstock.snapshots.taking import Wanted

    told = dict(options)
    root: str | PathLike[str] | None = options.get("root")
    told["root"] = None if root is None else Path(root)
    return Wanted(url, None if directory is None else Path(directory), **told)  # type: ignore[arg-type]  # of the same names


def snapshot(
    url: str,
    directory: str | PathLike[str] | None = None,
    *,
    address: str | None = None,
    **options: Unpack[SnapshotOptions],
) -> Path:
    """Bring an object, or everything below a prefix, into a local directory; return its path.

    What is there with the same version is not read again; what an earlier call, or one that was
    killed, has begun is continued. Each file appears whole, checked and on disk, or not at all;
    the one before it stays until then. Processes that want the same share the work. A directory
    in the layout ``hub`` is a cache of `huggingface_hub`: `transformers` finds the model offline
    with ``cache_dir``. Until `release_snapshot`, or the end of the process, a snapshot that lies
    among others is in use.

    Args:
        url: ``penstock://volume/path`` of an object, or of a prefix in whole path segments.
        directory: Plain: gets the tree, or the object under its own name. Hub: the cache
            directory, ``models--org--name`` in it. By default a place of its own in ``root``.
        address: Of the cluster, as for `connect`.
        **options: ``root`` is a directory of many snapshots; by default ``PENSTOCK_SNAPSHOTS``,
            else ``~/.cache/penstock/snapshots``. ``layout`` is ``plain`` or ``hub``.
            ``allow_patterns`` and ``ignore_patterns`` select files, as in `huggingface_hub`.
            ``repo`` (``ORG/NAME``) and ``revision`` say what a hub's cache calls it; by default
            the end of the url's path, and ``main``.
            ``budget_bytes`` is for all snapshots in it together: those that were used
            least recently, and that nobody uses, are removed first.
            ``verify`` is ``full``, or ``node`` to trust this machine's node with what the kernel
            copies: it checked each chunk when it brought it in.
            ``check`` reads what is here and compares it with its checksums; what is wrong is
            brought again. ``refresh`` asks the origin for a single object.
            ``kind`` is what is expected at the url: ``auto``, ``file`` or ``tree``; ``name`` is
            what a single object is called here.
            ``on_progress`` is called with the bytes that are done, and those wanted, in the
            caller's thread; ``stop`` is set from another thread to give up.

    Raises:
        NoSpace: The disk, or the budget, has no room: with the numbers.
        InvalidRequest: Names that no directory can have, or options that do not go together.
        ObjectNotFound: There is nothing at the url.
        Cancelled: ``stop`` was set. What has landed is continued the next time.
        PenstockError: As `Cache.read`.
    """
    from penstock.cache import connect

    with connect(address) as cache:
        return cache.snapshot(url, directory, **options)

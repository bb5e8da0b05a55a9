"""The catalog as its users and operators ask it: files, their past, and imports.

Responsible for: the catalog's calls as a small typed class, with protobuf at this edge alone.
Not responsible for: reading files (`cache`), printing (`cli`).
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from penstock.catalog_file import CatalogChange, CatalogFile
from penstock.catalog_rpc import (
    DESCRIBE,
    FOLLOW_IMPORT,
    LIST_FILES,
    LIST_VERSIONS,
    SET_MIRROR_RULES,
    START_IMPORT,
    STOP_IMPORT,
    USAGE,
    WATCH,
    brought_from_proto,
    call_catalog,
    change_from_proto,
    file_from_proto,
    rules_to_proto,
)
from penstock.errors import InvalidRequest, PenstockError
from penstock.membership.nodes import Nodes
from penstock.mirror_rules import BroughtVolume, MirrorRules
from penstock.rpc import FIND_CATALOG, Channels, Method, Request, Response
from penstock.v1 import catalog_pb2, operator_pb2
from penstock.volumes import URL_SCHEME

PAGE_MAX = 1_000
CALL_TIMEOUT_S = 20.0
SUM_TIMEOUT_S = 60.0
"""For what goes through all that lies below a prefix."""


@dataclass(frozen=True, slots=True)
class CatalogUsage:
    """What lies below a url."""

    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class CatalogStatus:
    """How far a catalog is, and whose mirror it is."""

    address: str
    """Where it answers."""
    mirror_of: str
    """Where the catalog answers that it follows; empty: it is no mirror."""
    seq: int
    """Of its newest entry."""
    source_seq: int
    """Of the newest entry that its source was heard to have; of no mirror its own."""
    lag_s: float
    """How long ago it had all that its source had; 0 while it has."""
    trouble: str
    """Why it does not get on; empty: it does."""
    volumes: tuple[str, ...]
    brought: tuple[BroughtVolume, ...] = ()
    """Of a mirror: those volumes whose new data is brought into its region."""


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """What an import has done, in files."""

    listed: int
    added: int
    changed: int
    removed: int
    unchanged: int
    refused: int
    """Keys that cannot be paths, and are not imported."""
    refused_keys: tuple[tuple[str, str], ...]
    """The first of them, and why."""
    seq: int
    """Of the newest entry of the catalog's feed, once the import is over; 0 before."""


@dataclass(frozen=True, slots=True)
class ImportWanted:
    """What is to be imported, and how."""

    volume: str
    """A catalogued one, by name."""
    url: str
    """A place within one of its origins."""
    to: str = ""
    """Where it comes to lie in the volume: whole segments of a path."""
    include: tuple[str, ...] = ()
    """Globs of paths below the place; none: all."""
    exclude: tuple[str, ...] = ()
    prune: bool = False
    """Whether files that are gone there are removed from the catalog."""
    dry_run: bool = False
    """Whether nothing is written."""


class Catalog:
    """A connection to a cluster's catalog. Thread-safe; `Operator.catalog` makes one.

    Any call may raise `CatalogUnavailable` when it does not answer, `ClusterUnavailable` when no
    node tells where it is, and `InvalidRequest` for a url that is none of a volume.
    """

    def __init__(self, nodes: Nodes, channels: Channels) -> None:
        self._nodes, self._channels = nodes, channels
        self._address = ""

    def address(self) -> str:
        """Return where nodes say that the catalog answers; empty: none is registered."""
        return self._nodes.call(FIND_CATALOG, operator_pb2.FindCatalogRequest()).address

    def status(self) -> CatalogStatus:
        """Return how far the catalog is; of a mirror also how far behind."""
        told = self._call(DESCRIBE, catalog_pb2.DescribeCatalogRequest())
        return CatalogStatus(
            self._address,
            told.mirror_of,
            told.seq,
            told.source_seq,
            told.lag_s,
            told.trouble,
            tuple(told.volumes),
            tuple(map(brought_from_proto, told.brought)),
        )

    def set_mirror_rules(self, volume: str, rules: MirrorRules) -> None:
        """Have a mirror bring some of a volume's data into its region, from now on by itself.

        What there is already is brought too. Without globs nothing is brought any more; what was
        stays.

        Raises:
            InvalidRequest: It is no mirror, the volume is none of its catalogued ones or has no
                store of this region as its first origin, or a glob is none.
        """
        request = catalog_pb2.SetMirrorRulesRequest(volume=volume, rules=rules_to_proto(rules))
        self._call(SET_MIRROR_RULES, request)

    def directory(self, url: str) -> Iterator[CatalogFile | str]:
        """Yield what lies directly in a directory: files, and directories' paths, with a slash."""
        return self._listed(url, directory=True)

    def files(self, url: str) -> Iterator[CatalogFile]:
        """Yield all files below ``penstock://VOLUME/PATH``, by path."""
        for found in self._listed(url, directory=False):
            assert isinstance(found, CatalogFile), "directories are in directories alone"
            yield found

    def _listed(self, url: str, *, directory: bool) -> Iterator[CatalogFile | str]:
        volume, prefix = _split(url)
        request = catalog_pb2.ListFilesRequest(
            volume=volume, prefix=prefix, directory=directory, limit=PAGE_MAX
        )
        while True:
            answer = self._call(LIST_FILES, request)
            files: list[CatalogFile | str] = [file_from_proto(file) for file in answer.files]
            yield from sorted([*files, *answer.directories], key=_path_of)
            if not answer.next_after:
                return
            request.after = answer.next_after

    def usage(self, url: str) -> CatalogUsage:
        """Return how much lies below ``penstock://VOLUME/PATH``."""
        volume, prefix = _split(url)
        request = catalog_pb2.UsageRequest(volume=volume, prefix=prefix)
        answer = self._call(USAGE, request, timeout_s=SUM_TIMEOUT_S)
        return CatalogUsage(answer.files, answer.bytes)

    def versions(self, url: str, *, limit: int = PAGE_MAX) -> Sequence[CatalogChange]:
        """Return what became of a file, the newest first; nothing, if there never was one."""
        volume, path = _split(url)
        request = catalog_pb2.ListVersionsRequest(volume=volume, path=path, limit=limit)
        answer = self._call(LIST_VERSIONS, request)
        return [change_from_proto(change) for change in answer.changes]

    def run_import(
        self, wanted: ImportWanted, on_progress: Callable[[ImportProgress], None] | None = None
    ) -> ImportProgress:
        """Import a place into a volume, and return what that did.

        No data is read or copied. What is there already costs no write: an import that was
        interrupted is gone on with by the same one.

        Args:
            wanted: What, and how.
            on_progress: Told about twice a second.

        Raises:
            NotPermitted: The place is in none of the volume's origins.
            OriginUnavailable: It cannot be listed.
            NoSpace: The catalog's database is full.
        """
        request = catalog_pb2.StartImportRequest(
            volume=wanted.volume,
            url=wanted.url,
            to=wanted.to,
            include=wanted.include,
            exclude=wanted.exclude,
            prune=wanted.prune,
            dry_run=wanted.dry_run,
        )
        name = self._call(START_IMPORT, request).name
        try:
            while True:
                answer = self._call(FOLLOW_IMPORT, catalog_pb2.FollowImportRequest(name=name))
                progress = _progress(answer)
                if answer.is_done:
                    return progress
                if on_progress is not None:
                    on_progress(progress)
        except KeyboardInterrupt:
            with contextlib.suppress(PenstockError):  # It ends by itself, as nobody follows it.
                self._call(STOP_IMPORT, catalog_pb2.StopImportRequest(name=name))
            raise

    def watch(self, wanted: ImportWanted) -> str:
        """Have the catalog remember a place, and look at what its store tells of.

        Of ``wanted`` all that says which files are meant; nothing is imported by this alone.

        Returns:
            Where the store has to send its events.

        Raises:
            NotPermitted: The place is in none of the volume's origins, or the catalog a mirror.
            InvalidRequest: Its store tells of nothing.
        """
        return self._watch(wanted, end=False)

    def watch_no_more(self, wanted: ImportWanted) -> None:
        """Have it forget the place.

        Raises:
            InvalidRequest: It is not watched; the message tells which are.
        """
        self._watch(wanted, end=True)

    def _watch(self, wanted: ImportWanted, *, end: bool) -> str:
        request = catalog_pb2.WatchRequest(
            volume=wanted.volume,
            url=wanted.url,
            to=wanted.to,
            include=wanted.include,
            exclude=wanted.exclude,
            end=end,
        )
        return self._call(WATCH, request).events_url

    def _call(
        self,
        method: Method[Request, Response],
        request: Request,
        *,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> Response:
        address = self._address or self.address()
        self._address = ""  # If it does not answer, another may have taken its place.
        answer = call_catalog(self._channels, address, method, request, timeout_s=timeout_s)
        self._address = address
        return answer


def _split(url: str) -> tuple[str, str]:
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() != URL_SCHEME:
        raise InvalidRequest(f"{url!r}: write penstock://VOLUME/PATH, of a catalogued volume")
    volume, _, path = rest.partition("/")
    return volume, path.rstrip("/")


def _path_of(found: CatalogFile | str) -> str:
    return found if isinstance(found, str) else found.path


def _progress(answer: catalog_pb2.FollowImportResponse) -> ImportProgress:
    return ImportProgress(
        listed=answer.listed,
        added=answer.added,
        changed=answer.changed,
        removed=answer.removed,
        unchanged=answer.unchanged,
        refused=answer.refused,
        refused_keys=tuple((each.key, each.reason) for each in answer.refused_keys),
        seq=answer.seq,
    )

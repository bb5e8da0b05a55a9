"""Repositories: which volume holds one, and what is in it.

Responsible for: finding ``org/name`` in volumes, listing it, and believing that for as long as
any listing is believed; for longer while the origin does not answer.
Not responsible for: revisions (`trees`), who may read (`access`), files' bytes (`files`).

A repository is a directory ``org/name`` of a volume: of the first one that has it, in the order
of ``hub_volumes`` or else of their names.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass

from penstock.errors import InvalidRequest, NodeUnavailable, NotPermitted, ObjectNotFound, Retryable
from penstock.hub_urls import hub_place
from penstock.object_info import ObjectInfo
from penstock.origin_urls import check_path
from penstock.volumes import Volume, penstock_url
from penstock_node.cluster import Cluster
from penstock_node.flights import Flights
from penstock_node.listing import PAGE_MAX, Listings
from penstock_node.serve.hub.errors import (
    REVISION_NOT_FOUND,
    HubError,
    repo_not_found,
    revision_not_found,
)
from penstock_node.serve.hub.trees import File, Repository, Tree, file_of, is_commit
from penstock_node.serve.s3.access import Caller

FILES_MAX = 10_000
"""Of one repository, all its revisions together. The largest models have some hundred."""
REMEMBERED_FILES_MAX = 50_000
"""Of all repositories that are remembered; about half a kilobyte each."""
LISTED_AT_ONCE_MAX = 64
FILES_A_PAGE = PAGE_MAX - 1
"""Asked of an origin at once: with one more it answers in one request."""
LIST_S = 50.0
"""Longest that one may take to be listed."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where a repository would lie in a volume."""

    volume: Volume
    directory: str
    """Empty: the volume itself is the repository."""
    pinned: str = ""
    """The one revision of it that the volume is; empty: revisions are directories."""


@dataclass(frozen=True, slots=True)
class _Known:
    repository: Repository
    asked_at: float


class Repositories:
    """The repositories of a cluster's volumes. On the event loop."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        listings: Listings,
        order: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Know nothing yet.

        Args:
            cluster: Its volumes.
            listings: Lists them.
            order: Names of the volumes that are looked into; none: all, by name.
            clock: Monotonic seconds.
        """
        self._cluster = cluster
        self._listings = listings
        self._order = order
        self._clock = clock
        self._known: OrderedDict[Shelf, _Known] = OrderedDict()
        self._listing: Flights[Shelf, _Known] = Flights(
            flights_max=LISTED_AT_ONCE_MAX, lingers=lambda _: False
        )

    async def tree(
        self, repo: str, revision: str, caller: Caller, *, refresh: bool = False
    ) -> Tree:
        """Return what is in a repository at a revision.

        Args:
            repo: ``org/name``.
            revision: A directory's name, ``main``, or a commit that this told of.
            caller: Who asks: only what it may read is looked into.
            refresh: List it, whatever is known.

        Raises:
            HubError: RepoNotFound, RevisionNotFound.
            InvalidRequest: It has more files than are served.
            NotPermitted: An origin refuses us, and no other volume has it.
            Retryable: An origin does not answer, and nothing is known.
        """
        try:
            return await self._find(repo, revision, caller, refresh=refresh)
        except HubError as error:
            # Another node may have told of a commit that is newer than what is known here.
            if refresh or error.code != REVISION_NOT_FOUND or not is_commit(revision):
                raise
        return await self._find(repo, revision, caller, refresh=True)

    async def _find(self, repo: str, revision: str, caller: Caller, *, refresh: bool) -> Tree:
        found: list[str] = []
        refusal: NotPermitted | None = None
        for shelf in self._shelves(repo, revision, caller):
            try:
                repository = await self._repository(shelf, refresh=refresh)
            except NotPermitted as error:  # Another volume may have it, and be open to us.
                refusal = error
                continue
            tree = repository.tree(revision)
            if tree is not None:
                return tree
            found += repository.revisions
        if not found:
            raise refusal or repo_not_found(self._nowhere(repo, caller))
        raise revision_not_found(
            f"{repo} has no revision {revision!r}; it has {', '.join(found[:20])}. A revision is a "
            "directory's name, or the commit of what is there now: what was overwritten is gone"
        )

    def _shelves(self, repo: str, revision: str, caller: Caller) -> list[Shelf]:
        """Return where to look: first where the revision is named, else in order."""
        shelves = [
            shelf
            for volume in self._volumes(caller)
            if (shelf := shelf_of(volume, repo)) is not None
        ]
        return sorted(shelves, key=lambda shelf: shelf.pinned != revision)

    def _volumes(self, caller: Caller) -> Iterator[Volume]:
        volumes = self._cluster.volumes
        for name in self._order or [volume.name for volume in volumes]:
            if name in volumes and caller.may_read(name):
                yield volumes.get(name)

    def _nowhere(self, repo: str, caller: Caller) -> str:
        names = ", ".join(volume.name for volume in self._volumes(caller)) or "none"
        return (
            f"no volume has a directory {repo} (looked into: {names}); put it there, or have an "
            "operator add the volume that has it: penstock volume add"
        )

    async def _repository(self, shelf: Shelf, *, refresh: bool) -> Repository:
        settings = self._cluster.settings
        not_before = self._clock() - (0.0 if refresh else settings.list_ttl_s)
        known = self._known.get(shelf)
        try:
            # A listing under way may have begun too early: then it is waited for, and one more.
            while known is None or known.asked_at < not_before:
                known = await self._list(shelf)
        except Retryable:
            if known is None or self._clock() - known.asked_at > settings.open_stale_s:
                raise
        return known.repository

    async def _list(self, shelf: Shelf) -> _Known:
        known = await self._listing.start(shelf, lambda _: self._ask(shelf)).wait(LIST_S)
        if known is None:
            raise _too_slow(shelf)
        return known

    async def _ask(self, shelf: Shelf) -> _Known:
        asked_at = self._clock()
        try:
            async with asyncio.timeout(LIST_S):
                files = [file async for file in self._files(shelf)]
        except TimeoutError:
            raise _too_slow(shelf) from None
        except ObjectNotFound:  # Not even the place of the volume is there.
            files = []
        known = self._known[shelf] = _Known(Repository(files, pinned=shelf.pinned), asked_at)
        self._known.move_to_end(shelf)
        while len(self._known) > 1 and self._remembered > REMEMBERED_FILES_MAX:
            self._known.popitem(last=False)
        return known

    @property
    def _remembered(self) -> int:
        # One that is not there counts too.
        return sum(max(1, len(known.repository)) for known in self._known.values())

    async def _files(self, shelf: Shelf) -> AsyncIterator[File]:
        url = penstock_url(shelf.volume.name, shelf.directory)
        top = len(url) + 1 if shelf.directory else len(url)
        after, count = "", 0
        while True:
            page = await self._listings.page(url, after=after, limit=FILES_A_PAGE, refresh=True)
            for info in page.objects:
                count += 1
                if count > FILES_MAX:
                    raise InvalidRequest(
                        f"{url} has more than {FILES_MAX} files: it is not served as a repository"
                    )
                if _is_readable(info, top):
                    yield file_of(info.url[top:], info, is_of_hub=bool(shelf.pinned))
            if not (after := page.next_token):
                return


def _too_slow(shelf: Shelf) -> NodeUnavailable:
    place = penstock_url(shelf.volume.name, shelf.directory)
    return NodeUnavailable(f"{place} was not listed within {LIST_S:.0f} s")


def _is_readable(info: ObjectInfo, top: int) -> bool:
    """Tell whether an object is a file: some tools leave empty objects that end in a slash."""
    try:
        check_path(info.url[top:])
    except InvalidRequest:
        return False
    return True


def shelf_of(volume: Volume, repo: str) -> Shelf | None:
    """Return where a repository would lie in a volume; None where none can."""
    if volume.kind == "http":
        return None  # It cannot be listed.
    if volume.kind == "hf":
        place = hub_place(volume.url)
        is_it = place.repo == repo and not place.prefix
        return Shelf(volume, "", place.revision) if is_it else None
    return Shelf(volume, repo)

"""Listing: pages of a volume's objects, asked of the origin and believed for a little while."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from penstock.errors import InvalidRequest
from penstock.object_info import ObjectInfo
from penstock.volumes import penstock_url
from penstock_node.access.grants import limited_caller, volume_in
from penstock_node.cluster import Cluster
from penstock_node.listed_versions import ListedVersions
from penstock_node.origin import Origins

PAGE_MAX = 1000
LINES_REMEMBERED_MAX = 50_000
"""Of all pages together, some 20 MB: a listing of millions of keys goes by and leaves no more."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some lines of a listing, and where to go on."""

    objects: tuple[ObjectInfo, ...]
    next_token: str
    """Empty on the last page."""
    directories: tuple[str, ...] = ()
    """Of a directory alone: urls, each with a slash at its end."""


def check_limit(limit: int) -> None:
    """Raise `InvalidRequest` unless a page may be asked for with ``limit``."""
    if not 0 <= limit <= PAGE_MAX:
        raise InvalidRequest(f"page_size={limit}: want 1 to {PAGE_MAX}")


def _lines_in(page: Page) -> int:
    return 1 + len(page.objects)  # One that is empty takes room too.


class Listings:
    """Pages of listings, each believed for the cluster's ``list_ttl_s``."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        origins: Origins,
        versions: ListedVersions | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with none.

        Args:
            cluster: Tells volumes, and how long a page is believed.
            origins: Are asked.
            versions: Learns what pages tell of objects.
            clock: Monotonic, in seconds.
        """
        self._cluster = cluster
        self._origins = origins
        self._versions = versions or ListedVersions()
        self._clock = clock
        self._pages: OrderedDict[tuple[str, str, int], tuple[float, Page]] = OrderedDict()
        """What was asked, and until when the answer is believed; the oldest first."""
        self._line_count = 0

    async def page(self, url: str, *, after: str, limit: int, refresh: bool = False) -> Page:
        """Return up to ``limit`` objects below ``url``, after the path ``after``.

        Args:
            url: ``penstock://volume/`` and whole segments of a path, or an origin url likewise.
            after: The last page's ``next_token``; empty to begin.
            limit: 1 to 1,000; 0 means 1,000.
            refresh: Ask the origin, whatever is known.

        Raises:
            InvalidRequest: A limit out of bounds.
            NotPermitted: Outside every volume.
            OriginUnavailable: The origin does not answer.
        """
        check_limit(limit)
        if (caller := limited_caller()) is not None:
            named = volume_in(url) or self._cluster.volumes.resolve_prefix(url).volume.name
            caller.check_volume(named)
        key = (url, after, limit or PAGE_MAX)
        known = self._pages.get(key)
        if known and not refresh and known[0] > self._clock():
            return known[1]
        asked_at = self._clock()
        page = await self._ask(*key)
        self._forget(key)
        self._pages[key] = (asked_at + self._cluster.settings.list_ttl_s, page)
        self._line_count += _lines_in(page)
        while self._line_count > LINES_REMEMBERED_MAX:
            self._forget(next(iter(self._pages)))
        return page

    def _forget(self, key: tuple[str, str, int]) -> None:
        _, page = self._pages.pop(key, (0.0, None))
        self._line_count -= _lines_in(page) if page else 0

    async def all_below(self, url: str, *, limit: int) -> list[str]:
        """Return the urls of all objects below ``url``.

        Raises:
            InvalidRequest: There are more than ``limit``.
        """
        found: list[str] = []
        after = ""
        while True:
            page = await self.page(url, after=after, limit=PAGE_MAX)
            found += [info.url for info in page.objects]
            if len(found) > limit:
                raise InvalidRequest(f"more than {limit} objects below {url}; name fewer")
            if not (after := page.next_token):
                return found

    async def _ask(self, url: str, after: str, limit: int) -> Page:
        location = self._cluster.volumes.resolve_prefix(url)
        origin = self._origins.get(location.volume)
        asked_at = self._clock()
        found = await origin.list(location.path, after=after, limit=limit)
        self._versions.learn(location.volume, found.objects, asked_at=asked_at)
        return Page(
            tuple(
                ObjectInfo(
                    url=penstock_url(location.volume.name, listed.path),
                    version=listed.version,
                    size=listed.size,
                    modified=datetime.fromtimestamp(listed.modified_us / 1e6, tz=UTC)
                    if listed.modified_us
                    else None,
                )
                for listed in found.objects
            ),
            found.next_after,
        )

"""Catalogued volumes: the catalog says which files there are, and origins have their bytes.

Responsible for: the same interface as of any origin, over the catalog and the volume's origins.
Not responsible for: asking the catalog (`catalog_lookups`), reading any one origin.

The bytes of a version are at its source and, in a mirror's region, perhaps in copies: these are
asked first. Wherever they come from they are the same bytes of the same object.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

from penstock import tracing
from penstock.catalog_file import CatalogFile, LocatedFile
from penstock.deadline import Deadline
from penstock.errors import (
    CatalogUnavailable,
    NotPermitted,
    ObjectChanged,
    ObjectNotFound,
    PenstockError,
)
from penstock.object_info import OriginSource
from penstock.volumes import Volume, penstock_url
from penstock_node.origin.interface import (
    Buffer,
    ListedObject,
    ListPage,
    Origin,
    OriginCounters,
    OriginMeta,
    exists_already,
)
from penstock_node.origin.whereabouts import Whereabouts

COPY_TIMEOUT_S = 5.0
"""For a part of a copy, whose store is near; then the source is asked."""


class Catalog(Protocol):
    """What is asked of the catalog. Every call raises `CatalogUnavailable` without an answer."""

    async def stat(self, volume: str, path: str, *, version: str = "") -> LocatedFile | None:
        """Return a file as it is, or in a version that it had; None: there is none."""

    async def page(
        self, volume: str, prefix: str, *, after: str, limit: int
    ) -> tuple[list[CatalogFile], str]:
        """Return files below a prefix, and behind which path the next ones are; empty: none."""

    async def check_writable(self) -> None:
        """Raise `NotPermitted` where the catalog is a mirror."""

    async def look(self, volume: str, path: str, *, source_url: str = "") -> CatalogFile | None:
        """Have a file's source asked, where it was or where it is now, and return what is noted."""


class CataloguedOrigin:
    """An `Origin` over the catalog and a volume's origins. On one event loop."""

    def __init__(
        self,
        volume: Volume,
        catalog: Catalog,
        origins: Sequence[Origin],
        *,
        counters: OriginCounters,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask nothing yet.

        Args:
            volume: A catalogued one.
            catalog: Says which files it has.
            origins: One for each of ``volume.origins``.
            counters: What all of them count together.
            clock: Monotonic, in seconds.
        """
        self._volume, self._catalog = volume, catalog
        # The innermost first, if one lies in another.
        places = zip(volume.origins, origins, strict=True)
        self._origins = sorted(places, key=lambda each: len(each[0].url), reverse=True)
        self._counters = counters
        self._whereabouts = Whereabouts(clock)
        self._asking: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<CataloguedOrigin {self._volume.name} over {len(self._origins)}>"

    @property
    def places(self) -> Sequence[Volume]:
        """The volume's origins, in their order."""
        return self._volume.origins

    @property
    def counters(self) -> OriginCounters:
        """See `Origin`."""
        return self._counters

    async def head(self, path: str, *, deadline: Deadline | None = None) -> OriginMeta:
        """See `Origin`: what the catalog says; no store is asked."""
        located = await self._catalog.stat(self._volume.name, path)
        if located is None:
            raise self._absent(path)
        self._whereabouts.remember(located)
        file = located.file
        return OriginMeta(file.version, file.size, file.modified_us, self._sources(located))

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
        """See `Origin`: from a copy of this version, else from its source."""
        located, part = await self._located(path, version), (size, start, stop)
        for copy in self._whereabouts.copies(located):
            try:
                return await self._read(copy.url, copy.version, *part, _sooner(deadline))
            except PenstockError as error:
                self._whereabouts.pass_over(copy, error)
        return await self._read_source(located.file, *part, deadline)

    async def _read_source(
        self, file: CatalogFile, size: int, start: int, stop: int, deadline: Deadline | None
    ) -> Buffer:
        part = (size, start, stop, deadline)
        try:
            return await self._read(file.source_url, file.source_version, *part)
        except (ObjectChanged, ObjectNotFound) as error:
            now = await self._look(file)
            if now is None or now.version != file.version or now == file:
                raise ObjectChanged(
                    f"{self._url(file.path)}: version {file.version} is gone from its source; "
                    "open it again"
                ) from error
            file = now  # The same bytes, elsewhere.
        return await self._read(file.source_url, file.source_version, *part)

    async def _read(
        self, url: str, version: str, size: int, start: int, stop: int, deadline: Deadline | None
    ) -> Buffer:
        place, origin, within = self.place_of(url)
        with tracing.span("source", place=place.url):
            return await origin.read(within, version, size, start, stop, deadline=deadline)

    async def _look(self, file: CatalogFile) -> CatalogFile | None:
        """Have it noted that the source has another version, and return what there is now."""
        self._whereabouts.forget(file.path, file.version)
        try:
            return await self._catalog.look(self._volume.name, file.path)
        except CatalogUnavailable:
            return None  # The next read that finds it tells it.

    async def list(
        self, prefix: str, *, after: str = "", limit: int, deadline: Deadline | None = None
    ) -> ListPage:
        """See `Origin`: what the catalog says; no store is asked."""
        files, next_after = await self._catalog.page(
            self._volume.name, prefix.strip("/"), after=after, limit=limit
        )
        listed = (
            ListedObject(file.path, file.size, file.modified_us, file.version) for file in files
        )
        return ListPage(tuple(listed), next_after)

    async def put(
        self, path: str, parts: AsyncIterator[bytes], *, size: int | None, if_absent: bool
    ) -> str:
        """See `Origin`: where the file lies, or in the first of the origins; then it is noted."""
        await self._catalog.check_writable()
        known = await self._catalog.stat(self._volume.name, path)
        if known is not None and if_absent:
            raise exists_already(self._volume, path)
        url = known.file.source_url if known else self._volume.origins[0].url + path
        _, origin, within = self.place_of(url)
        await origin.put(within, parts, size=size, if_absent=if_absent)
        try:
            noted = await self._catalog.look(self._volume.name, path, source_url=url)
        except CatalogUnavailable as error:
            raise CatalogUnavailable(
                f"{url} is written, but the catalog does not know of it; put it again, or import "
                f"it: {error}"
            ) from error
        return noted.version if noted else ""

    async def _located(self, path: str, version: str) -> LocatedFile:
        known = self._whereabouts.find(path, version)
        if known is not None:
            if not self._whereabouts.is_fresh(known):
                self._ask_again(known)
            return known
        told = await self._catalog.stat(self._volume.name, path, version=version)
        if told is None:
            raise ObjectChanged(
                f"{self._url(path)}: the catalog has no version {version}; open it again"
            )
        self._whereabouts.remember(told)
        return told

    def _ask_again(self, known: LocatedFile) -> None:
        """Have it found out whether there are copies by now; nobody waits for that."""
        self._whereabouts.remember(known)  # So that it is asked once for a while.
        asking = asyncio.create_task(self._ask_for_copies(known.file))
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)

    async def _ask_for_copies(self, file: CatalogFile) -> None:
        with contextlib.suppress(PenstockError):
            told = await self._catalog.stat(self._volume.name, file.path, version=file.version)
            if told is not None:
                self._whereabouts.remember(told)

    def nearer_than(self, url: str) -> Sequence[tuple[Volume, Origin]]:
        """Return which of the volume's origins stand before the one that a url lies in.

        Raises:
            NotPermitted: It lies in none.
        """
        place, _, _ = self.place_of(url)
        urls = [each.url for each in self._volume.origins]
        before = urls[: urls.index(place.url)]
        by_url = {each.url: (each, origin) for each, origin in self._origins}
        return [by_url[each] for each in before]

    def place_of(self, url: str) -> tuple[Volume, Origin, str]:
        """Return which of the volume's origins a url lies in, and the path within that.

        Raises:
            NotPermitted: In none.
        """
        for place, origin in self._origins:
            if url.startswith(place.url):
                return place, origin, url.removeprefix(place.url)
        known = ", ".join(place.url for place, _ in self._origins)
        raise NotPermitted(
            f"{url} lies in none of the origins of volume {self._volume.name!r} ({known}); add its "
            f"place with: penstock volume add {self._volume.name} --catalogued --origin … --replace"
        )

    def _sources(self, located: LocatedFile) -> tuple[OriginSource, ...]:
        file = located.file
        place, _, _ = self.place_of(file.source_url)
        source = OriginSource(file.source_url, dict(place.options), file.source_version)
        copies = [
            OriginSource(copy.url, dict(place.options), copy.version)
            for copy in located.copies
            for place, _ in self._origins
            if copy.url.startswith(place.url)
        ]
        return (*copies, source)

    def _absent(self, path: str) -> ObjectNotFound:
        return ObjectNotFound(f"{self._url(path)}: the catalog has no such file")

    def _url(self, path: str) -> str:
        return penstock_url(self._volume.name, path)

    def close(self) -> None:
        """See `Origin`."""
        for asking in self._asking:
            asking.cancel()
        for _, origin in self._origins:
            origin.close()


class NoCatalog:
    """Where nobody can say which files there are."""

    async def stat(self, volume: str, path: str, *, version: str = "") -> LocatedFile | None:
        """Refuse."""
        raise _nobody(volume)

    async def page(
        self, volume: str, prefix: str, *, after: str, limit: int
    ) -> tuple[list[CatalogFile], str]:
        """Refuse."""
        raise _nobody(volume)

    async def check_writable(self) -> None:
        """Let the next call refuse."""

    async def look(self, volume: str, path: str, *, source_url: str = "") -> CatalogFile | None:
        """Refuse."""
        raise _nobody(volume)


def _sooner(deadline: Deadline | None) -> Deadline:
    soon = Deadline.after(COPY_TIMEOUT_S)
    return soon if deadline is None or soon.at < deadline.at else deadline


def _nobody(volume: str) -> CatalogUnavailable:
    return CatalogUnavailable(f"volume {volume!r} is catalogued, and no catalog is asked here")

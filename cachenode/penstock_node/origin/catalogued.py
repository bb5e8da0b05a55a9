"""Catalogued volumes: the catalog says which files there are, and origins have their bytes.

Responsible for: the same interface as of any origin, over the catalog and the volume's origins.
Not responsible for: asking the catalog (`catalog_lookups`), reading any one origin.

Which origin has the bytes of a version, and what it calls that version, never changes: it is
remembered, so that chunks are read while the catalog is away.
"""

from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from penstock.catalog_file import CatalogFile
from penstock.deadline import Deadline
from penstock.errors import (
    CatalogUnavailable,
    NotPermitted,
    ObjectChanged,
    ObjectNotFound,
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

REMEMBERED_MAX = 100_000


class Catalog(Protocol):
    """What is asked of the catalog. Every call raises `CatalogUnavailable` without an answer."""

    async def stat(self, volume: str, path: str, *, version: str = "") -> CatalogFile | None:
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
    ) -> None:
        """Ask nothing yet.

        Args:
            volume: A catalogued one.
            catalog: Says which files it has.
            origins: One for each of ``volume.origins``.
            counters: What all of them count together.
        """
        self._volume, self._catalog = volume, catalog
        # The innermost first, if one lies in another.
        places = zip(volume.origins, origins, strict=True)
        self._origins = sorted(places, key=lambda each: len(each[0].url), reverse=True)
        self._counters = counters
        self._versions: OrderedDict[tuple[str, str], CatalogFile] = OrderedDict()

    def __repr__(self) -> str:
        return f"<CataloguedOrigin {self._volume.name} over {len(self._origins)}>"

    @property
    def counters(self) -> OriginCounters:
        """See `Origin`."""
        return self._counters

    async def head(self, path: str, *, deadline: Deadline | None = None) -> OriginMeta:
        """See `Origin`: what the catalog says; no store is asked."""
        file = await self._catalog.stat(self._volume.name, path)
        if file is None:
            raise self._absent(path)
        self._remember(file)
        return OriginMeta(file.version, file.size, file.modified_us, (self._source(file),))

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
        """See `Origin`: from the one of the volume's origins that has this version."""
        file, part = await self._version(path, version), (size, start, stop, deadline)
        try:
            return await self._read(file, *part)
        except (ObjectChanged, ObjectNotFound) as error:
            now = await self._look(file)
            if now is None or now.version != version or now == file:
                raise ObjectChanged(
                    f"{self._url(path)}: version {version} is gone from its source; open it again"
                ) from error
            file = now  # The same bytes, elsewhere.
        return await self._read(file, *part)

    async def _read(
        self, file: CatalogFile, size: int, start: int, stop: int, deadline: Deadline | None
    ) -> Buffer:
        _, origin, within = self.place_of(file.source_url)
        return await origin.read(within, file.source_version, size, start, stop, deadline=deadline)

    async def _look(self, file: CatalogFile) -> CatalogFile | None:
        """Have it noted that the source has another version, and return what there is now."""
        self._versions.pop((file.path, file.version), None)
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
        url = known.source_url if known else self._volume.origins[0].url + path
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

    async def _version(self, path: str, version: str) -> CatalogFile:
        known = self._versions.get((path, version))
        if known is None:
            known = await self._catalog.stat(self._volume.name, path, version=version)
            if known is None:
                raise ObjectChanged(
                    f"{self._url(path)}: the catalog has no version {version}; open it again"
                )
            self._remember(known)
        return known

    def _remember(self, file: CatalogFile) -> None:
        self._versions[file.path, file.version] = file
        self._versions.move_to_end((file.path, file.version))
        if len(self._versions) > REMEMBERED_MAX:
            self._versions.popitem(last=False)

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

    def _source(self, file: CatalogFile) -> OriginSource:
        place, _, _ = self.place_of(file.source_url)
        return OriginSource(file.source_url, dict(place.options), file.source_version)

    def _absent(self, path: str) -> ObjectNotFound:
        return ObjectNotFound(f"{self._url(path)}: the catalog has no such file")

    def _url(self, path: str) -> str:
        return penstock_url(self._volume.name, path)

    def close(self) -> None:
        """See `Origin`."""
        for _, origin in self._origins:
            origin.close()


class NoCatalog:
    """Where nobody can say which files there are."""

    async def stat(self, volume: str, path: str, *, version: str = "") -> CatalogFile | None:
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


def _nobody(volume: str) -> CatalogUnavailable:
    return CatalogUnavailable(f"volume {volume!r} is catalogued, and no catalog is asked here")

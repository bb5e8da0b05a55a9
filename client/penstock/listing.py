"""Listing what is below a url, or directly in a directory, a page at a time."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Protocol, TypeAlias

from penstock.core import Core
from penstock.object_info import DirectoryInfo, ObjectInfo
from penstock.rpc import LIST
from penstock.v1 import cache_pb2
from penstock.wire import listed_from_proto

LIST_PAGE = 999
"""One less than S3 tells at once: an origin is asked for one more, which tells whether there are
more, and so answers in one request."""
LIST_TIMEOUT_S = 60.0
"""For a page of a directory whose own directories are large: each costs the origin a request."""

DirectoryEntry: TypeAlias = ObjectInfo | DirectoryInfo


class _Cache(Protocol):
    """What is needed of a `Cache`."""

    def _open_core(self) -> Core: ...

    def list_pages(
        self, prefix: str, *, refresh: bool = False
    ) -> Iterator[Sequence[ObjectInfo]]: ...

    def directory_pages(
        self, url: str, *, refresh: bool = False
    ) -> Iterator[Sequence[DirectoryEntry]]: ...


class ListingCalls:
    """The part of a `Cache` that lists."""

    def list(self: _Cache, prefix: str, *, refresh: bool = False) -> Iterator[ObjectInfo]:
        """Tell the objects below ``prefix``, whole path segments, in the order of their names.

        Args:
            prefix: ``penstock://volume/`` and a path, or an origin url inside a volume.
            refresh: Ask the origin even if a recent answer is known.
        """
        return itertools.chain.from_iterable(self.list_pages(prefix, refresh=refresh))

    def list_pages(
        self: _Cache, prefix: str, *, refresh: bool = False
    ) -> Iterator[Sequence[ObjectInfo]]:
        """As `list`, a page of up to 1,000 at a time: one request each."""
        return list_pages(self._open_core(), prefix, refresh=refresh)

    def list_directory(
        self: _Cache, url: str, *, refresh: bool = False
    ) -> Iterator[DirectoryEntry]:
        """Tell the objects and the directories that lie directly in a directory, in their order.

        A directory is there as long as something lies below it: an empty one tells nothing. An
        object may have the name of a directory. What lies in ``penstock://`` are the volumes.

        Args:
            url: ``penstock://volume/path``, with or without a slash at its end, or an origin url
                inside a volume.
            refresh: Ask the origin even if a recent answer is known.
        """
        return itertools.chain.from_iterable(self.directory_pages(url, refresh=refresh))

    def directory_pages(
        self: _Cache, url: str, *, refresh: bool = False
    ) -> Iterator[Sequence[DirectoryEntry]]:
        """As `list_directory`, a page of up to 1,000 at a time."""
        return directory_pages(self._open_core(), url, refresh=refresh)


def list_pages(core: Core, prefix: str, *, refresh: bool = False) -> Iterator[Sequence[ObjectInfo]]:
    """Tell the objects below ``prefix``, up to 1,000 at a time: one request each."""
    request = cache_pb2.ListRequest(url=prefix, page_size=LIST_PAGE, refresh=refresh)
    for page in _pages(core, request):
        yield [listed_from_proto(listed) for listed in page.objects]


def directory_pages(
    core: Core, url: str, *, refresh: bool = False
) -> Iterator[Sequence[DirectoryEntry]]:
    """Tell what lies directly in the directory ``url``, up to 1,000 at a time."""
    request = cache_pb2.ListRequest(url=url, page_size=LIST_PAGE, one_level=True, refresh=refresh)
    for page in _pages(core, request):
        entries: list[DirectoryEntry] = [listed_from_proto(listed) for listed in page.objects]
        entries += [DirectoryInfo(directory) for directory in page.directories]
        yield sorted(entries, key=lambda entry: entry.url)


def _pages(core: Core, request: cache_pb2.ListRequest) -> Iterator[cache_pb2.ListResponse]:
    while True:
        page = core.nodes.call(LIST, request, timeout_s=LIST_TIMEOUT_S)
        core.opens.ahead.listed([listed.url for listed in page.objects])
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token

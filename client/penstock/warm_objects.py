"""Which objects a warm-up is about: urls and prefixes, opened a few at a time.

Responsible for: telling objects from prefixes, listing, opening; bounded memory however many
there are.
Not responsible for: their chunks (`warming`).
"""

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from penstock.errors import ObjectNotFound, PenstockError
from penstock.object_info import ObjectInfo
from penstock.opens import Handle, Opens

OPENED_AT_ONCE = 64
"""In one request: each may cost the origin one."""

ListPages = Callable[[str], Iterator[Sequence[ObjectInfo]]]


@dataclass(frozen=True, slots=True)
class NotOpened:
    """A url that leads to nothing, and why."""

    url: str
    error: PenstockError


class WarmObjects:
    """The objects at urls and below prefixes, in order. Goes through them once."""

    def __init__(self, opens: Opens, list_pages: ListPages, *, stop: threading.Event) -> None:
        """Put the parts together.

        Args:
            opens: Opens objects.
            list_pages: Lists what is below a url.
            stop: Set to find no more.
        """
        self._opens = opens
        self._list_pages = list_pages
        self._stop = stop

    def find(self, urls: Iterable[str]) -> Iterator[Handle | NotOpened]:
        """Tell the objects at ``urls``; one that ends in a slash is everything below it.

        So is one without, if there is no such object and there are some below it.
        """
        for is_prefix, group in itertools.groupby(urls, key=lambda url: url.endswith("/")):
            if is_prefix:
                for url in group:
                    yield from self._below(url)
            else:
                yield from self._at(group)
            if self._stop.is_set():  # Else the rest of the group would be gone through.
                return

    def _at(self, urls: Iterable[str]) -> Iterator[Handle | NotOpened]:
        for found in self._opened(urls):
            if isinstance(found, NotOpened) and isinstance(found.error, ObjectNotFound):
                yield from self._below(found.url, otherwise=found)
            else:
                yield found

    def _below(
        self, prefix: str, *, otherwise: NotOpened | None = None
    ) -> Iterator[Handle | NotOpened]:
        is_empty = True
        try:
            for page in self._list_pages(prefix):
                found = [info.url for info in page if not _is_directory(info)]
                is_empty = is_empty and not found
                yield from self._opened(found)
        except PenstockError as error:
            yield otherwise or NotOpened(prefix, error)
            return
        if is_empty:
            nothing = ObjectNotFound(f"there is no object below {prefix}")
            yield otherwise or NotOpened(prefix, nothing)

    def _opened(self, urls: Iterable[str]) -> Iterator[Handle | NotOpened]:
        remaining = iter(urls)
        while not self._stop.is_set() and (some := _take(remaining)):
            try:
                results = self._opens.open_many(some)
            except PenstockError as error:
                results = [error] * len(some)
            for url, result in zip(some, results, strict=True):
                yield NotOpened(url, result) if isinstance(result, PenstockError) else result


def _take(urls: Iterator[str]) -> list[str]:
    return list(itertools.islice(urls, OPENED_AT_ONCE))


def _is_directory(info: ObjectInfo) -> bool:
    """Tell whether it is what some programs leave in a bucket to stand for a directory."""
    return info.size == 0 and info.url.endswith("/")

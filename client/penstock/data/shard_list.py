"""Which shards a dataset has: urls and prefixes to a list that stays as it is.

Responsible for: listing prefixes, telling shards from other objects, and what identifies a list.
Not responsible for: opening shards (`sources`), who reads which (`readers`).
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import xxhash

from penstock.data.formats import FORMATS, OpenShard, check_format, format_of, open_shard
from penstock.data.sources import CacheSource, LocalSource, Source, open_version
from penstock.errors import InvalidRequest, ObjectNotFound

SHARDS_MAX = 1_000_000
SHOWN_MAX = 3
"""Of other objects, where no shard is found."""

Urls = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


@dataclass(frozen=True, slots=True)
class ShardList:
    """The shards of a dataset, in their order. It never changes, and pickles small."""

    source: Source
    format: str
    fields: tuple[str, ...] | None
    urls: tuple[str, ...]
    versions: tuple[str, ...]
    """As the listing told; empty where it did not, or there was none."""

    def __len__(self) -> int:
        return len(self.urls)

    def open(self, at: int, *, version: str = "") -> tuple[OpenShard, str]:
        """Open the shard of a number; return it and its version.

        Args:
            at: From 0.
            version: Which it must have, where it has been open before.

        Raises:
            ObjectChanged: It was overwritten since the list was made, or since then.
            ObjectNotFound: It is gone.
            InvalidRequest: It is not of the format.
        """
        file = open_version(self.source, self.urls[at], version or self.versions[at])
        return open_shard(file, self.format, self.fields), file.version

    def digest(self) -> str:
        """Return what only a list of the same shards has."""
        told = xxhash.xxh3_64()
        for url, version in zip(self.urls, self.versions, strict=True):
            told.update(f"{url}\0{version}\0".encode())
        return told.hexdigest()


def find_shards(
    urls: Urls,
    *,
    address: str | None,
    kind: str | None,
    fields: Iterable[str] | None,
) -> ShardList:
    """Return the shards at some urls.

    Args:
        urls: Shards, and prefixes: what lies below them, by name. With a scheme, as
            ``penstock://``, they are in the cluster, else they are paths.
        address: Of the cluster.
        kind: Their format; None: what their names say.
        fields: Of each sample what is wanted; None: all.

    Raises:
        ObjectNotFound: There is no shard.
        InvalidRequest: Shards of two formats, or in two places.
    """
    check_format(kind)
    several = [urls] if isinstance(urls, str | os.PathLike) else urls
    given = [os.fspath(url) for url in several]
    source = _source(given, address)
    wanted = (kind,) if kind else FORMATS
    found, others = list[tuple[str, str]](), list[tuple[str, str]]()
    for url in given:
        for each in _below(source, url):
            (found if format_of(each[0]) in wanted else others).append(each)
        _check_count(len(found) + len(others))
    if not found:
        raise ObjectNotFound(_nothing(given, [url for url, _ in others], wanted))
    return ShardList(
        source,
        kind or _only_format(found),
        None if fields is None else tuple(fields),
        tuple(url for url, _ in found),
        tuple(version for _, version in found),
    )


def _source(urls: list[str], address: str | None) -> Source:
    are_remote = {"://" in url for url in urls}
    if len(are_remote) > 1:
        raise InvalidRequest(
            "some shards have a scheme, as penstock://, and some are paths: make a dataset of each"
        )
    return LocalSource() if are_remote == {False} else CacheSource(address)


def _below(source: Source, url: str) -> Iterator[tuple[str, str]]:
    return source.list(url) if format_of(url) is None else iter([(url, "")])


def _check_count(count: int) -> None:
    if count > SHARDS_MAX:
        raise InvalidRequest(f"more than {SHARDS_MAX} objects are listed: name fewer prefixes")


def _nothing(given: list[str], others: list[str], wanted: Iterable[str]) -> str:
    where = ", ".join(given[:SHOWN_MAX]) or "an empty list of urls"
    told = "nothing lies below; a prefix is whole folders"
    if others:
        told = f"there are {len(others)} others, as {', '.join(others[:SHOWN_MAX])}"
    names = " or ".join(f".{each}" for each in wanted)
    return f"no shards in {where}: want names that end in {names}; {told}"


def _only_format(found: list[tuple[str, str]]) -> str:
    formats = {name: url for url, _ in found if (name := format_of(url))}
    if len(formats) != 1:
        told = ", ".join(formats[name] for name in sorted(formats))
        raise InvalidRequest(f"shards of several formats, as {told}: choose one with kind=")
    return next(iter(formats))

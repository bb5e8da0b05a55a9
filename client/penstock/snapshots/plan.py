"""What a snapshot consists of: the objects below a prefix, as paths that are safe to write.

Responsible for: telling an object from a prefix, paths below the prefix, and refusing names that
are no paths of a file system, or would lead out of the directory.
Not responsible for: where files lie (`places`), bringing them (`bringing`).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from penstock.errors import InvalidRequest, ObjectNotFound
from penstock.object_info import ObjectInfo
from penstock.snapshots.patterns import Selection
from penstock.snapshots.source import Source

Kind: TypeAlias = Literal["auto", "file", "tree"]

STATE = ".penstock"
"""Where a snapshot keeps what it knows of its files: no object may lie there."""
FILES_MAX = 1_000_000
NAME_BYTES_MAX = 255
"""Of one segment of a path, on every file system that is in use."""
SHOWN_MAX = 3


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """One file of a snapshot."""

    path: str
    """Below the snapshot's directory."""
    url: str
    version: str
    """Empty where the listing does not tell it."""
    size: int
    """In bytes."""
    is_wanted: bool = True
    """Whether the patterns select it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be brought."""

    url: str
    is_tree: bool
    files: tuple[PlannedFile, ...]
    """Those that patterns leave out too: they are part of what a tree is."""

    @property
    def wanted(self) -> list[PlannedFile]:
        """The files to be brought."""
        return [file for file in self.files if file.is_wanted]


def make_plan(
    source: Source, url: str, *, kind: Kind, selection: Selection, name: str | None, refresh: bool
) -> Plan:
    """Return what lies at ``url``.

    Args:
        source: The cache.
        url: Of an object, or a prefix of whole path segments.
        kind: What is expected there.
        selection: Which files of a tree are wanted.
        name: What a single object is called here; by default as there.
        refresh: Ask the origin for a single object.

    Raises:
        ObjectNotFound: Nothing is there.
        InvalidRequest: It is not of the kind, or a name is no path of a file here.
        PenstockError: As `Cache.list` and `Cache.stat`.
    """
    if kind == "file":
        return _plan_file(source, url, name, refresh=refresh)
    files = tuple(_listed(source, url, selection))
    if not files:
        return _plan_alone(source, url, kind=kind, name=name, refresh=refresh)
    check_paths([file.path for file in files if file.is_wanted])
    if not any(file.is_wanted for file in files):
        raise InvalidRequest(
            f"none of the {len(files)} files below {url} matches the patterns; "
            f"there is for example {files[0].path!r}"
        )
    return Plan(url, is_tree=True, files=files)


def _plan_alone(source: Source, url: str, *, kind: Kind, name: str | None, refresh: bool) -> Plan:
    """Plan for what nothing lies below: an object, or nothing at all."""
    nothing = ObjectNotFound(f"there is nothing at {url}, and nothing below it")
    if url.endswith("/") or not _last_segment(url):
        raise nothing
    try:
        plan = _plan_file(source, url, name, refresh=refresh)
    except ObjectNotFound:
        raise nothing from None
    if kind == "tree":
        raise InvalidRequest(f"{url} is an object and no directory: get it without -r")
    return plan


def _plan_file(source: Source, url: str, name: str | None, *, refresh: bool) -> Plan:
    try:
        if url.endswith("/"):
            raise ObjectNotFound(f"{url} names a directory")
        opened = source.open(url, refresh=refresh).opened
    except ObjectNotFound:
        if any(source.list_pages(url.rstrip("/"))):
            raise InvalidRequest(
                f"{url} is a directory and no object: get all that is in it with -r"
            ) from None
        raise
    path = name or _last_segment(url)
    check_paths([path])
    file = PlannedFile(path, url, opened.id.version, opened.id.size)
    return Plan(url, is_tree=False, files=(file,))


def _last_segment(url: str) -> str:
    return url.partition("://")[2].partition("/")[2].rpartition("/")[2]


def _listed(source: Source, url: str, selection: Selection) -> Iterator[PlannedFile]:
    below: Below | None = None
    count = 0
    for page in source.list_pages(url):
        count += len(page)
        if count > FILES_MAX:
            raise InvalidRequest(f"over {FILES_MAX:,} objects lie below {url}: name a longer one")
        for info in page:
            below = below or Below.of(source, url, info)
            path = below.path_of(info)
            yield PlannedFile(path, info.url, info.version, info.size, path in selection)


@dataclass(frozen=True, slots=True)
class Below:
    """The common beginning of the listed urls, which the paths come after."""

    prefix: str

    @classmethod
    def of(cls, source: Source, url: str, first: ObjectInfo) -> "Below":
        """Return it for a listing below ``url``, by its first object.

        A listing tells ``penstock://volume/path``; for an origin's url, the object's key tells
        how much of it is the volume's own.
        """
        given = url.rstrip("/") + "/"
        if given.startswith("penstock://"):
            return cls(given)
        volume, _, path = first.url.removeprefix("penstock://").partition("/")
        volume_place = source.open(first.url).opened.id.key.removesuffix(path)
        segments = given.partition("://")[2].split("/")
        for count in range(len(segments) - 1, 0, -1):
            head, rest = segments[:count], segments[count:]
            if volume_place.endswith(("//" + "/".join(head) + "/", "/" + "/".join(head) + "/")):
                return cls(f"penstock://{volume}/" + "/".join(rest))
        raise InvalidRequest(f"write penstock://{volume}/PATH in place of {url}")

    def path_of(self, info: ObjectInfo) -> str:
        """Return an object's path below it.

        Raises:
            InvalidRequest: It does not lie below.
        """
        if not info.url.startswith(self.prefix):
            raise InvalidRequest(f"{info.url!r} was listed below {self.prefix!r} and is not there")
        return info.url[len(self.prefix) :]


def check_paths(paths: Sequence[str]) -> None:
    """Refuse what cannot be files of one directory, naming some of it.

    Raises:
        InvalidRequest: A path leads out of it, cannot be written, or is a directory too.
    """
    _refuse(
        [path for path in paths if not _is_safe(path)],
        "cannot be files below a directory (empty, '.' or '..' segments, over "
        f"{NAME_BYTES_MAX} bytes in one, or below {STATE!r})",
    )
    directories = set(_parents(paths))
    _refuse(
        [path for path in paths if path in directories],
        "are objects and directories at once, which no file system has",
    )


def _refuse(paths: list[str], why: str) -> None:
    if paths:
        shown = ", ".join(map(repr, paths[:SHOWN_MAX]))
        more = f" and {len(paths) - SHOWN_MAX} more" if len(paths) > SHOWN_MAX else ""
        raise InvalidRequest(f"{shown}{more}: {why}; leave them out with ignore_patterns")


def _is_safe(path: str) -> bool:
    segments = path.split("/")
    return segments[0] != STATE and all(map(_is_name, segments))


def _is_name(segment: str) -> bool:
    try:
        size = len(segment.encode())
    except UnicodeEncodeError:
        return False
    return segment not in ("", ".", "..") and "\0" not in segment and size <= NAME_BYTES_MAX


def _parents(paths: Iterable[str]) -> Iterator[str]:
    for path in paths:
        while (cut := path.rfind("/")) > 0:
            path = path[:cut]
            yield path

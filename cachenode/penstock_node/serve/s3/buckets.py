"""Buckets: which volumes a client's bucket means, and where a key lies in them.

Responsible for: a bucket is a volume's name, else the bucket of one or several volumes' origins,
of which only what lies in those volumes is there. A name that is both is the volume.
Not responsible for: reading (`objects`), listing (`listing`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from penstock.errors import InvalidRequest
from penstock.origin_urls import PATH_BYTES_MAX, check_path
from penstock.volumes import Location, Volume, Volumes, penstock_url
from penstock_node.serve.s3.access import Caller
from penstock_node.serve.s3.errors import S3Error, access_denied, no_such_bucket, no_such_key

BUCKET_KINDS = ("s3", "gcs")
"""Kinds of origins that have buckets."""

IN_HOST_HINT = (
    "write /BUCKET/KEY (path style), or for clients that put the bucket into the host's name set "
    "s3_domain of this node to what follows the bucket there"
)


@dataclass(frozen=True, slots=True)
class Shelf:
    """A part of a bucket: the keys that begin with ``prefix`` lie in ``volume``."""

    volume: Volume
    prefix: str
    """Empty, or with a slash at its end."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket as one caller sees it: at least one shelf."""

    name: str
    shelves: Sequence[Shelf]

    def locate(self, key: str) -> Location:
        """Return where a key lies.

        Raises:
            S3Error: AccessDenied: in no volume. NoSuchKey, KeyTooLongError: no origin that is
                read here could have it.
            InvalidRequest: In two volumes alike.
        """
        holding = [shelf for shelf in self.shelves if key.startswith(shelf.prefix)]
        if not holding:
            raise access_denied(f"{key!r} lies in no volume: {self._what_there_is}")
        longest = max(len(shelf.prefix) for shelf in holding)
        nearest = [shelf for shelf in holding if len(shelf.prefix) == longest]
        _refuse_alike(nearest)
        path = key.removeprefix(nearest[0].prefix)
        _check_key(path)
        return Location(nearest[0].volume, path)

    def outermost(self, prefix: str) -> list[Shelf]:
        """Return the shelves that have keys below ``prefix``, none in another, in their order.

        Raises:
            S3Error: AccessDenied: no volume has any.
            InvalidRequest: Two volumes have the same.
        """
        found: list[Shelf] = []
        for shelf in sorted(self.shelves, key=lambda shelf: shelf.prefix):
            _refuse_alike([one for one in self.shelves if one.prefix == shelf.prefix])
            overlaps = shelf.prefix.startswith(prefix) or prefix.startswith(shelf.prefix)
            if overlaps and not (found and shelf.prefix.startswith(found[-1].prefix)):
                found.append(shelf)
        if not found:
            raise access_denied(f"no volume has keys below {prefix!r}: {self._what_there_is}")
        return found

    @property
    def _what_there_is(self) -> str:
        places = ", ".join(repr(shelf.prefix) for shelf in self.shelves)
        return (
            f"of the bucket {self.name!r} there is {places}; "
            "an operator adds more with: penstock volume add"
        )


def bucket_names(volumes: Volumes, caller: Caller) -> list[str]:
    """Return the buckets that a caller is told of: the volumes, not their origins' again."""
    return [volume.name for volume in volumes if caller.may_read(volume.name)]


def find_bucket(volumes: Volumes, name: str, caller: Caller) -> Bucket:
    """Return the bucket called ``name``.

    Raises:
        S3Error: NoSuchBucket, or AccessDenied: the caller may read nothing of it.
    """
    if name in volumes:
        shelves = [Shelf(volumes.get(name), "")]
    else:
        shelves = [_shelf_of(volume) for volume in volumes if _is_bucket_of(name, volume)]
    if not shelves:
        raise no_such_bucket(
            f"no volume is called {name!r}, and none's origin is that bucket; an operator adds "
            f"one with: penstock volume add; {IN_HOST_HINT}"
        )
    return Bucket(name, _permitted(shelves, caller))


def _permitted(shelves: Iterable[Shelf], caller: Caller) -> list[Shelf]:
    permitted = [shelf for shelf in shelves if caller.may_read(shelf.volume.name)]
    if not permitted:
        raise access_denied(
            f"the key {caller.name!r} may not read that; add the volume to the volumes of "
            f"[s3_keys.{caller.name}]"
        )
    return permitted


def _is_bucket_of(name: str, volume: Volume) -> bool:
    return volume.kind in BUCKET_KINDS and volume.place == name


def _shelf_of(volume: Volume) -> Shelf:
    return Shelf(volume, f"{volume.prefix}/" if volume.prefix else "")


def _refuse_alike(shelves: Sequence[Shelf]) -> None:
    if len(shelves) > 1:
        names = " or ".join(penstock_url(shelf.volume.name, "") for shelf in shelves)
        raise InvalidRequest(f"these volumes are alike: name one as the bucket instead: {names}")


def _check_key(path: str) -> None:
    if len(path.encode()) > PATH_BYTES_MAX:
        raise S3Error(
            HTTPStatus.BAD_REQUEST, "KeyTooLongError", f"a key has at most {PATH_BYTES_MAX} bytes"
        )
    try:
        check_path(path)
    except InvalidRequest as error:
        # Clients look for "folder/" before they list it: that is no error of theirs.
        raise no_such_key(f"no such key is read from origins: {error}") from None

"""What object stores write when something changes: which keys of which buckets their bodies name.

Responsible for: the formats, of S3 (AWS, MinIO, and others), within an envelope of SNS too, and of
SeaweedFS's filer.
Not responsible for: whether any of it is true. Nothing but names is taken from an event.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import unquote_plus

from penstock.errors import InvalidRequest
from penstock.json_text import read_json

_WANTED = (
    'want {"Records": [{"eventName": …, "s3": {"bucket": {"name": …}, "object": {"key": …}}}]}, as '
    'S3 and MinIO send it, or {"event_type": …, "key": "/buckets/BUCKET/KEY", "message": …}, as '
    "SeaweedFS does"
)
_READS = "ObjectAccessed:"
"""To look is to read: who had such events looked at would be told of them for ever."""
_BUCKETS = "/buckets/"
BUCKET_CHARACTERS_MAX = 255
"""The longest names that any store has had."""
_UPLOADS = ".uploads/"
_VERSIONS = ".versions"
_VERSION_ID = "Seaweed-X-Amz-Version-Id"


class Named(NamedTuple):
    """What an event is about."""

    bucket: str
    key: str


@dataclass(frozen=True, slots=True)
class Told:
    """What a body says."""

    named: tuple[Named, ...]
    """Each once."""
    ignored: int = 0
    """Events that tell of no change of an object."""
    confirm_url: str = ""
    """Who opens it wants to be told by SNS; else nothing is."""


def told_in(body: bytes) -> Told:
    """Read a body.

    Raises:
        InvalidRequest: It is in no format that is known; the message tells which are.
    """
    data = _object(body)
    match data:
        case {"Type": "SubscriptionConfirmation", "SubscribeURL": str(url)}:
            return Told((), confirm_url=url)
        case {"Type": "Notification", "Message": str(inner)}:
            data = _object(inner)
    match data:
        case {"Records": list(records)}:
            return _told(_of_s3(record) for record in records)
        case {"Event": "s3:TestEvent"}:
            return Told((), ignored=1)
        case {"event_type": str(), "key": str(path), "message": dict(message)}:
            return _told([_of_seaweedfs(path, message)])
    raise InvalidRequest(f"this is no event: {_WANTED}")


def _object(text: bytes | str) -> Any:
    try:
        return read_json(text)
    except InvalidRequest as error:
        raise InvalidRequest(f"this is {error}: {_WANTED}") from None


def _is_bucket(name: str) -> bool:
    """Whether a bucket can be called so: a database is asked for it."""
    return 0 < len(name) <= BUCKET_CHARACTERS_MAX and name.isprintable()


def _told(events: Iterator[list[Named]] | list[list[Named]]) -> Told:
    ignored = 0
    named: dict[Named, None] = {}
    for told in events:
        each = [one for one in told if _is_bucket(one.bucket)]
        ignored += not each
        named.update(dict.fromkeys(each))
    return Told(tuple(named), ignored)


def _of_s3(record: Any) -> list[Named]:
    match record:
        case {
            "eventName": str(name),
            "s3": {"bucket": {"name": str(bucket)}, "object": {"key": str(key)}},
        }:
            is_read = name.removeprefix("s3:").startswith(_READS)
            # What is no UTF-8 becomes what no path has.
            return [] if is_read else [Named(bucket, unquote_plus(key, errors="surrogateescape"))]
    raise InvalidRequest(f"a record names no bucket and key: {_WANTED}")


def _of_seaweedfs(path: str, message: dict[str, Any]) -> list[Named]:
    """Return an entry's former key and its present one; a rename has both."""
    found = []
    match message:
        case {"old_entry": dict(entry)}:
            found.append((path, entry))
    match message:
        case {"new_entry": {"name": str(name)} as entry, "new_parent_path": str(parent)}:
            found.append((f"{parent}/{name}", entry))
        case {"new_entry": dict(entry)}:
            found.append((path, entry))
    if not found:
        raise InvalidRequest(f"message has neither old_entry nor new_entry: {_WANTED}")
    return [named for path, entry in found if (named := _of_entry(path, entry)) is not None]


def _of_entry(path: str, entry: dict[str, Any]) -> Named | None:
    if not path.startswith(_BUCKETS):
        return None
    bucket, _, key = path.removeprefix(_BUCKETS).partition("/")
    if not key or f"{key}/".startswith(_UPLOADS):
        return None
    if entry.get("is_directory"):
        # Versions of an object are files of a directory, which tells which one is the latest.
        is_object = key.endswith(_VERSIONS)
        return Named(bucket, key.removesuffix(_VERSIONS)) if is_object else None
    extended = entry.get("extended")
    is_version = isinstance(extended, dict) and _VERSION_ID in extended
    return None if is_version and f"{_VERSIONS}/v_" in key else Named(bucket, key)

"""What the library tells of an object, and what it needs to read one."""

from dataclasses import dataclass, field
from datetime import datetime

from penstock.objects import ObjectId


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One version of an object, as `Cache.stat` and `Cache.list` tell it."""

    url: str
    version: str
    """The origin's etag, or what stands for it. Empty in a listing whose origin tells none."""
    size: int
    """In bytes."""
    modified: datetime | None
    """UTC; None when the origin does not say."""
    plane: str = ""
    """The plane that this library reads the object by; empty in a listing."""


@dataclass(frozen=True, slots=True)
class DirectoryInfo:
    """A directory, as `Cache.list_directory` tells it: there is something below it."""

    url: str
    """With a slash at its end."""


@dataclass(frozen=True, slots=True)
class OriginSource:
    """Where an object's bytes can be read without the cluster. Holds no secrets."""

    url: str
    options: dict[str, object]
    version: str
    """What this origin calls the version."""


@dataclass(frozen=True, slots=True)
class OpenedObject:
    """An object that may be read, and the ticket that says so."""

    url: str
    volume: str
    id: ObjectId
    modified: datetime | None
    ticket: str = field(repr=False)
    ticket_expires_at: float
    """Seconds since 1970, UTC."""
    fresh_for_s: float
    """How long this answer may be reused, counted from its receipt."""
    sources: tuple[OriginSource, ...] = ()
    replicas: int = 1
    """How many owners keep each of its chunks."""

    def info(self, *, plane: str) -> ObjectInfo:
        """Return what a user is told of it."""
        return ObjectInfo(self.url, self.id.version, self.id.size, self.modified, plane)


@dataclass(frozen=True, slots=True)
class ChunkLocation:
    """One chunk of an object: who should keep it, and who does."""

    index: int
    id: bytes
    owners: tuple[str, ...]
    """Node ids, in order; the first fills from the origin."""
    held_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ObjectLocation:
    """Where an object's chunks are, as `Cache.locate` tells it."""

    url: str
    object: ObjectId
    chunks: tuple[ChunkLocation, ...]

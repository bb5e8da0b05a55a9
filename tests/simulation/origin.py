"""The object store of a simulated cluster: objects, their versions, and every read of them.

Responsible for: answering as `penstock_node.origin.interface.Origin` promises, slowly or not at
all; counting; what the bytes of each version are.
Not responsible for: whether a read should have been made (`checks` is told of each).
"""

import asyncio
import functools
import hashlib
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from penstock.errors import ObjectChanged, OriginUnavailable
from penstock.objects import ObjectId
from tests.simulation.clock import SimLoop

VOLUME = "models"
URL = "s3://bucket/"
READ_S_MIN = 0.005
READ_S_MAX = 0.08
SLOW_READ_S_MAX = 2.0
REFUSES_AFTER_S = 0.5
"""An origin that is down is asked several times before that is believed."""


@functools.lru_cache(maxsize=1024)
def bytes_of(key: str, version: str, index: int, length: int) -> bytes:
    """Return the bytes of a chunk: others for each object, version and index."""
    digest = hashlib.blake2b(f"{key} {version} {index}".encode()).digest()
    return (digest * (length // len(digest) + 1))[:length]


@dataclass(frozen=True, slots=True)
class OriginRead:
    """One read of a chunk by a node."""

    node: str
    object: ObjectId
    index: int


class World:
    """The objects at the origin, and how the origin is."""

    def __init__(self, loop: SimLoop, rng: random.Random) -> None:
        self.loop, self._rng = loop, rng
        self.is_up = True
        self.is_slow = False
        self.changed_at = 0.0
        """When the origin last went away or came back."""
        self.objects: dict[str, ObjectId] = {}
        """By path: the present versions."""
        self.versions: dict[tuple[str, str], ObjectId] = {}
        """By path and version: all there ever were."""
        self.overwritten_at: dict[tuple[str, str], float] = {}
        """When a key's version was replaced."""
        self.reads: Counter[tuple[ObjectId, int]] = Counter()
        """Reads of each chunk that gave its bytes."""
        self.watch: Callable[[OriginRead], None] = lambda _read: None
        """Told of each read as it begins."""

    def put(self, path: str, size: int, chunk_size: int) -> ObjectId:
        """Write an object, or a new version of it."""
        before = self.objects.get(path)
        version = f'"v{int(before.version[2:-1]) + 1 if before else 1}"'
        if before is not None:
            self.overwritten_at[before.key, before.version] = self.loop.time()
        found = self.objects[path] = ObjectId(URL + path, version, size, chunk_size)
        self.versions[path, version] = found
        return found

    def set_up(self, *, is_up: bool) -> None:
        """Go away, or come back."""
        self.is_up, self.changed_at = is_up, self.loop.time()

    async def read(self, read: OriginRead, version: str, path: str) -> bytes:
        """Return a chunk's bytes, if the version is the present one."""
        self.watch(read)
        longest_s = SLOW_READ_S_MAX if self.is_slow else READ_S_MAX
        await asyncio.sleep(READ_S_MIN + (longest_s - READ_S_MIN) * self._rng.random())
        if not self.is_up:
            await asyncio.sleep(REFUSES_AFTER_S)
            raise OriginUnavailable("the origin does not answer")
        if self.objects[path].version != version:
            raise ObjectChanged(f"{path} is {self.objects[path].version} by now")
        self.reads[read.object, read.index] += 1
        subject = read.object
        return bytes_of(subject.key, version, read.index, subject.chunk_length(read.index))

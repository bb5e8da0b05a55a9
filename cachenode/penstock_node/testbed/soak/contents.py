"""The objects of a soak, and which bytes each has: anyone computes them, nobody sends them.

Responsible for: names, sizes, versions of what is overwritten, and comparing what was read.
Not responsible for: reading (`work`), storing (`place`).
"""

import json
import os
import random
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

VOLUME, LAKE = "models", "lake"
POOL_BYTES = 8 * 1024 * 1024
"""Random bytes of which every object is a part, from a place of its own."""
OBJECT_BYTES_MAX = 3 * 1024 * 1024
OBJECT_BYTES_MIN = 1000
FIXED, LIVE = 40, 6
VERSIONS_BACK = 8
"""A reader may get one that was overwritten so many times since: origins are away for seconds."""
_NEWEST = "live.json"


class Contents:
    """What a seed makes. Cheap to ask: nothing is computed twice."""

    def __init__(self, seed: int, directory: Path) -> None:
        """``directory`` holds which versions of overwritten objects there are."""
        self._seed = seed
        self._newest = directory / _NEWEST

    @cached_property
    def _pool(self) -> memoryview:
        return memoryview(random.Random(self._seed).randbytes(POOL_BYTES))  # noqa: S311 - replays

    @cached_property
    def fixed(self) -> tuple[str, ...]:
        """Objects that stay as they are."""
        return tuple(f"fixed/{number % 4}/{number}.bin" for number in range(FIXED))

    @cached_property
    def live(self) -> tuple[str, ...]:
        """Objects that are overwritten."""
        return tuple(f"live/{number}.bin" for number in range(LIVE))

    def size(self, path: str) -> int:
        """Return an object's length, the same in all its versions."""
        most = OBJECT_BYTES_MAX if path.startswith("fixed/") else OBJECT_BYTES_MAX // 8
        return random.Random(f"{self._seed}/{path}").randrange(OBJECT_BYTES_MIN, most)  # noqa: S311

    def data(self, path: str, version: int = 0) -> memoryview:
        """Return the bytes of a version."""
        size = self.size(path)
        chance = random.Random(f"{self._seed}/{path}/{version}")  # noqa: S311
        start = chance.randrange(POOL_BYTES - size)
        return self._pool[start : start + size]

    def begin_version(self, path: str) -> int:
        """Take note that a live object is about to be overwritten; return with which version."""
        told = self._told()
        told[path] = told.get(path, 0) + 1
        write_whole(self._newest, json.dumps(told))
        return told[path]

    def _told(self) -> dict[str, int]:
        try:
            return dict(json.loads(self._newest.read_text()))
        except FileNotFoundError:
            return {}

    def versions(self, path: str) -> Iterator[int]:
        """Return the versions that a reader may get, the newest first."""
        newest = self._told().get(path, 0) if path.startswith("live/") else 0
        yield from range(newest, max(-1, newest - VERSIONS_BACK), -1)

    def is_right(self, path: str, data: "memoryview | bytes", start: int = 0) -> bool:
        """Tell whether bytes that were read from ``start`` are those of one version."""
        stop = start + len(data)
        return any(self.data(path, each)[start:stop] == data for each in self.versions(path))


def url_of(path: str) -> str:
    """Return where the cache has an object."""
    return f"penstock://{VOLUME}/{path}"


def write_whole(path: Path, text: str) -> None:
    """Write a file that others read meanwhile."""
    whole = path.with_suffix(f".{os.getpid()}.tmp")
    whole.write_text(text)
    whole.replace(path)

"""Versions that listings told: who lists objects and opens each costs the origin no more than that.

Responsible for: which lines of a listing say what asking for the object would, and a bounded
memory of them.
Not responsible for: listing (`listing`), how long an answer is believed (`opening`).
"""

from collections import OrderedDict
from collections.abc import Iterable

from penstock.volumes import Location, Volume, object_key
from penstock_node.origin import ListedObject, OriginMeta

REMEMBERED_MAX = 20_000


class ListedVersions:
    """What the latest listings told of objects. On the event loop."""

    def __init__(self) -> None:
        self._told: OrderedDict[str, tuple[OriginMeta, float]] = OrderedDict()

    def learn(self, volume: Volume, objects: Iterable[ListedObject], *, asked_at: float) -> None:
        """Remember a page of a listing that was asked for at ``asked_at`` (monotonic seconds).

        Of S3 alone: others write etags in another way in listings, or have none there.
        """
        if volume.kind != "s3":
            return
        for listed in objects:
            if listed.version.startswith('"'):
                key = object_key(Location(volume, listed.path))
                meta = OriginMeta(listed.version, listed.size, listed.modified_us)
                self._told[key] = (meta, asked_at)
                self._told.move_to_end(key)
        while len(self._told) > REMEMBERED_MAX:
            self._told.popitem(last=False)

    def take(self, key: str) -> tuple[OriginMeta, float] | None:
        """Return what was told of an object, and when that was asked for; forget it here."""
        return self._told.pop(key, None)

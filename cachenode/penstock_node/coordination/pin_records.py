"""What stands under ``pins/{id}``: objects that operators want kept, each in one version.

Not responsible for: how much may be pinned (`pins`), keeping them (`penstock_node.pinned`).
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from penstock.errors import InvalidRequest
from penstock.json_text import count_in, moment_in, read_json_object, text_in
from penstock.objects import ObjectId

_ID_BYTES = 8


@dataclass(frozen=True, slots=True)
class PinnedObject:
    """An object, and the volume that it was opened through."""

    volume: str
    object: ObjectId


@dataclass(frozen=True, slots=True)
class Pin:
    """What was at a url, or below it, when it was pinned."""

    url: str
    objects: tuple[PinnedObject, ...]
    cost_bytes: int
    """With all copies, as they were then."""
    pinned_at: float
    """Seconds since 1970, UTC."""

    @property
    def id(self) -> str:
        """What it stands under: a url may be longer than keys should be."""
        return hashlib.blake2b(self.url.encode(), digest_size=_ID_BYTES).hexdigest()

    @property
    def size_bytes(self) -> int:
        """Of all objects, without copies."""
        return sum(each.object.size for each in self.objects)


def pin_from_json(_pin_id: str, value: bytes) -> Pin:
    """Return the record under ``pins/{id}``.

    Raises:
        InvalidRequest: It is none.
    """
    data = read_json_object(value)
    objects = data.get("objects")
    if not isinstance(objects, list):
        raise InvalidRequest("objects: want a list")
    return Pin(
        text_in(data, "url"),
        tuple(map(_object_from_json, objects)),
        count_in(data, "cost_bytes"),
        moment_in(data, "pinned_at"),
    )


def _object_from_json(data: Any) -> PinnedObject:
    if not isinstance(data, dict):
        raise InvalidRequest("objects: want a list of objects")
    identity = ObjectId(
        text_in(data, "key"),
        text_in(data, "version"),
        count_in(data, "size"),
        count_in(data, "chunk_size"),
    )
    return PinnedObject(text_in(data, "volume"), identity)


def pin_to_json(pin: Pin) -> bytes:
    """Return the value of ``pins/{id}``."""
    objects = [
        {
            "volume": each.volume,
            "key": each.object.key,
            "version": each.object.version,
            "size": each.object.size,
            "chunk_size": each.object.chunk_size,
        }
        for each in pin.objects
    ]
    facts = {"url": pin.url, "cost_bytes": pin.cost_bytes, "pinned_at": pin.pinned_at}
    return json.dumps({**facts, "objects": objects}).encode()

"""Cluster-wide settings: their names, defaults and bounds.

They stand in etcd under ``settings``; the first node writes them, operators change them with
`penstock settings set`. Not responsible for: a node's own configuration file.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock.errors import InvalidRequest
from penstock.nearest import did_you_mean
from penstock.objects import CHUNK_BYTES_DEFAULT, check_chunk_size
from penstock.units import parse_duration, parse_size

REPLICAS_MAX = 3


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """What all nodes of a cluster agree on."""

    chunk_size: int = CHUNK_BYTES_DEFAULT
    """Bytes a chunk. A change applies to objects opened from then on; the old chunks age out."""
    replicas: int = 1
    """How many owners keep a chunk, 1 to 3, where its volume does not say."""
    weight_unit_bytes: int = 0
    """Owned bytes that weigh 100. 0 until the cluster forms: then the smallest node's."""
    points_per_100: int = 4096
    """Points on the ring for a weight of 100. A change moves nearly everything."""
    departure_grace_s: float = 600.0
    """How long a node that stopped answering keeps its place; longer than any restart."""
    handoff_bytes_per_s: int = 200_000_000
    """What each node takes over from former owners in a second, at most."""
    repair_after_s: float = 60.0
    """How long an owner is away until others make copies in its stead; longer than a restart."""
    pin_percent_max: int = 50
    """Of the nodes' owned capacity, what pinned objects may take with their copies."""
    lease_ttl_s: float = 10.0
    """After this long without a heartbeat a node counts as away."""
    open_ttl_s: float = 10.0
    """How long an opened object's version is believed without asking the origin again."""
    open_stale_s: float = 3600.0
    """How long it is believed while the origin does not answer."""
    list_ttl_s: float = 5.0
    """How long a listing is believed."""
    not_found_ttl_s: float = 2.0
    """How long "no such object" is believed; never longer than ``open_ttl_s``."""

    ticket_key_rotation_s: float = 86_400.0
    """After this long another key signs tickets; those signed before stay good for their time."""

    def __post_init__(self) -> None:
        check_chunk_size(self.chunk_size)
        _check("replicas", self.replicas, 1, REPLICAS_MAX)
        _check("weight_unit_bytes", self.weight_unit_bytes, 0, 1 << 60)
        _check("points_per_100", self.points_per_100, 16, 65_536)
        _check("departure_grace_s", self.departure_grace_s, 0, 7 * 86_400)
        _check("handoff_bytes_per_s", self.handoff_bytes_per_s, 1_000_000, 1_000_000_000_000)
        _check("repair_after_s", self.repair_after_s, 0, 7 * 86_400)
        _check("pin_percent_max", self.pin_percent_max, 0, 100)
        _check("lease_ttl_s", self.lease_ttl_s, 2, 300)
        _check("ticket_key_rotation_s", self.ticket_key_rotation_s, 3600, 90 * 86_400)
        for name in ("open_ttl_s", "open_stale_s", "list_ttl_s", "not_found_ttl_s"):
            _check(name, getattr(self, name), 0, 7 * 86_400)

    def changed(self, changes: Mapping[str, Any]) -> "ClusterSettings":
        """Return these settings with ``changes``; sizes and durations may be texts.

        Raises:
            InvalidRequest: An unknown name (with the nearest known one) or a bad value.
        """
        parsed: dict[str, Any] = {name: _parse(name, value) for name, value in changes.items()}
        return dataclasses.replace(self, **parsed)

    def to_json(self) -> dict[str, Any]:
        """Return every setting as a JSON object."""
        return dataclasses.asdict(self)


_FIELDS = {field.name: field.type for field in dataclasses.fields(ClusterSettings)}


def _check(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise InvalidRequest(f"settings.{name}={value}: want {least} to {most}")


def _parse(name: str, value: Any) -> int | float:
    if name not in _FIELDS:
        raise InvalidRequest(f"there is no setting {name!r}; {did_you_mean(name, _FIELDS)}")
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise InvalidRequest(f"settings.{name}={value!r}: want a number, a size or a duration")
    if name.endswith("_s") and not name.endswith("_bytes_per_s"):
        return parse_duration(value)
    if isinstance(value, float) and not value.is_integer():
        raise InvalidRequest(f"settings.{name}={value}: want a whole number")
    return parse_size(int(value) if isinstance(value, float) else value)

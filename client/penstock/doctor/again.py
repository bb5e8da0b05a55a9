"""Two looks at one thing: of figures the better counts, of states the later.

A disk that is slow is slow twice; one that somebody else used for a moment is not.
"""

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import TypeVar

from penstock.doctor.facts import Disk, Examined, OriginLook, PeerLook

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


def combined(first: Examined, second: Examined) -> Examined:
    """Return what two looks at one node say; the second looked at some parts alone."""
    disks = {disk.path: disk for disk in second.disks}
    origins = {look.volume: look for look in second.origins}
    peers = {look.id: look for look in second.peers}
    return replace(
        second,
        disks=tuple(_disk(disk, disks.get(disk.path)) for disk in first.disks),
        origins=tuple(_origin(look, origins.get(look.volume)) for look in first.origins),
        peers=tuple(_peer(look, peers.get(look.id)) for look in first.peers),
        etcd=second.etcd or first.etcd,
        hot_chunks=first.hot_chunks or second.hot_chunks,
    )


def _least(values: Sequence[float]) -> float:
    return min((value for value in values if value), default=0.0)


def _disk(first: Disk, second: Disk | None) -> Disk:
    if second is None:
        return first
    if not second.measured_bytes:
        return replace(
            second,
            write_s=first.write_s,
            read_s=first.read_s,
            measured_bytes=first.measured_bytes,
            failure=second.failure or first.failure,
        )
    return replace(
        second,
        write_s=_least((first.write_s, second.write_s)),
        read_s=_least((first.read_s, second.read_s)),
    )


def _origin(first: OriginLook, second: OriginLook | None) -> OriginLook:
    if second is None:
        return first
    if first.failure or second.failure:
        return second
    return replace(
        second,
        list_s=_least((first.list_s, second.list_s)),
        head_s=_least((first.head_s, second.head_s)),
        read_s=_least((first.read_s, second.read_s)),
    )


def _peer(first: PeerLook, second: PeerLook | None) -> PeerLook:
    if second is None:
        return first
    best = max(first, second, key=lambda look: look.bytes_per_s)
    return replace(
        second,
        connect_s=_least((first.connect_s, second.connect_s)),
        received_bytes=best.received_bytes,
        receiving_s=best.receiving_s,
    )

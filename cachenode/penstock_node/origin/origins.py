"""The origins of a node: one per volume, made when first asked for.

Responsible for: making them anew when a volume changes, with counters that go on.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.errors import InvalidRequest
from penstock.volumes import Volume
from penstock_node.origin.catalogued import Catalog, CataloguedOrigin, NoCatalog
from penstock_node.origin.files import THREADS_MAX, FileOrigin
from penstock_node.origin.gate import Gate
from penstock_node.origin.hub import HubOrigin
from penstock_node.origin.interface import Origin, OriginCounters, OriginLimits, SecretSettings
from penstock_node.origin.object_store import ObjectStoreOrigin
from penstock_node.origin.object_writer import retries, writing_limits
from penstock_node.origin.stores import Store, check_secret, credentials_of, open_store

if TYPE_CHECKING:
    from penstock_node.origin.s3_keys import S3Keys

GONE_MAX = 64
"""Volumes that are gone, and whose counters go on should they come back."""


@dataclass(frozen=True, slots=True)
class _Opened:
    volume: Volume
    origin: Origin
    gates: tuple[Gate, ...]


class Origins:
    """Used on one event loop."""

    def __init__(
        self,
        *,
        secrets: Mapping[str, SecretSettings] | None = None,
        allow_file_roots: Iterable[Path] = (),
        limits: OriginLimits | None = None,
        catalog: Catalog | None = None,
        s3_keys: "type[S3Keys] | None" = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep what origins are made with; nothing is opened yet.

        Args:
            secrets: This node's own, by name.
            allow_file_roots: Directories below which ``file://`` volumes may lie.
            limits: Bounds of each origin whose volume says nothing else.
            catalog: Says which files catalogued volumes have.
            s3_keys: Lists keys of S3 that are no paths; those too that obstore tells as others,
                for a request more. Without, it is loaded when obstore refuses a page.
            clock: Monotonic seconds, of the circuit breakers.
        """
        self._secrets = dict(secrets or {})
        self._file_roots = tuple(allow_file_roots)
        self._limits = limits or OriginLimits()
        self._catalog = catalog or NoCatalog()
        self._s3_keys = s3_keys
        self._clock = clock
        self._opened: dict[str, _Opened] = {}
        self._counters: dict[str, OriginCounters] = {}

    def get(self, volume: Volume) -> Origin:
        """Return the origin of ``volume`` as it is now.

        Raises:
            NotPermitted: Its secret is not defined here or may not be sent to its host, or it
                is a directory outside the allowed roots.
            InvalidConfiguration: Its secret's values do not suit the store.
            InvalidRequest: `obstore` cannot work with its options.
        """
        known = self._opened.get(volume.name)
        if known is not None and known.volume == volume:
            return known.origin
        opened = self._open(volume)
        if known is not None:
            known.origin.close()
        self._opened[volume.name] = opened
        return opened.origin

    def _open(self, volume: Volume) -> _Opened:
        limits = self._limits.of(volume.limits)
        counters = self._counters.setdefault(volume.name, OriginCounters())
        if not volume.is_catalogued:
            return self._open_place(volume, limits, counters)
        opened = [self._open_place(place, limits, counters) for place in volume.origins]
        origins = [each.origin for each in opened]
        gates = tuple(gate for each in opened for gate in each.gates)
        origin = CataloguedOrigin(
            volume, self._catalog, origins, counters=counters, clock=self._clock
        )
        return _Opened(volume, origin, gates)

    def _open_place(self, place: Volume, limits: OriginLimits, counters: OriginCounters) -> _Opened:
        if place.kind == "file":
            limits = replace(limits, requests_max=min(THREADS_MAX, limits.requests_max))
        gate = Gate(place, limits=limits, counters=counters, clock=self._clock)
        return _Opened(place, self._origin(place, gate, limits, counters), (gate,))

    def _origin(
        self, volume: Volume, gate: Gate, limits: OriginLimits, counters: OriginCounters
    ) -> Origin:
        if volume.kind == "file":
            return FileOrigin(
                volume, allowed=self._file_roots, gate=gate, limits=limits, counters=counters
            )
        secret = self._secrets.get(volume.secret) if volume.secret else None
        if volume.kind == "hf":
            check_secret(volume, secret)
            token = credentials_of(volume, secret).get("token", "")
            return HubOrigin(volume, token=token, gate=gate, limits=limits, counters=counters)

        def open_writing_store() -> Store:
            bounds = writing_limits(limits)
            return open_store(volume, secret, limits=bounds, retries=retries(limits))

        return ObjectStoreOrigin(
            volume,
            open_store(volume, secret, limits=limits),
            open_writing_store=open_writing_store,
            open_keys=lambda: (self._s3_keys or _s3_keys())(volume, secret, limits=limits),
            looks_for_slashed=self._s3_keys is not None,
            gate=gate,
            limits=limits,
            counters=counters,
        )

    def retain(self, names: Iterable[str]) -> None:
        """Forget the origins of volumes that are gone; counters of the latest ones stay."""
        for name in self._opened.keys() - set(names):
            self._opened.pop(name).origin.close()
        gone = [name for name in self._counters if name not in self._opened]
        for name in gone[:-GONE_MAX]:
            del self._counters[name]

    def close(self) -> None:
        """Forget all origins and release what they hold."""
        self.retain(())

    def counters(self) -> Mapping[str, OriginCounters]:
        """Return the live counters of each volume that was ever opened here."""
        return self._counters

    def gates(self) -> Mapping[str, Sequence[Gate]]:
        """Return what stands before each origin that is in use, by volume."""
        return {name: opened.gates for name, opened in self._opened.items()}


def _s3_keys() -> "type[S3Keys]":
    try:
        from penstock_node.origin.s3_keys import S3Keys
    except ModuleNotFoundError:  # A node reads and lists without.
        raise InvalidRequest(
            "keys that are no paths are listed with botocore: pip install 'penstock[catalog]', or "
            "rename them"
        ) from None
    return S3Keys

"""The origins of a node: one per volume, made when first asked for.

Responsible for: making them anew when a volume changes, with counters that go on.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from penstock.volumes import Volume
from penstock_node.origin.files import FileOrigin
from penstock_node.origin.interface import Origin, OriginCounters, OriginLimits, SecretSettings
from penstock_node.origin.object_store import ObjectStoreOrigin
from penstock_node.origin.stores import open_store


class Origins:
    """Used on one event loop."""

    def __init__(
        self,
        *,
        secrets: Mapping[str, SecretSettings] | None = None,
        allow_file_roots: Iterable[Path] = (),
        limits: OriginLimits | None = None,
    ) -> None:
        """Keep what origins are made with; nothing is opened yet.

        Args:
            secrets: This node's own, by name.
            allow_file_roots: Directories below which ``file://`` volumes may lie.
            limits: Bounds of each origin.
        """
        self._secrets = dict(secrets or {})
        self._file_roots = tuple(allow_file_roots)
        self._limits = limits or OriginLimits()
        self._origins: dict[str, tuple[Volume, Origin]] = {}
        self._counters: dict[str, OriginCounters] = {}

    def get(self, volume: Volume) -> Origin:
        """Return the origin of ``volume`` as it is now.

        Raises:
            NotPermitted: Its secret is not defined here or may not be sent to its host, or it
                is a directory outside the allowed roots.
            InvalidConfiguration: Its secret's values do not suit the store.
            InvalidRequest: `obstore` cannot work with its options.
        """
        known = self._origins.get(volume.name)
        if known is not None and known[0] == volume:
            return known[1]
        origin = self._open(volume)
        if known is not None:
            known[1].close()
        self._origins[volume.name] = (volume, origin)
        return origin

    def _open(self, volume: Volume) -> Origin:
        counters = self._counters.setdefault(volume.name, OriginCounters())
        if volume.kind == "file":
            return FileOrigin(
                volume, allowed=self._file_roots, limits=self._limits, counters=counters
            )
        secret = self._secrets.get(volume.secret) if volume.secret else None
        store = open_store(volume, secret, limits=self._limits)
        return ObjectStoreOrigin(volume, store, limits=self._limits, counters=counters)

    def retain(self, names: Iterable[str]) -> None:
        """Forget the origins of volumes that are gone; their counters stay."""
        for name in self._origins.keys() - set(names):
            self._origins.pop(name)[1].close()

    def close(self) -> None:
        """Forget all origins and release what they hold."""
        self.retain(())

    def counters(self) -> Mapping[str, OriginCounters]:
        """Return the live counters of each volume that was ever opened here."""
        return self._counters

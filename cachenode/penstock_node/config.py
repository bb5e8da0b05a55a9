"""A node's configuration: read, checked and ready to use.

Responsible for: loading it from a file, or from a directory alone, and what a node reads of it.
Not responsible for: cluster-wide settings (`penstock.settings`; those here only form a new
cluster). Importing this reads nothing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from penstock.settings import ClusterSettings
from penstock_node.config_checks import check
from penstock_node.config_directory import directory_layer
from penstock_node.config_keys import NodeKeys
from penstock_node.config_loaded import LoadedKeys, read_reference
from penstock_node.config_sources import Problem


class NodeConfig(NodeKeys, LoadedKeys):
    """What a node was told. It never changes; only the secrets that it names may rotate."""

    def problems(self) -> list[Problem]:
        """See `LoadedKeys`."""
        return check(self)

    @classmethod
    def for_directory(
        cls,
        directory: Path,
        volumes: Sequence[str],
        *,
        capacity: str | int | None = None,
        **flags: Any,
    ) -> Self:
        """Return the configuration of a whole standalone node below ``directory``.

        State lies in ``state``, and one owned tier in ``cache``. The environment and ``flags``
        go over it as over a file.

        Args:
            directory: Created by the node if absent.
            volumes: ``name=url`` each. S3 volumes use the usual AWS environment variables.
            capacity: Of the cache; by default 90 % of what is free at the first start, kept in
                ``state`` from then on, so that a restart changes neither capacity nor weight.
            flags: As for `load`.

        Raises:
            InvalidConfiguration: As `load`; or a volume is not ``name=url``.
        """
        below = directory_layer(directory.resolve(), volumes, capacity=capacity)
        return cls._from_layers(below, flags=flags)

    @property
    def cluster_settings(self) -> ClusterSettings:
        """The settings that a new cluster is formed with."""
        return ClusterSettings().changed(self.settings)

    @property
    def owned_capacity_bytes(self) -> int:
        """Of all owned tiers; 0 for a reader."""
        return sum(tier.capacity for tier in self.tiers if tier.role == "owned")

    def resolve_s3_secret(self, name: str) -> str:
        """Return what clients sign with who have the key ``[s3_keys.name]``, as it is now.

        Raises:
            InvalidConfiguration: There is no value where it should stand.
        """
        return read_reference(
            self.s3_keys[name].secret_access_key, f"s3_keys.{name}.secret_access_key"
        )

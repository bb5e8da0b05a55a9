"""Penstock: a distributed cache cluster that feeds GPU fleets from object storage.

    import penstock

    with penstock.connect("gpu-17:7400") as cache:
        weights = cache.read("penstock://models/llama/model.safetensors")

`penstock.aio` has the same for asyncio. Importing this package is cheap; gRPC and numpy are
loaded by the first `connect`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from penstock.errors import (
    Cancelled,
    CatalogUnavailable,
    ClusterUnavailable,
    Conflict,
    CorruptData,
    InvalidConfiguration,
    InvalidRequest,
    KubernetesUnavailable,
    NodeUnavailable,
    NoSpace,
    NotCached,
    NotOwner,
    NotPermitted,
    ObjectChanged,
    ObjectNotFound,
    OriginUnavailable,
    Overloaded,
    PenstockError,
    Retryable,
    TicketExpired,
    Unauthenticated,
    Uncacheable,
)

if TYPE_CHECKING:
    from penstock.cache import Cache, connect
    from penstock.counters import Stats
    from penstock.object_file import ObjectFile
    from penstock.object_info import ChunkLocation, DirectoryInfo, ObjectInfo, ObjectLocation
    from penstock.snapshot_calls import snapshot
    from penstock.snapshots.in_use import release_snapshot
    from penstock.snapshots.tally import SnapshotReport
    from penstock.tls import Tls
    from penstock.warmup import WarmupFailure, WarmupProgress, WarmupReport

__all__ = [
    "Cache",
    "Cancelled",
    "CatalogUnavailable",
    "ChunkLocation",
    "ClusterUnavailable",
    "Conflict",
    "CorruptData",
    "DirectoryInfo",
    "InvalidConfiguration",
    "InvalidRequest",
    "KubernetesUnavailable",
    "NoSpace",
    "NodeUnavailable",
    "NotCached",
    "NotOwner",
    "NotPermitted",
    "ObjectChanged",
    "ObjectFile",
    "ObjectInfo",
    "ObjectLocation",
    "ObjectNotFound",
    "OriginUnavailable",
    "Overloaded",
    "PenstockError",
    "Retryable",
    "SnapshotReport",
    "Stats",
    "TicketExpired",
    "Tls",
    "Unauthenticated",
    "Uncacheable",
    "WarmupFailure",
    "WarmupProgress",
    "WarmupReport",
    "connect",
    "release_snapshot",
    "snapshot",
]

_LAZY = {
    "Cache": "penstock.cache",
    "Tls": "penstock.tls",
    "connect": "penstock.cache",
    "ObjectFile": "penstock.object_file",
    "ChunkLocation": "penstock.object_info",
    "DirectoryInfo": "penstock.object_info",
    "ObjectInfo": "penstock.object_info",
    "ObjectLocation": "penstock.object_info",
    "SnapshotReport": "penstock.snapshots.tally",
    "Stats": "penstock.counters",
    "release_snapshot": "penstock.snapshots.in_use",
    "snapshot": "penstock.snapshot_calls",
    "WarmupFailure": "penstock.warmup",
    "WarmupProgress": "penstock.warmup",
    "WarmupReport": "penstock.warmup",
}


def __getattr__(name: str) -> Any:
    """Load a public name at its first use."""
    if name not in _LAZY:
        raise AttributeError(f"module 'penstock' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)

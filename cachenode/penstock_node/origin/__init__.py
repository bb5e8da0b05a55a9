"""Origins: reading and writing the objects of volumes where they really lie.

Responsible for: conditional range reads that never mix versions, listings, writes that appear
whole or not at all, retries and deadlines, where credentials may go. Knows nothing of chunks,
caches or the cluster.
"""

from penstock_node.origin.catalogued import CataloguedOrigin
from penstock_node.origin.cut import put_memory_bytes
from penstock_node.origin.interface import (
    ListedObject,
    ListPage,
    Origin,
    OriginCounters,
    OriginLimits,
    OriginMeta,
    SecretSettings,
    is_strong,
)
from penstock_node.origin.origins import Origins

__all__ = [
    "CataloguedOrigin",
    "ListPage",
    "ListedObject",
    "Origin",
    "OriginCounters",
    "OriginLimits",
    "OriginMeta",
    "Origins",
    "SecretSettings",
    "is_strong",
    "put_memory_bytes",
]

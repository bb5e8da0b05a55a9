"""Where the chunks of some objects are: who owns each, and who holds it.

Responsible for: the objects at a url or below it, within a bound, and one question to each node.
Not responsible for: one object of any size for the library (`penstock.locating`).
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from penstock.errors import ObjectNotFound, PenstockError
from penstock.membership.view import Member
from penstock.object_info import OpenedObject
from penstock.overview_messages import HELD
from penstock.ring import Ring
from penstock.v1 import overview_pb2
from penstock_node.cluster import Cluster
from penstock_node.listing import Listings
from penstock_node.opening import Opener
from penstock_node.overview.asking import Asker
from penstock_node.overview.held import bits_of, object_to_proto

OBJECTS_MAX = 20
CHUNKS_MAX = 20_000
TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class ChunkMaps:
    """Makes maps; see the module. On the event loop."""

    cluster: Cluster
    opener: Opener
    listings: Listings
    members: Callable[[], Iterable[Member]]
    asker: Asker

    async def of(self, url: str) -> dict[str, Any]:
        """Return the map of an object, or of all below a url, for JSON.

        Raises:
            ObjectNotFound: There is nothing.
            NotPermitted: Outside every volume.
            OriginUnavailable: The origin does not answer.
        """
        objects, is_cut = await self._objects(url)
        request = overview_pb2.HeldRequest(
            chunks=[
                overview_pb2.ChunksOfObject(object=object_to_proto(each.id)) for each in objects
            ]
        )
        members = list(self.members())
        told = await self.asker.ask_all(members, HELD, request, timeout_s=TIMEOUT_S)
        ring = self.cluster.ring
        nodes = sorted({node.id for node in self.cluster.view.placement.nodes} | told.keys())
        held = {node: answer.held for node, answer in told.items()}
        lines = await asyncio.to_thread(_lines, objects, ring, nodes, held)
        return {"nodes": nodes, "objects": lines, "truncated": is_cut}

    async def _objects(self, url: str) -> tuple[list[OpenedObject], bool]:
        """Return the objects, as many as a map has, and whether there are more."""
        if not url.endswith("/"):
            (opened,) = await self.opener.open([url], refresh=False, forwarded=False)
            if isinstance(opened, OpenedObject):
                return _within_bound([opened])
            if not isinstance(opened, ObjectNotFound):
                raise opened
        prefix = url if url.endswith("/") else f"{url}/"
        page = await self.listings.page(prefix, after="", limit=OBJECTS_MAX + 1)
        urls = [info.url for info in page.objects]
        if not urls:
            raise ObjectNotFound(f"there is no object at {url}, and none below it")
        results = await self.opener.open(urls[:OBJECTS_MAX], refresh=False, forwarded=False)
        objects, is_cut = _within_bound(results)
        return objects, is_cut or len(urls) > OBJECTS_MAX


def _within_bound(
    results: Iterable[OpenedObject | PenstockError],
) -> tuple[list[OpenedObject], bool]:
    """Return the first objects that have no more chunks together than a map has."""
    objects, left = list[OpenedObject](), CHUNKS_MAX
    for opened in results:
        if isinstance(opened, PenstockError):
            continue  # Removed since it was listed, or not to be cached.
        left -= opened.id.chunk_count
        if left < 0:
            return objects, True
        objects.append(opened)
    return objects, False


def _lines(
    objects: Sequence[OpenedObject],
    ring: Ring,
    nodes: Sequence[str],
    held: Mapping[str, Sequence[bytes]],
) -> list[dict[str, Any]]:
    at = {node: number for number, node in enumerate(nodes)}
    lines = []
    for number, opened in enumerate(objects):
        of = opened.id
        holders: list[list[int]] = [[] for _ in range(of.chunk_count)]
        for node, told in sorted(held.items()):
            if number < len(told):
                for index in np.flatnonzero(bits_of(told[number], of.chunk_count)).tolist():
                    holders[index].append(at[node])
        ids = [of.chunk_id(index) for index in range(of.chunk_count)]
        owners = [[at[owner] for owner in some] for some in ring.owners_each(ids, opened.replicas)]
        lines.append(
            {
                "url": opened.url,
                "version": of.version,
                "size": of.size,
                "chunk_size": of.chunk_size,
                "chunks": [list(pair) for pair in zip(owners, holders, strict=True)],
            }
        )
    return lines

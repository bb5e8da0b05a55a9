"""Models as operators see them: what was opened of late or is pinned, and how much is held.

Responsible for: gathering from all nodes, and grouping objects by their directories.
Not responsible for: opening (`opening`), what is held (`store`). Nothing is asked of an origin.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_

from penstock import rpc
from penstock.errors import InvalidRequest, PenstockError
from penstock.objects import ObjectId
from penstock.v1 import operator_pb2
from penstock.volumes import penstock_url
from penstock_node.access.grants import limited_caller, volume_in
from penstock_node.cluster import Cluster
from penstock_node.opening import Opener
from penstock_node.operations import ASK_TIMEOUT_S, SCAN_TIMEOUT_S, Operations
from penstock_node.store.store import Store

OBJECTS_MAX = 2000
"""That one node tells of, and all are asked for."""
CHUNKS_MAX = 4_000_000
"""Of those together: each node looks for each of them, in a microsecond or two."""


@dataclass(slots=True)
class _Model:
    """Objects of one directory."""

    objects: int = 0
    size_bytes: int = 0
    held_bytes: int = 0
    chunks: int = 0
    """Held by any node."""
    copies: int = 0
    """Of those, on all nodes together."""
    opened_at: float = 0.0


class Models:
    """See the module."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        opener: Opener,
        operations: Operations,
        store: Store,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._cluster = cluster
        self._opener = opener
        self._operations = operations
        self._store = store
        self._clock = clock

    def objects_here(self) -> operator_pb2.NodeObjectsResponse:
        """Return the objects that this node has opened for the cluster, the latest first."""
        now = self._clock()
        return operator_pb2.NodeObjectsResponse(
            objects=[
                _known(each, opened_at=now - age_s)
                for each, age_s in self._opener.known(limit=OBJECTS_MAX)
            ]
        )

    def held_here(self, told: Sequence[operator_pb2.KnownObject]) -> list[bytes]:
        """Return a bit for each chunk of each object: whether this node holds it. Blocks.

        Raises:
            InvalidRequest: More objects than one request asks for, or none such.
        """
        if len(told) > OBJECTS_MAX:
            raise InvalidRequest(f"{len(told)} objects in one request: at most {OBJECTS_MAX}")
        return [self._bits(_object(each)) for each in told]

    def _bits(self, of: ObjectId) -> bytes:
        bits = bytearray(-(-of.chunk_count // 8))
        for index in range(of.chunk_count):
            if self._store.holds(of, index):
                bits[index // 8] |= 1 << index % 8
        return bytes(bits)

    async def list(self) -> operator_pb2.ListModelsResponse:
        """Return what all nodes know and hold, by directory."""
        told = await self._operations.ask_all(
            rpc.NODE_OBJECTS, operator_pb2.NodeObjectsRequest(), timeout_s=ASK_TIMEOUT_S
        )
        known = self._known_to(told.values())
        request = operator_pb2.NodeHoldsRequest(
            objects=[_known(each, opened_at=0.0) for each in known]
        )
        holds = await self._operations.ask_all(rpc.NODE_HOLDS, request, timeout_s=SCAN_TIMEOUT_S)
        answers = [each for each in holds.values() if not isinstance(each, PenstockError)]
        held = [[answer.held[at] for answer in answers] for at in range(len(known))]
        models, caller = self._grouped(known, held), limited_caller()
        return operator_pb2.ListModelsResponse(
            models=[
                _summary(url, models[url])
                for url in sorted(models)
                if caller is None or caller.sees(volume_in(url))
            ],
            unreachable=sorted(
                node for node, each in holds.items() if isinstance(each, PenstockError)
            ),
        )

    def _known_to(
        self, answers: Iterable[operator_pb2.NodeObjectsResponse | PenstockError]
    ) -> dict[ObjectId, float]:
        """Return the objects to tell of, pinned or opened last, and when each was opened."""
        opened = {each.object: 0.0 for pin in self._cluster.pins.values() for each in pin.objects}
        for answer in answers:
            if not isinstance(answer, PenstockError):
                for told in answer.objects:
                    identity = _object(told)
                    opened[identity] = max(opened.get(identity, 0.0), told.opened_at)
        latest = sorted(opened, key=lambda each: opened[each], reverse=True)[:OBJECTS_MAX]
        chunks = itertools.accumulate(each.chunk_count for each in latest)
        return {
            each: opened[each]
            for each, so_many in zip(latest, chunks, strict=True)
            if so_many <= CHUNKS_MAX
        }

    def _grouped(
        self, known: Mapping[ObjectId, float], held: Sequence[Sequence[bytes]]
    ) -> dict[str, _Model]:
        models: dict[str, _Model] = {}
        for (of, opened_at), bits in zip(known.items(), held, strict=True):
            model = models.setdefault(self._directory_of(of.key), _Model())
            anywhere = reduce(or_, (int.from_bytes(each, "little") for each in bits), 0)
            model.objects += 1
            model.size_bytes += of.size
            model.held_bytes += _bytes_in(of, anywhere)
            model.chunks += anywhere.bit_count()
            model.copies += sum(int.from_bytes(each, "little").bit_count() for each in bits)
            model.opened_at = max(model.opened_at, opened_at)
        return models

    def _directory_of(self, key: str) -> str:
        """Return the url of the directory that an object lies in; its own at a volume's top."""
        for volume in self._cluster.volumes:
            if key.startswith(volume.object_key_prefix):
                path = key.removeprefix(volume.object_key_prefix)
                above, slash, _ = path.rpartition("/")
                return penstock_url(volume.name, above + slash if slash else path)
        return key  # Its volume is gone.


def _bytes_in(of: ObjectId, bits: int) -> int:
    """Return the bytes of the chunks whose bits are set."""
    if not bits:
        return 0
    last = of.chunk_count - 1
    missing = of.chunk_size - of.chunk_length(last) if bits >> last & 1 else 0
    return bits.bit_count() * of.chunk_size - missing


def _known(of: ObjectId, *, opened_at: float) -> operator_pb2.KnownObject:
    return operator_pb2.KnownObject(
        key=of.key,
        version=of.version,
        size=of.size,
        chunk_size=of.chunk_size,
        opened_at=opened_at,
    )


def _object(told: operator_pb2.KnownObject) -> ObjectId:
    return ObjectId(told.key, told.version, told.size, told.chunk_size)


def _summary(url: str, model: _Model) -> operator_pb2.ModelSummary:
    return operator_pb2.ModelSummary(
        url=url,
        objects=model.objects,
        bytes=model.size_bytes,
        held_bytes=model.held_bytes,
        copies=model.copies / model.chunks if model.chunks else 0.0,
        opened_at=model.opened_at,
    )

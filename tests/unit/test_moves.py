"""What a node counts as moving away from it, over a real store and real rings."""

from pathlib import Path

from penstock.checksums import BLOCK_BYTES
from penstock.objects import ObjectId
from penstock.placement import PlacedNode
from penstock.ring import Ring
from penstock_node.moves import Moved, cached_moves
from penstock_node.store import Store, Tier

MODEL = ObjectId("s3://b/model", "v1", 64 * BLOCK_BYTES, BLOCK_BYTES)
TAKES_BYTES = 17 * 4096
"""A chunk with its footer, in pages."""


def ring(**weights: int) -> Ring:
    nodes = [PlacedNode(name, f"host-{name}", "", weight) for name, weight in weights.items()]
    return Ring.build(nodes, 256)


def store_of_all_chunks(directory: Path) -> Store:
    store = Store([Tier(directory, 2 * MODEL.chunk_count * TAKES_BYTES, "owned")])
    payload = bytes(BLOCK_BYTES)
    for index in range(MODEL.chunk_count):
        assert store.put(MODEL, index, payload, owned=True, reason="read")
    return store


def owned_by(ring: Ring, node: str) -> set[int]:
    return {i for i in range(MODEL.chunk_count) if ring.owners(MODEL.chunk_id(i), 1) == [node]}


def test_a_change_moves_only_what_the_node_owned_before_it(tmp_path: Path) -> None:
    now, then = ring(a=100, b=100, c=100), ring(a=100, b=100, c=300)
    store = store_of_all_chunks(tmp_path)

    moves = cached_moves(store, "a", then, present=now)

    count = len(owned_by(now, "a") & owned_by(then, "c"))
    assert count > 0
    assert moves == [Moved("a", "c", cached_bytes=count * TAKES_BYTES, cached_chunks=count)]
    store.close()

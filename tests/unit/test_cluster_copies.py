"""How many copies are kept of what, and how a node of a cluster comes to know."""

import json
from typing import Any

import pytest

from penstock.membership.coordinator import Entry, Listing
from penstock.placement import PlacedNode, Placement
from penstock.volumes import Volume, Volumes
from penstock_node.cluster import Cluster
from penstock_node.cluster_copies import Copies
from penstock_node.coordination.state import ClusterState


def copies(usual: int, **replicas: tuple[str, int | None]) -> Copies:
    volumes = {name: Volume(name, url, replicas=number) for name, (url, number) in replicas.items()}
    return Copies.of_volumes(usual, Volumes(volumes))


def test_the_volume_with_the_longest_prefix_says() -> None:
    kept = copies(
        1, outer=("s3://b/", 2), inner=("s3://b/llama/", 3), silent=("s3://b/llama/tmp/", None)
    )

    assert kept.of("s3://b/x") == 2
    assert kept.of("s3://b/llama/7b/x") == 3
    assert kept.of("s3://b/llama") == 2
    assert kept.of("s3://b/llama/tmp/x") == 1
    assert kept.of("s3://other/x") == 1
    assert kept.most == 3


def test_of_two_volumes_over_one_place_the_larger_number_counts() -> None:
    assert copies(1, a=("s3://b/", 2), z=("s3://b/", None)).of("s3://b/x") == 2
    assert copies(3, a=("s3://b/", None), z=("s3://b/", 1)).of("s3://b/x") == 3


def test_buckets_of_one_name_in_two_stores_are_two_places() -> None:
    near = Volume("near", "s3://b/", {"endpoint": "http://n:1", "allow_http": True}, replicas=2)
    kept = Copies.of_volumes(1, Volumes({"near": near, "far": Volume("far", "s3://b/")}))

    assert kept.of(f"{near.object_key_prefix}x") == 2
    assert kept.of("s3://b/x") == 1


def test_what_changes_no_number_is_no_change() -> None:
    assert copies(2, a=("s3://a/", None), b=("s3://b/", 2)) == Copies(2)
    assert copies(2, a=("s3://a/", 1)) != copies(2, a=("s3://b/", 1))
    assert Copies(3).most == 3


@pytest.mark.parametrize("usual", [1, 2])
async def test_a_node_learns_of_a_change_with_the_next_state(usual: int) -> None:
    def state(replicas: int | None) -> ClusterState:
        placement = Placement("ab" * 16, 1, (PlacedNode("a", "a", "", 100),), 64)
        volume: dict[str, Any] = {"url": "s3://b/", "replicas": replicas}
        values = {
            "placement": placement.to_json(),
            "settings": json.dumps({"replicas": usual}).encode(),
            "volumes/models": json.dumps(volume).encode(),
        }
        entries = {key: Entry(value, 1) for key, value in values.items()}
        return ClusterState.from_listing(Listing(entries, 1, store_id=1))

    cluster, told = Cluster(node_id="a", name="test"), []
    for replicas in (None, 3, None):
        await cluster.take(state(replicas))
        told.append((cluster.replicas_of("s3://b/x"), cluster.replicas_of("s3://c/x")))

    assert told == [(usual, usual), (3, usual), (usual, usual)]

"""Reading the origin when no node answers: only for those who asked for it."""

import random
from pathlib import Path

import pytest

import penstock
from penstock_node.testbed.cluster import LocalCluster, NodeSpec
from penstock_node.testbed.s3 import S3Server

_OBJECT = random.Random(11).randbytes(3 * 256 * 1024 + 99)
_URL = "penstock://models/object"


@pytest.fixture
def cluster(tmp_path: Path, s3: S3Server) -> LocalCluster:
    s3.create_bucket("fallback")
    s3.put("fallback", "object", _OBJECT)
    return LocalCluster(
        tmp_path,
        [NodeSpec("node")],
        etcd=None,
        settings={"chunk_size": 256 * 1024},
        volumes={"models": {"url": "s3://fallback/", "options": s3.options}},
    )


@pytest.mark.parametrize("diverted", [False, True])
def test_an_open_object_is_read_from_its_origin_when_no_node_answers(
    cluster: LocalCluster, diverted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if diverted:  # As where programs read through a node's S3 gateway.
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with cluster, cluster.connect(fallback="origin") as cache, cache.open(_URL) as file:
        cluster["node"].kill()

        assert file.readall() == _OBJECT
        assert cache.stats()["source"] == {"origin": len(_OBJECT)}


def test_without_asking_for_it_the_origin_is_left_alone(cluster: LocalCluster) -> None:
    with cluster, cluster.connect() as cache, cache.open(_URL) as file:
        cluster["node"].kill()

        with pytest.raises(penstock.ClusterUnavailable):
            file.readall()


def test_an_overwritten_object_is_noticed_at_the_origin_too(
    cluster: LocalCluster, s3: S3Server
) -> None:
    with cluster, cluster.connect(fallback="origin") as cache, cache.open(_URL) as file:
        cluster["node"].kill()
        s3.put("fallback", "object", _OBJECT[::-1])

        with pytest.raises(penstock.ObjectChanged):
            file.readall()

"""Who lists objects and opens each costs the origin the listing, and no question for each."""

from pathlib import Path

import penstock
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.site import Site

OBJECTS = 40
TTL_S = 3.0
LONG_TTL_S = 300.0
DEADLINE_S = 30.0


def site_of(directory: Path, s3: S3Server, etcd: EtcdServer, *, open_ttl_s: float) -> Site:
    return Site(directory / "listed-opens", s3, etcd, settings={"open_ttl_s": open_ttl_s})


def test_objects_that_a_listing_told_are_opened_without_asking_for_each(
    tmp_path: Path, s3: S3Server, etcd: EtcdServer
) -> None:
    site = site_of(tmp_path, s3, etcd, open_ttl_s=LONG_TTL_S)
    stored = [site.put(f"many/{at:03}", size=100) for at in range(OBJECTS)]
    with site, site.cluster.connect(site.cluster["n1"]) as cache:
        listed = {info.url: info.version for info in cache.list("penstock://models/many/")}

        opened = {each.url: cache.stat(each.url) for each in stored}

        assert {url: info.version for url, info in opened.items()} == listed
        assert site.origin_requests("head") == 0
        assert [cache.read(each.url) for each in stored] == [each.data for each in stored]


def test_an_object_that_was_overwritten_after_the_listing_is_seen_in_time(
    tmp_path: Path, s3: S3Server, etcd: EtcdServer
) -> None:
    site = site_of(tmp_path, s3, etcd, open_ttl_s=TTL_S)
    old = site.put("changing", size=1_000)
    with site, site.cluster.connect(site.cluster["n1"]) as cache:
        list(cache.list("penstock://models/"))
        assert cache.read(old.url) == old.data
        new = site.put("changing", size=2_000)

        assert cache.read(old.url, refresh=True) == new.data
        with penstock.connect(site.address) as other:
            wait_until(
                lambda: other.read(old.url) == new.data, deadline_s=DEADLINE_S, what="it is seen"
            )

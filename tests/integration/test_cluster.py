"""The main job, end to end: three node processes over a real etcd and a real S3 server."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from penstock import operator
from penstock.errors import ObjectChanged
from penstock_node.testbed.cluster import NodeProcess, NodeSpec, TierSpec, to_toml
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.model import MODEL_BYTES, MODEL_SHA256, model_path
from penstock_node.testbed.processes import free_port, wait_until
from penstock_node.testbed.readers import Readers
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.site import CHUNK_BYTES, MIB, Site
from tests.integration.short_lease import short_leases

DEADLINE_S = 30.0
OPEN_TTL_S = 3.0
LONG_OPEN_TTL_S = 300.0
HOSTS = 500
THREADS = 100
READING_PROCESSES = 16


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, s3: S3Server, etcd: EtcdServer
) -> Iterator[Site]:
    """Three nodes of capacities 1 : 2 : 3; nobody breaks them."""
    nodes = [NodeSpec(f"n{i}", (TierSpec("owned", i * 200 * MIB),)) for i in (1, 2, 3)]
    settings = {"open_ttl_s": OPEN_TTL_S}
    with Site(tmp_path_factory.mktemp("cluster"), s3, etcd, nodes=nodes, settings=settings) as made:
        yield made


@pytest.fixture
def believed(site: Site) -> Iterator[None]:
    """What was looked up once stays true, however long a busy machine takes for a herd."""
    _set_open_ttl(site, LONG_OPEN_TTL_S)
    yield
    _set_open_ttl(site, OPEN_TTL_S)


def _set_open_ttl(site: Site, seconds: float) -> None:
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(operator.connect(node.address)) for node in site.cluster.running
        ]
        nodes[0].set_settings({"open_ttl_s": seconds})
        wait_until(
            lambda: all(node.settings()["open_ttl_s"] == seconds for node in nodes),
            deadline_s=DEADLINE_S,
            what="all nodes know how long an answer is believed",
        )


@pytest.mark.usefixtures("believed")
def test_sixteen_processes_read_a_cold_model_and_each_byte_leaves_the_origin_once(
    site: Site, tmp_path: Path
) -> None:
    site.s3.put(site.name, "model.safetensors", model_path())
    url, chunks = "penstock://models/model.safetensors", -(-MODEL_BYTES // CHUNK_BYTES)
    counted, gets = site.s3.counters(), site.origin_requests("get")
    heads, sent = site.origin_requests("head"), site.cluster.total("penstock_origin_bytes_total")

    with Readers(
        tmp_path / "r", site.address, url, processes=READING_PROCESSES, reads_max=1
    ) as readers:
        reports = readers.release().wait_done()

    assert [report.errors for report in reports] == [[]] * READING_PROCESSES
    assert [report.digests for report in reports] == [[MODEL_SHA256]] * READING_PROCESSES
    # By the nodes' own account.
    assert site.origin_requests("get") - gets == chunks
    assert site.origin_requests("head") - heads == 1
    assert site.cluster.total("penstock_origin_bytes_total") - sent == MODEL_BYTES
    # And by the origin's.
    site.s3.wait_for_counters(
        replace(
            counted,
            range_requests=counted.range_requests + chunks,
            whole_requests=counted.whole_requests + 1,
            sent_bytes=counted.sent_bytes + MODEL_BYTES,
        )
    )


@pytest.mark.usefixtures("believed")
def test_five_hundred_hosts_open_one_url_at_once_with_one_look_up_at_the_origin(
    site: Site,
) -> None:
    stored = site.put("popular.bin", size=3 * CHUNK_BYTES)
    heads, counted = site.origin_requests("head"), site.s3.counters()
    nodes = list(site.cluster.nodes.values())
    together = threading.Barrier(THREADS)

    def open_as_a_few_hosts(thread: int) -> list[str]:
        together.wait(DEADLINE_S)
        versions = []
        for host in range(thread, HOSTS, THREADS):
            # A cache of its own: it knows nothing and shares no connection.
            with site.cluster.connect(nodes[host % len(nodes)]) as cache:
                versions.append(cache.stat(stored.url).version)
        return versions

    with ThreadPoolExecutor(THREADS) as threads:
        opened = [
            v for versions in threads.map(open_as_a_few_hosts, range(THREADS)) for v in versions
        ]

    assert len(opened) == HOSTS
    assert len(set(opened)) == 1
    assert site.origin_requests("head") - heads == 1
    site.s3.wait_for_counters(replace(counted, whole_requests=counted.whole_requests + 1))


def test_a_whole_read_that_meets_an_overwritten_object_returns_the_new_one_entirely(
    site: Site,
) -> None:
    old = site.put("overwritten.bin")
    with site.cluster.connect() as cache:
        cache.read(old.url, 0, 5 * CHUNK_BYTES)  # The rest of this version is not cached.
        new = site.put("overwritten.bin")

        assert cache.read(old.url) == new.data


def test_an_open_handle_never_mixes_versions_and_the_next_one_has_the_new(site: Site) -> None:
    old = site.put("handle.bin")
    with site.cluster.connect() as cache, cache.open(old.url) as handle:
        begun = handle.read(5 * CHUNK_BYTES)
        new = site.put("handle.bin")

        with pytest.raises(ObjectChanged):
            handle.read()
        handle.seek(0)
        cached = handle.read(5 * CHUNK_BYTES)
        with cache.open(old.url) as opened_again:
            after = opened_again.read()

    assert begun == cached == old.data[: 5 * CHUNK_BYTES]
    assert after == new.data


def test_readers_of_a_cached_object_see_the_new_version_once_the_old_opens_are_stale(
    site: Site, tmp_path: Path
) -> None:
    """All of them read only what is cached, so that nothing but time tells them."""
    old = site.put("followed.bin")
    with Readers(tmp_path / "r", site.address, old.url, processes=3) as readers:
        readers.release().wait_reads(1)
        new = site.put("followed.bin")
        written_at = time.monotonic()

        wait_until(
            lambda: all(new.sha256 in report.digests for report in readers.reports),
            deadline_s=DEADLINE_S,
            what="all readers see the new version",
        )
        print(f"seen by all after {time.monotonic() - written_at:.1f} s of {OPEN_TTL_S} s")
        readers.wait_reads(1)
        reports = readers.finish()

    assert [report.errors for report in reports] == [[]] * 3
    # The old, then the new: never anything else, and never the old again.
    assert [report.digests for report in reports] == [[old.sha256, new.sha256]] * 3


# What a node refuses ------------------------------------------------------------------------


def alone(directory: Path, spec: NodeSpec, site: Site, **shared: object) -> NodeProcess:
    """Return a node beside the site's, with its etcd and its cluster unless told otherwise."""
    keys = {
        "cluster": site.name,
        "etcd": {"endpoints": [site.etcd.endpoint]},
        "settings": site.settings,
        "volumes": site.volumes,
    }
    return NodeProcess(directory, spec, shared={**keys, **shared})


def refusal(node: NodeProcess) -> str:
    """Return what a launched node says at its end, which must be in order and not long after."""
    assert node.process.wait(timeout_s=DEADLINE_S) == 1
    last_line = node.process.log_tail().splitlines()[-1]
    assert last_line.startswith("penstock: ")
    return last_line


def test_a_second_node_with_an_id_that_is_in_use_is_refused_and_the_first_goes_on(
    site: Site, tmp_path: Path
) -> None:
    first, stored, epoch = site.cluster["n1"], site.put("undisturbed.bin"), site.epoch
    second = alone(tmp_path, NodeSpec("n1"), site)

    with short_leases(site.cluster):  # It waits for as long as one lasts.
        second.launch()
        said = refusal(second)

    assert "'n1' is in use by host '127.0.0.1'" in said
    assert first.address in said
    assert site.epochs() == {epoch}
    with site.cluster.connect(first) as cache:
        assert cache.read(stored.url) == stored.data
        assert cache.cluster_view.members["n1"].grpc_address == first.address


def test_a_tier_that_cannot_be_written_is_refused_by_its_path(site: Site, tmp_path: Path) -> None:
    node = alone(tmp_path, NodeSpec("blocked"), site)
    node.tier_paths[0].write_text("a file where a directory should be")

    node.launch()

    assert f"tier {node.tier_paths[0]} cannot be used" in refusal(node)


def test_an_absent_etcd_is_named_when_there_is_no_last_view(site: Site, tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    node = alone(tmp_path, NodeSpec("early"), site, etcd={"endpoints": [nobody]})

    node.launch()

    assert f"{nobody} does not answer" in refusal(node)


def test_a_state_directory_of_another_cluster_is_refused_by_both_names(
    site: Site, tmp_path: Path
) -> None:
    node = NodeProcess(tmp_path, NodeSpec("mover"), shared={"cluster": "before"})
    node.start().stop()
    node.config_file.write_text(
        node.config_file.read_text().replace(
            to_toml({"cluster": "before"}), to_toml({"cluster": "after"})
        )
    )

    node.launch()
    said = refusal(node)

    assert "'before'" in said
    assert "'after'" in said

"""What nodes and catalogs export: named as Prometheus wants it, as many series however they are
used, and all that dashboards, rules and pages name."""

import asyncio
import http.client
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from exported import Exported, of_catalog, of_node

import penstock
from penstock.v1 import cache_pb2, cache_pb2_grpc
from penstock_node.testbed.cluster import TierSpec
from tests.integration.monitoring import (
    DASHBOARD,
    OF_PROMETHEUS,
    ROOT,
    Query,
    meant,
    panel_queries,
    rule_queries,
    rules,
)
from tests.integration.one_node import OneNode, one_node

MIB = 1024 * 1024
CONTRACT: dict[str, set[str]] = {
    "penstock_chunk_reads_total": {"source"},
    "penstock_read_bytes_total": {"source"},
    "penstock_served_bytes_total": {"plane"},
    "penstock_origin_requests_total": {"volume", "operation"},
    "penstock_origin_bytes_total": {"volume"},
    "penstock_fill_duration_seconds": set(),
    "penstock_tier_used_bytes": {"tier", "role"},
    "penstock_tier_capacity_bytes": {"tier", "role"},
    "penstock_disk_healthy": {"disk"},
    "penstock_evicted_bytes_total": set(),
    "penstock_corrupt_chunks_total": set(),
    "penstock_placement_epoch": set(),
    "penstock_weight": set(),
    "penstock_handoff_bytes_total": set(),
    "penstock_inflight_bytes": set(),
    "penstock_etcd_connected": set(),
    "penstock_build_info": {"version"},
}
"""What others rely on."""
UNITS = ("seconds", "bytes")
OTHER_UNITS = re.compile(r"_(ms|us|ns|s|milliseconds|minutes|kb|mb|kib|mib|gb|percent|ratio)(_|$)")
NO_METRICS = {"penstock_mirror", "penstock_node"}
"""The beginning of several; a package."""
BOUNDED = {
    *("source", "plane", "stage", "lane", "pool", "tier", "role", "disk", "operation", "volume"),
    *("error", "state", "outcome", "method", "code", "port", "kind", "status", "version", "reason"),
}
"""Labels whose values are few: names out of the program, of its configuration, of volumes."""


@pytest.fixture(scope="module")
def exported() -> dict[str, Exported]:
    """All metrics, by name."""
    with (
        tempfile.TemporaryDirectory(prefix="penstock-") as one,
        tempfile.TemporaryDirectory() as two,
    ):
        found = [*asyncio.run(of_node(Path(one))), *asyncio.run(of_catalog(Path(two)))]
    return {each.name: each for each in found}


@pytest.fixture(scope="module")
def labels(exported: dict[str, Exported]) -> dict[str, set[str]]:
    """The labels of each metric, and of what rules record."""
    found = {name: {*each.labels, *OF_PROMETHEUS} for name, each in exported.items()}
    found["up"] = OF_PROMETHEUS
    for rule in rules():
        if "record" in rule:
            found[rule["record"]] = Query("", rule["expr"]).grouped
    return found


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneNode]:
    with one_node(
        tmp_path_factory.mktemp("metrics"),
        [TierSpec("owned", 64 * MIB)],
        chunk_bytes=256 * 1024,
        config={"s3_port": 0, "s3_auth": "anonymous"},
    ) as started:
        started.put("object", bytes(MIB))
        yield started


def test_every_metric_says_what_it_counts(exported: dict[str, Exported]) -> None:
    assert len(exported) > 90
    assert [name for name, each in exported.items() if len(each.text) < 8] == []


def test_names_follow_the_conventions_of_prometheus(exported: dict[str, Exported]) -> None:
    wrong = []
    for name, each in exported.items():
        base = name.removesuffix("_total").removesuffix("_max")
        is_of_unit = any(unit in base.split("_") for unit in UNITS)
        if name.endswith("_total") != (each.type == "counter") or OTHER_UNITS.search(base):
            wrong.append(name)
        if is_of_unit and not base.endswith(UNITS):
            wrong.append(name)
        if each.type == "histogram" and not name.endswith("_seconds"):
            wrong.append(name)

    assert {name.partition("_")[0] for name in exported} == {"penstock", "process"}
    assert wrong == []


def test_what_others_rely_on_is_there_with_its_labels(exported: dict[str, Exported]) -> None:
    found = {name: set(exported[name].labels) for name in CONTRACT}

    assert found == CONTRACT


def test_labels_are_those_whose_values_are_few(exported: dict[str, Exported]) -> None:
    assert {label for each in exported.values() for label in each.labels} <= BOUNDED


@pytest.mark.parametrize("of", ["rules", "dashboard"])
def test_queries_ask_for_what_is_exported(of: str, labels: dict[str, set[str]]) -> None:
    queries = rule_queries() if of == "rules" else panel_queries()

    assert len(queries) > 50
    unknown = {(each.where, name) for each in queries for name in each.names - labels.keys()}
    assert unknown == set()
    for each in queries:
        assert each.names, f"{each.where} asks for nothing"
        for name, asked in each.matched:
            assert asked <= labels[name], f"{each.where}: {name}"
        assert each.grouped <= set().union(*(labels[name] for name in each.names)), each.where


def test_variables_and_annotations_of_the_dashboard_ask_for_what_is_exported(
    labels: dict[str, set[str]],
) -> None:
    board = json.loads(DASHBOARD.read_text())
    asked = [
        each["query"]["query"] for each in board["templating"]["list"] if each["type"] == "query"
    ]
    asked += [each["expr"] for each in board["annotations"]["list"]]

    found = [Query("", meant(text)).names for text in asked]

    assert len(found) >= 4
    assert all(found)
    assert set().union(*found) <= labels.keys()


def test_the_dashboard_shows_all_that_is_exported(exported: dict[str, Exported]) -> None:
    shown = set().union(*(each.names for each in panel_queries()))
    elsewhere = {
        "process_virtual_memory_bytes",  # Chunks that are mapped make it say little.
        "penstock_grpc_request_duration_seconds",  # Many of them wait by design.
        "penstock_connections_max",  # Of interest once it is near: there is an alert.
    }

    assert exported.keys() - shown <= elsewhere


def test_pages_name_what_is_exported(exported: dict[str, Exported]) -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    named = {
        (page.name, re.sub(r"_(bucket|sum|count)$", "", name))
        for page in pages
        for name in re.findall(r"(?<![/.\w])penstock_[a-z0-9_]+(?![/.\w(])", page.read_text())
    }

    assert len(named) > 30
    assert {(page, name) for page, name in named if name not in exported} <= {
        (page, name) for page, name in named if name in NO_METRICS
    }


def test_no_label_grows_with_what_is_asked(node: OneNode) -> None:
    use_oddly(node, "first")
    before = set(node.node.metrics())

    for turn in ("second", "third"):
        use_oddly(node, turn)

    assert {name for name in before if "NoSuch" in name or "first" in name} == set()
    assert set(node.node.metrics()) == before


def test_calls_are_counted_by_method_and_by_how_they_end(node: OneNode) -> None:
    with grpc.insecure_channel(node.node.file.grpc_address) as channel:
        chunks = cache_pb2_grpc.ChunksStub(channel)
        with pytest.raises(grpc.RpcError):
            chunks.Get(cache_pb2.GetChunkRequest(ticket="forged", stop=65536), timeout=10)
        cache = cache_pb2_grpc.CacheStub(channel)
        list(cache.Read(cache_pb2.ReadRequest(url="penstock://data/object"), timeout=10))

    told = node.node.metrics()
    requests = "penstock_grpc_requests_total"
    assert told[f'{requests}{{code="PERMISSION_DENIED",method="Chunks.Get"}}'] == 1
    assert told[f'{requests}{{code="OK",method="Cache.Read"}}'] == 1
    assert told['penstock_grpc_request_duration_seconds_count{method="Cache.Read"}'] == 1
    assert told['penstock_tickets_refused_total{error="NotPermitted"}'] >= 1


def test_what_passes_through_a_node_is_counted_where_it_takes_time(node: OneNode) -> None:
    url, before = node.put("timed", bytes(MIB)), node.node.metrics()
    with node.connect("host") as cache:
        cache.read(url)
        cache.read(url)

    told = node.node.metrics()

    def rise(name: str) -> float:
        return told[name] - before.get(name, 0.0)

    disk = f'disk="{node.node.tier_paths[0]}"'
    assert rise("penstock_fill_duration_seconds_count") == 4
    assert rise('penstock_fill_stage_duration_seconds_count{stage="origin"}') == 4
    got = 'penstock_origin_request_duration_seconds_count{operation="get",volume="data"}'
    assert rise(got) == 4
    assert rise(f'penstock_disk_operations_total{{{disk},operation="write"}}') == 4
    assert rise(f'penstock_disk_operations_total{{{disk},operation="read"}}') >= 4
    assert rise('penstock_read_duration_seconds_count{plane="host",source="disk"}') == 4
    assert rise('penstock_read_duration_seconds_count{plane="host",source="origin"}') == 4
    assert rise('penstock_opens_total{outcome="opened"}') >= 1
    assert told["penstock_ready"] == 1
    assert told['penstock_node_state{state="alive"}'] == 1


def test_the_gateway_counts_operations_and_statuses(node: OneNode) -> None:
    address = node.node.file.s3_address
    before = node.node.metrics()
    for method, path in (
        ("GET", "/data/object"),
        ("HEAD", "/data/object"),
        ("GET", "/data?list-type=2"),
        ("GET", "/"),
        ("GET", "/data/none"),
        ("DELETE", "/data/object"),
    ):
        ask(address, method, path)
    ask(address, "GET", "/hf/api/models/org/name")

    told = node.node.metrics()
    rises = {
        name: told[name] - before.get(name, 0.0)
        for name in told
        if re.match("penstock_(s3|hub)_requests_total", name)
    }
    s3, hub = "penstock_s3_requests_total", "penstock_hub_requests_total"
    assert {name: rise for name, rise in rises.items() if rise} == {
        f'{s3}{{operation="GetObject",status="200"}}': 1,
        f'{s3}{{operation="HeadObject",status="200"}}': 1,
        f'{s3}{{operation="ListObjects",status="200"}}': 1,
        f'{s3}{{operation="ListBuckets",status="200"}}': 1,
        f'{s3}{{operation="GetObject",status="404"}}': 1,
        f'{s3}{{operation="Other",status="405"}}': 1,
        f'{hub}{{operation="info",status="404"}}': 1,
    }


def use_oddly(node: OneNode, word: str) -> None:
    """Ask for what is there and, in many ways, for what is not, under names of ``word``."""
    with node.connect("bulk") as cache:
        for _ in range(2):  # Filled, and then from disk.
            cache.read("penstock://data/object", length=4096)
        for number in range(8):
            for url in (f"penstock://data/{word}-{number}", f"penstock://{word}-{number}/object"):
                with pytest.raises(penstock.PenstockError):
                    cache.stat(url)
    for address in (node.node.file.s3_address, node.node.file.bulk_address):
        for number in range(8):
            name = f"{word}-{number}"
            ask(address, "GET", f"/data/{name}")
            ask(address, "GET", f"/{name}/object?{name}")
            ask(address, "GET", f"/hf/{name}/{name}/resolve/{name}/file")
            ask(address, "GET", f"/v1/chunk/{number}", {"Authorization": f"Penstock {name}"})
            ask(address, "POST", f"/v1/call/{name}/{name}")
            ask(address, f"X{word.upper()}", f"/data/{name}")


def ask(address: str, method: str, path: str, headers: dict[str, str] | None = None) -> None:
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request(method, path, headers=headers or {})
        connection.getresponse().read()
    finally:
        connection.close()

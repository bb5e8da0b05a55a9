"""Web pages that pretend to be this machine: what a browser would send, to a real node."""

import http.client
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from penstock.rpc import GET_PLACEMENT
from penstock_node.testbed.cluster import TierSpec
from penstock_node.testbed.site import MIB
from tests.integration.one_node import OneNode, one_node

REBOUND = "evil.example:7402"
PROXY = "penstock.example"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneNode]:
    config = {"s3_port": 0, "admin_hosts": [PROXY]}
    tiers = [TierSpec("owned", 64 * MIB)]
    with one_node(tmp_path_factory.mktemp("names"), tiers, chunk_bytes=MIB, config=config) as made:
        yield made


def ask(
    address: str, path: str, headers: Mapping[str, str], *, method: str = "GET", body: bytes = b""
) -> tuple[int, bytes, Mapping[str, str]]:
    connection = http.client.HTTPConnection(address, timeout=20)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders(body or None)
    answer = connection.getresponse()
    told = answer.status, answer.read(), {n.lower(): v for n, v in answer.getheaders()}
    connection.close()
    return told


@pytest.mark.parametrize("path", ["/", "/page/page.css", "/metrics", "/api/cluster", "/none"])
def test_the_admin_port_answers_by_names_of_its_own_alone(node: OneNode, path: str) -> None:
    address = node.node.file.admin_address
    found = {
        host: ask(address, path, {"Host": host})[0]
        for host in (address, "localhost:1", PROXY, REBOUND, f"{PROXY}.evil.example")
    }

    assert {found[host] for host in (address, "localhost:1", PROXY)} <= {200, 404}
    assert {found[host] for host in (REBOUND, f"{PROXY}.evil.example")} == {403}


def test_who_is_refused_is_told_what_to_set(node: OneNode) -> None:
    _, body, headers = ask(node.node.file.admin_address, "/api/cluster", {"Host": REBOUND})

    told = json.loads(body)
    assert told["error"] == "NotPermitted"
    assert "admin_hosts" in told["message"]
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_may_come_by_any_name(node: OneNode, path: str) -> None:
    assert ask(node.node.file.admin_address, path, {"Host": REBOUND})[0] == 200


@pytest.mark.parametrize("path", ["/api/cluster", "/metrics", "/"])
def test_a_browser_is_told_not_to_guess_types_nor_to_let_other_pages_load_it(
    node: OneNode, path: str
) -> None:
    address = node.node.file.admin_address

    _, _, headers = ask(address, path, {"Host": address})

    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    if path == "/":
        assert "frame-ancestors 'none'" in headers["content-security-policy"]


def test_the_gateway_gives_nothing_to_a_page_that_pretends_to_be_it(node: OneNode) -> None:
    node.put("x", b"weights")
    address = node.node.file.s3_address

    status, body, _ = ask(address, "/data/x", {"Host": address})
    assert (status, body) == (200, b"weights")
    status, body, _ = ask(address, "/data/x", {"Host": REBOUND})
    assert status == 403
    assert b"AccessDenied" in body
    assert b"admin_hosts" in body


def test_the_hub_refuses_such_a_page_in_its_own_words(node: OneNode) -> None:
    path = "/hf/api/models/org/name"

    status, body, headers = ask(node.node.file.s3_address, path, {"Host": REBOUND})

    assert (status, headers["content-type"]) == (403, "application/json; charset=utf-8")
    assert "admin_hosts" in json.loads(body)["error"]
    assert ask(node.node.file.s3_address, path, {"Host": PROXY})[0] == 404


def test_nor_does_the_gateway_of_a_node_that_all_machines_reach(tmp_path: Path) -> None:
    """A browser of a network that is trusted is as good as one of this machine."""
    config = {
        "listen_host": "0.0.0.0",  # noqa: S104 - it is what this is about.
        "advertise_host": "127.0.0.1",
        "insecure": True,
        "s3_port": 0,
        "s3_auth": "ignore",
        "s3_trusted_networks": ["127.0.0.0/8"],
        "admin_hosts": [PROXY],
    }
    tiers = [TierSpec("owned", 64 * MIB)]
    with one_node(tmp_path, tiers, chunk_bytes=MIB, config=config) as node:
        node.put("x", b"weights")
        address = node.node.file.s3_address
        found = {
            host: ask(address, "/data/x", {"Host": host})[0] for host in (address, PROXY, REBOUND)
        }

    assert found == {address: 200, PROXY: 200, REBOUND: 403}


def test_a_web_page_may_not_call_a_node_over_its_bulk_port(node: OneNode) -> None:
    address = node.node.file.bulk_address
    path = f"/v1/call{GET_PLACEMENT.path}"
    found = [
        ask(address, path, {"Host": address, "Content-Length": "0", **more}, method="POST")[0]
        for more in ({}, {"Origin": "http://evil.example"}, {"Origin": "null"})
    ]

    assert found == [200, 403, 403]

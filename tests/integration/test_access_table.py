"""Every call of every port, tried with every kind of credential: the table in docs/security.md.

Write it anew with: WRITE_ACCESS_TABLE=1 pytest tests/integration/test_access_table.py
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
import pytest

from penstock.errors import PenstockError
from penstock.host_calls import HostCalls
from penstock.host_connection import HostConnections
from penstock.membership.nodes import READING
from penstock_node.serve.hub.requests import Operation as HubOperation
from penstock_node.serve.s3.gateway import SERVED
from penstock_node.testbed.etcd import EtcdServer
from tests.integration.access_rig import (
    CALLERS,
    EVENTS_TOKEN,
    FILE,
    REPO,
    VOLUME,
    Rig,
    admin_routes,
    bulk_paths,
    cell,
    grpc_outcome,
    http_outcome,
    hub_headers,
    minimal,
    rig_of,
    row,
    s3_headers,
    served,
    services,
    told_by,
)

PAGE = Path(__file__).parents[2] / "docs/security.md"
BEGIN, END = "<!-- access table: begin -->", "<!-- access table: end -->"
OF_CATALOG = ("penstock.v1.Catalog",)
OF_KEYS = CALLERS[:5]
"""Keys of S3 have no role but this one."""
TICKETS = ("none", "forged", "another cluster's", "expired", "good")
S3_CALLS = {
    "ListBuckets": "GET /",
    "HeadBucket": f"HEAD /{VOLUME}",
    "GetBucketLocation": f"GET /{VOLUME}?location=",
    "ListObjects": f"GET /{VOLUME}",
    "ListObjectsV2": f"GET /{VOLUME}?list-type=2",
    "HeadObject": f"HEAD /{VOLUME}/{REPO}/{FILE}",
    "GetObject": f"GET /{VOLUME}/{REPO}/{FILE}",
}
S3_WRITES = {"PutObject": f"PUT /{VOLUME}/x", "DeleteObject": f"DELETE /{VOLUME}/x"}
HUB_CALLS: dict[HubOperation, str] = {
    "info": f"GET /hf/api/models/{REPO}",
    "tree": f"GET /hf/api/models/{REPO}/tree/main",
    "paths": f"POST /hf/api/models/{REPO}/paths-info/main",
    "file": f"GET /hf/{REPO}/resolve/main/{FILE}",
}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory, etcd: EtcdServer) -> Iterator[Rig]:
    with rig_of(tmp_path_factory.mktemp("access"), etcd) as running:
        yield running


def table(title: str, rows: Sequence[str], columns: Sequence[str] = CALLERS) -> list[str]:
    """Return a table under a title; that of no row is not there."""
    head = row("", columns)
    return ["", f"### {title}", "", head, f"|---{'|---' * len(columns)}|", *rows]


def grpc_rows(rig: Rig, address: str, names: Sequence[str]) -> list[str]:
    rows, known = [], services()
    with grpc.insecure_channel(address) as channel:
        for method in (method for name in names for method in known[name].methods):
            name = f"`{method.containing_service.name}/{method.name}`"
            cells = []
            for caller in CALLERS:
                request = minimal(method.input_type, rig.ticket())
                cells.append(grpc_outcome(channel, method, request, rig.header(caller)))
            rows.append(row(name, cells))
    return rows


def bulk_rows(rig: Rig) -> list[str]:
    address, rows = rig.node.file.bulk_address, []
    for prefix in bulk_paths():
        if prefix == "/v1/call/":
            continue
        cells = []
        for caller in CALLERS:
            shown = {"Authorization": rig.header(caller)} if rig.header(caller) else {}
            cells.append(cell(http_outcome(address, f"GET {prefix}0", shown)[0]))
        rows.append(row(f"`GET {prefix}…`, and no ticket", cells))
    for method in sorted(READING, key=lambda each: each.path):
        body = minimal(method.request.DESCRIPTOR, rig.ticket()).SerializeToString()
        cells = []
        for caller in CALLERS:
            shown = {"Authorization": rig.header(caller)} if rig.header(caller) else {}
            status, _ = http_outcome(address, f"POST /v1/call{method.path}", shown, body)
            cells.append(cell(status))
        rows.append(row(f"`POST /v1/call{method.path}`", cells))
    return rows


def ticket_rows(rig: Rig) -> list[str]:
    rows = []
    for prefix in (each for each in bulk_paths() if each != "/v1/call/"):
        cells = []
        for kind in TICKETS:
            shown = {"Authorization": f"Penstock {rig.ticket(kind=kind)}"} if kind != "none" else {}
            headers = {**shown, "Penstock-If": "cached"}
            status, error = http_outcome(rig.node.file.bulk_address, f"GET {prefix}0", headers)
            cells.append("yes" if error == "NotCached" else cell(status))
        rows.append(row(f"`GET {prefix}…`", cells))
    return rows


def host_rows(rig: Rig) -> list[str]:
    """The socket, with ``socket_auth = "token"``."""
    rows = []
    for method in sorted(READING, key=lambda each: each.path):
        cells = []
        for caller in CALLERS:
            header = rig.header(caller)
            connections = HostConnections(authorization=(lambda shown=header: shown))
            request = minimal(method.request.DESCRIPTOR, rig.ticket())
            try:
                HostCalls(connections).call(rig.node.file.socket, method, request)
                cells.append("yes")
            except PenstockError as error:
                cells.append(told_by(error))
            connections.close()
        rows.append(row(f"`{method.path.rpartition('.')[2]}`", cells))
    return rows


def admin_rows(rig: Rig, process: str, address: str) -> list[str]:
    rows = []
    for line in admin_routes()[process]:
        asked = line.replace("{name}", "page.css").replace(
            "/chunks", f"/chunks?url=penstock://{VOLUME}/"
        )
        cells = []
        for caller in CALLERS:
            shown = {"Authorization": rig.header(caller)} if rig.header(caller) else {}
            cells.append(cell(http_outcome(address, asked, shown)[0]))
        rows.append(row(f"`{line}`", cells))
    return rows


def s3_rows(rig: Rig) -> list[str]:
    address, rows = rig.node.file.s3_address, []
    for name, line in {**S3_CALLS, **S3_WRITES}.items():
        cells = [
            cell(http_outcome(address, line, s3_headers(address, line, caller))[0])
            for caller in OF_KEYS
        ]
        rows.append(row(f"`{name}`", cells))
    for operation, line in HUB_CALLS.items():
        body = b'{"paths": []}' if line.startswith("POST") else b""
        cells = []
        for caller in OF_KEYS:
            if caller == "expired":
                cells.append("")
                continue
            headers = {**hub_headers(caller), "Content-Type": "application/json"}
            cells.append(cell(http_outcome(address, line, headers, body)[0]))
        rows.append(row(f"hub: {operation}", cells))
    return rows


@pytest.fixture(scope="module")
def tables(rig: Rig) -> str:
    node, catalog = rig.node.address, rig.catalog.address
    of_node = served(node, rig.header("operator"))
    of_catalog = served(catalog, rig.header("operator"))
    lines = [
        *table("gRPC port of a node", grpc_rows(rig, node, of_node)),
        *table("gRPC port of a catalog", grpc_rows(rig, catalog, of_catalog)),
        *table("Bulk port", bulk_rows(rig)),
        *table("Bulk port: tickets", ticket_rows(rig), TICKETS),
        *table('Socket, with `socket_auth = "token"`', host_rows(rig)),
        *table("Admin port of a node", admin_rows(rig, "node", rig.node.file.admin_address)),
        *table("Admin port of a catalog", admin_rows(rig, "catalog", rig.catalog.admin_address)),
        *table('S3 port, with `s3_auth = "keys"`', s3_rows(rig), OF_KEYS),
        "",
    ]
    return "\n".join(lines)


def test_every_service_that_is_defined_is_tried(rig: Rig) -> None:
    tried = {
        *served(rig.node.address, rig.header("operator")),
        *served(rig.catalog.address, rig.header("operator")),
    }

    assert tried == set(services())


def test_every_operation_of_s3_and_of_the_hub_is_tried() -> None:
    assert set(re.split(r", | and ", SERVED)) == set(S3_CALLS)
    assert set(HUB_CALLS) == set(HubOperation.__args__)


def test_the_page_says_who_may_do_what_as_the_processes_do(tables: str) -> None:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    written, _, after = rest.partition(END)
    if os.environ.get("WRITE_ACCESS_TABLE"):
        PAGE.write_text(f"{before}{BEGIN}\n{tables}\n{END}{after}")
        written = f"\n{tables}\n"

    assert written.split() == tables.split(), (
        "docs/security.md has another table. If the change is meant, write it anew: "
        f"WRITE_ACCESS_TABLE=1 pytest {Path(__file__).name}"
    )


def rows_of(tables: str) -> list[list[str]]:
    return [
        [each.strip() for each in line.strip("|").split("|")]
        for line in tables.splitlines()
        if line.startswith("| ") and not line.startswith("|  |")
    ]


def test_nobody_is_let_in_anywhere_but_to_probes(tables: str) -> None:
    open_to_all = {name for name, *cells in rows_of(tables) if cells[0] == "yes"}

    assert open_to_all == {
        "`Health/Check`", "`Health/List`", "`Health/Watch`", "`GET /healthz`", "`GET /readyz`"
    }  # fmt: skip


def test_whoever_shows_what_is_wrong_or_over_is_as_nobody(tables: str) -> None:
    assert [cells for name, *cells in rows_of(tables) if len(cells) == len(CALLERS)]
    for name, *cells in rows_of(tables):
        if len(cells) == len(CALLERS):
            assert cells[1] == cells[2] == cells[0] or cells[0] == "403", name


def test_a_higher_role_may_do_what_a_lower_may(tables: str) -> None:
    for name, *cells in rows_of(tables):
        if len(cells) == len(CALLERS):
            may = [cells[CALLERS.index(role)] == "yes" for role in ("reader", "writer", "operator")]
            assert may == sorted(may), name


def test_the_catalog_hears_events_of_who_has_its_token(rig: Rig) -> None:
    headers = {"Authorization": f"Bearer {EVENTS_TOKEN}"}

    status, _ = http_outcome(rig.catalog.admin_address, "POST /events", headers, b'{"Records": []}')

    assert status == 200

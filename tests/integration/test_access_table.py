"""Every call of every port, tried with every kind of credential: the table in docs/security.md.

Write it anew with: WRITE_ACCESS_TABLE=1 pytest tests/integration/test_access_table.py
"""

import os
import re
import stat
import tarfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast, get_args

import grpc
import pytest
from typer.testing import CliRunner

from penstock.cli.app import app
from penstock.errors import PenstockError
from penstock.host_calls import HostCalls
from penstock.host_connection import HostConnections
from penstock.membership.nodes import READING
from penstock.rpc import Method
from penstock_node.coordination.records import TICKET_KEYS
from penstock_node.serve.hub.access import token_of as token_of_key
from penstock_node.serve.hub.requests import Operation as HubOperation
from penstock_node.serve.s3.access import Key
from penstock_node.serve.s3.gateway import SERVED
from penstock_node.testbed.etcd import EtcdServer
from tests.integration.access_rig import (
    CALLERS,
    EVENTS_TOKEN,
    FILE,
    REPO,
    S3_SECRET,
    URL,
    VOLUME,
    Rig,
    admin_routes,
    bulk_paths,
    cell,
    grpc_outcome,
    http_answer,
    hub_headers,
    let_in,
    minimal,
    rig_of,
    row,
    s3_headers,
    served,
    services,
    told_by,
    values_of,
)
from tests.integration.canaries import found_in

PAGE = Path(__file__).parents[2] / "docs/security.md"
BEGIN, END = "<!-- access table: begin -->", "<!-- access table: end -->"
OF_CATALOG = ("penstock.v1.Catalog",)
OF_KEYS = CALLERS[:5]
"""Keys of S3 have no role but this one."""
READ_CALLS: list[Method[Any, Any]] = sorted(
    cast("frozenset[Method[Any, Any]]", READING), key=lambda each: each.path
)
"""What is answered without gRPC too."""
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
            cells.append(cell(http_answer(address, f"GET {prefix}0", shown)[0]))
        rows.append(row(f"`GET {prefix}…`, and no ticket", cells))
    for method in READ_CALLS:
        body = minimal(method.request.DESCRIPTOR, rig.ticket()).SerializeToString()
        cells = []
        for caller in CALLERS:
            shown = {"Authorization": rig.header(caller)} if rig.header(caller) else {}
            line = f"POST /v1/call{method.path}"
            status, _, told = http_answer(address, line, shown, body)
            answer = method.response.FromString(told) if status == 200 else None
            cells.append(cell(status) if answer is None else let_in(method.path, answer))
        rows.append(row(f"`POST /v1/call{method.path}`", cells))
    return rows


def ticket_rows(rig: Rig) -> list[str]:
    rows = []
    for prefix in (each for each in bulk_paths() if each != "/v1/call/"):
        cells = []
        for kind in TICKETS:
            shown = {"Authorization": f"Penstock {rig.ticket(kind=kind)}"} if kind != "none" else {}
            headers = {**shown, "Penstock-If": "cached"}
            status, error, _ = http_answer(rig.node.file.bulk_address, f"GET {prefix}0", headers)
            cells.append("yes" if error == "NotCached" else cell(status))
        rows.append(row(f"`GET {prefix}…`", cells))
    return rows


def host_rows(rig: Rig) -> list[str]:
    """The socket, with ``socket_auth = "token"``."""
    rows = []
    for method in READ_CALLS:
        cells = []
        for caller in CALLERS:
            connections = HostConnections(authorization=partial(rig.header, caller))
            request = minimal(method.request.DESCRIPTOR, rig.ticket())
            try:
                answer = HostCalls(connections).call(rig.node.file.socket, method, request)
                cells.append(let_in(method.path, answer))
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
            cells.append(cell(http_answer(address, asked, shown)[0]))
        rows.append(row(f"`{line}`", cells))
    return rows


def s3_rows(rig: Rig) -> list[str]:
    address, rows = rig.node.file.s3_address, []
    for name, line in {**S3_CALLS, **S3_WRITES}.items():
        cells = [
            cell(http_answer(address, line, s3_headers(address, line, caller))[0])
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
            cells.append(cell(http_answer(address, line, headers, body)[0]))
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
    assert set(HUB_CALLS) == set(get_args(HubOperation))


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

    status, _, _ = http_answer(
        rig.catalog.admin_address, "POST /events", headers, b'{"Records": []}'
    )

    assert status == 200


# What stands where ------------------------------------------------------------------------


def secrets_of(rig: Rig) -> dict[str, str | bytes]:
    """Return every secret that anybody has shown or been given."""
    key = Key("k", "KEYOFALL", S3_SECRET)
    return {
        **{f"token of {caller}": token for caller, token in rig.tokens.items()},
        "secret of S3": S3_SECRET,
        "token of a hub's client": token_of_key(key).rpartition(".")[2],
        "token of events": EVENTS_TOKEN,
        "ticket": rig.ticket(),
        **{f"ticket key {key.id}": key.secret for key in rig.keys},
    }


VERBS: Sequence[Sequence[str]] = (
    ("status",),
    ("ls", f"penstock://{VOLUME}/"),
    ("stat", f"penstock://{VOLUME}/nothing"),
    ("read", URL),
    ("locate", URL),
    ("warmup", URL),
    ("trace", "--slow"),
    ("doctor",),
    ("volume", "ls"),
    ("volume", "add", "new", "s3://new/", "--option", f"secret_access_key={S3_SECRET}"),
    ("settings", "get"),
    ("tickets", "ls"),
    ("tickets", "rotate", "--revoke"),
    ("pins",),
)


def said_by_verbs(rig: Rig) -> dict[str, bytes]:
    """Run verbs, with a good token and with a wrong one."""
    said, runner = {}, CliRunner()
    for caller in ("operator", "wrong"):
        env = {"PENSTOCK_ADDRESS": rig.node.address, "PENSTOCK_TOKEN": rig.tokens[caller]}
        for words in VERBS:
            for more in ((), ("--json",)):
                result = runner.invoke(app, [*words, *more], env=env)
                told = f"{result.output} {result.stderr} {result.exception!r}"
                said[f"{' '.join(words)} by {caller} {more}"] = told.encode()
    bundle = rig.directory / "bundle.tar.gz"
    env["PENSTOCK_TOKEN"] = rig.tokens["operator"]
    result = runner.invoke(app, ["support-bundle", "-o", str(bundle)], env=env)
    assert result.exit_code == 0, result.output
    with tarfile.open(bundle) as archive:
        for each in archive.getmembers():
            file = archive.extractfile(each)
            said[each.name] = file.read() if file else b""
    checked = runner.invoke(app, ["config", "check", str(rig.node.config_file)])
    return {**said, "config check": f"{checked.output} {checked.stderr}".encode()}


def test_no_credential_stands_anywhere_but_where_it_belongs(
    rig: Rig, tables: str, etcd: EtcdServer
) -> None:
    secrets = secrets_of(rig)
    places = {
        "node log": rig.node.process.log.read_bytes(),
        "catalog log": rig.catalog.process.log.read_bytes(),
        **{path.name: path.read_bytes() for path in rig.directory.glob("audit*")},
        **said_by_verbs(rig),
    }
    for name, value in values_of(etcd, "access-table").items():
        if not name.startswith(TICKET_KEYS):
            places[f"etcd {name}"] = value
    header = {"Authorization": rig.header("operator")}
    for path in ("/", "/metrics", "/api/cluster", "/api/overview", "/api/history"):
        places[f"node {path}"] = http_answer(rig.node.file.admin_address, f"GET {path}", header)[2]
    places["catalog metrics"] = http_answer(rig.catalog.admin_address, "GET /metrics", header)[2]

    found = {place: names for place, data in places.items() if (names := found_in(data, secrets))}
    assert found == {}
    assert len(places["node log"]) > 1_000, "it has said what went on"
    assert any(name.startswith("audit") and places[name] for name in places)
    view = (rig.node.state_dir / "view.json").stat()
    assert stat.S_IMODE(view.st_mode) == 0o600, "ticket keys are in it"

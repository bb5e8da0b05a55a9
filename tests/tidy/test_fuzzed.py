"""No parser is forgotten: whatever takes apart what others wrote is fuzzed, or said why not."""

import ast
from pathlib import Path

from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
SIDES = (ROOT / "client", ROOT / "cachenode")
NOT_SHIPPED_TO_SERVE = ("penstock.v1", "penstock_node.testbed", "penstock_node.demo")
TAKES_APART = {
    *("FromString", "HttpRequestParser", "HttpResponseParser", "ParseFromString", "b64decode"),
    *("from_bytes", "fromhex", "fromisoformat", "fromstring", "iter_unpack", "loads", "parse_qsl"),
    *("parsedate_to_datetime", "read_json", "read_json_object", "strptime", "unpack"),
    *("unpack_from", "unquote", "unquote_plus", "unquote_to_bytes", "urlsplit"),
}
"""Calls, by their last name."""
NOT_FUZZED = {
    "penstock.checksums": "checksums of a length that was compared",
    "penstock.cli.tokens": "a file of whoever runs the command",
    "penstock.cli.engines": "a number of eight bytes; `penstock.tensors.header` reads the rest",
    "penstock.cli.mounting": "what a child of this process tells it",
    "penstock.diffusers": "a directory that this machine's user names, for diffusers",
    "penstock.etcd_channel": "etcd's own messages, by protobuf; urls of the configuration",
    "penstock.host_calls": "a message, by protobuf: what is none is an error by name",
    "penstock.mount.inodes": "a digest that was just made",
    "penstock_node.catalog.watched": "what this program wrote into its database",
    "penstock_node.catalog_server.admin": "credentials, compared as bytes",
    "penstock_node.config_directory": "the configuration, of whoever starts the process",
    "penstock_node.config_values": "the configuration, of whoever starts the process",
    "penstock_node.configured": "a volume that was just written",
    "penstock_node.kubernetes.upkeep": "what this program wrote; `penstock.json_text` reads it",
    "penstock_node.models": "bits, as numbers of any length",
    "penstock_node.origin.hub_http": "urls that were checked; the standard library reads HTTP",
    "penstock_node.origin.s3_keys": "a volume's endpoint; botocore reads XML",
    "penstock_node.origin.stores": "a volume's endpoint",
    "penstock_node.overview.held": "bits, as bytes of any length",
    "penstock_node.planning.miniature": "a digest that was just made",
    "penstock_node.serve.calls": "a message, by protobuf: what is none is an error by name",
    "penstock_node.serve.operator_service": "a volume that was just written",
    "penstock_node.serve.peer_process": "what the kernel tells of a socket",
    "penstock_node.store.index": "this process's own memory",
}
"""Modules that take apart what no stranger writes, or have a library do it."""


def modules_that_take_apart() -> set[str]:
    """Return the names of modules that call one of `TAKES_APART`, or make a value of a message."""
    found = set()
    for side in SIDES:
        for path in sorted(side.rglob("*.py")):
            parts = path.relative_to(side).with_suffix("").parts
            name = ".".join(part for part in parts if part != "__init__")
            if not name.startswith(NOT_SHIPPED_TO_SERVE) and _takes_apart(path):
                found.add(name)
    return found


def _takes_apart(path: Path) -> bool:
    return any(
        (isinstance(node, ast.Call) and _called(node.func) in TAKES_APART)
        or (isinstance(node, ast.FunctionDef) and node.name.endswith("_from_proto"))
        for node in ast.walk(ast.parse(path.read_text()))
    )


def _called(function: ast.expr) -> str:
    match function:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
    return ""


def test_every_parser_is_fuzzed_or_said_why_not() -> None:
    fuzzed = {name for target in TARGETS.values() for name in target.modules.split()}
    parsers = modules_that_take_apart()

    assert len(parsers) > 40
    assert sorted(parsers - fuzzed - NOT_FUZZED.keys()) == []
    assert sorted(NOT_FUZZED.keys() - (parsers - fuzzed)) == [], "these need no reason any more"

"""What stands in etcd, and in files that processes keep for themselves."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import xxhash

from penstock import wire
from penstock.errors import CorruptData, InvalidConfiguration, InvalidRequest
from penstock.membership import standalone_file
from penstock.membership.coordinator import Entry, Listing
from penstock.membership.view import Member
from penstock.mirror_rules import MirrorRules
from penstock.objects import ObjectId
from penstock.placement import (
    NodeRecord,
    PastPlacement,
    PlacedNode,
    Placement,
    place_nodes,
)
from penstock.settings import ClusterSettings
from penstock.snapshots.manifest import Record, _line
from penstock.snapshots.manifest import _record as record_of_line
from penstock.snapshots.partial import Identity, _head, identity_of
from penstock.ticket import TicketKey
from penstock.volumes import Volume
from penstock_node import node_file
from penstock_node.coordination import pin_records, records, view_file
from penstock_node.coordination.pin_records import Pin, PinnedObject
from penstock_node.coordination.records import CatalogRecord, MemberRecord, WeightOverride
from penstock_node.coordination.state import ClusterState
from penstock_node.store.chunk_file import (
    FOOTER_BYTES_MAX,
    Footer,
    _seal,
    encode_footer,
    file_name,
    parse_footer,
    parse_name,
)
from tests.fuzz.mutation import mutate_json
from tests.fuzz.target import AnyTarget, Target

OBJECT = ObjectId("s3://bucket/key", '"etag"', size=200_000, chunk_size=65_536)
NODES = (PlacedNode("n1", "h1", "z", 100), PlacedNode("n2", "h2", "", 200))
PLACEMENT = Placement("ab" * 16, 3, NODES, 4096, (PastPlacement(2, NODES[:1], 4096),))
MEMBER = MemberRecord(
    Member("n1", "h1", "z", "h:1", "h:2", "h:3", "h:4", "/socket", "i1", 3, 2), "m", "s", 10**12
)
NODE = NodeRecord("h1", "z", "m", 10**12)
BEFORE = WeightOverride(300, "", 1.7e9)
WEIGHT = WeightOverride(0, "kernel", 1.7e9, "cordon", BEFORE)
VOLUME = Volume("models", "s3://bucket/p/", {"endpoint": "http://h:1", "allow_http": True})
LAKE = Volume("lake", uid="ab" * 8, origins=(Volume("lake", "gs://b/"), Volume("lake", "s3://c/")))
PIN = Pin("penstock://models/a", (PinnedObject("models", OBJECT),), 200_000, 1.7e9)
KEY = TicketKey("k", b"secret" * 8, 1.7e9, 1.8e9)

_IGNORED = (InvalidRequest,)
"""What has a value ignored, and logged."""


def _words(*values: bytes) -> list[bytes]:
    """Return the names in JSON objects."""
    found: dict[bytes, None] = {}

    def take(pairs: list[tuple[str, Any]]) -> None:
        found.update((name.encode(), None) for name, _ in pairs)

    for value in values:
        json.loads(value, object_pairs_hook=take)
    return list(found)


def _record(
    name: str,
    parse: Callable[[bytes], Any],
    encode: Callable[[Any], bytes],
    *seeds: bytes,
    modules: str = "penstock_node.coordination.records penstock.json_text",
    also: Callable[[Any], object] = lambda _value: None,
) -> AnyTarget:
    """A value of etcd's: whatever is accepted can be written, and is read as the same."""

    def holds(_data: bytes, value: Any) -> None:
        assert parse(encode(value)) == value
        also(value)

    return Target(
        f"etcd-{name}",
        modules,
        parse,
        _IGNORED,
        holds,
        seeds=seeds,
        words=_words(*seeds),
        mutate=mutate_json,
    )


def _can_be_told(record: MemberRecord) -> None:
    (message,) = wire.members_to_proto([record.member])
    assert message.id == "n1"


def _can_be_placed(record: NodeRecord) -> None:
    state = ClusterState(nodes={"n1": record})
    inputs = state.inputs(settings=ClusterSettings(weight_unit_bytes=1))
    assert len(place_nodes(inputs, None)) <= 1


def _can_be_placed_again(placement: Placement) -> None:
    wire.placement_to_proto(placement).SerializeToString()
    assert sum(node.weight for node in placement.nodes) >= 0


# Files.


def _view(data: bytes) -> tuple[str, ClusterState]:
    return view_file.decode(data)


def _is_kept(_data: bytes, found: tuple[str, ClusterState]) -> None:
    cluster, state = found
    again, kept = view_file.decode(view_file.encode(state, cluster=cluster))
    assert again == cluster
    assert kept.revision == state.revision
    assert {key: entry.value for key, entry in kept.entries.items()} == {
        key: entry.value for key, entry in state.entries.items()
    }


def _state() -> ClusterState:
    entries = {
        "settings": records.settings_to_json(ClusterSettings()),
        "placement": PLACEMENT.to_json(),
        "members/n1": records.member_to_json(MEMBER),
        "volumes/models": VOLUME.to_json(),
        "pins/x": pin_records.pin_to_json(PIN),
        "secret/ticket_keys/k": records.ticket_key_to_json(KEY),
        "other": b"1",
    }
    listing = Listing({key: Entry(value, 5) for key, value in entries.items()}, 5, 7)
    return ClusterState.from_listing(listing)


VIEW = view_file.encode(_state(), cluster="prod")
SAVED = standalone_file.Saved(7, 5, {"settings": Entry(b"{}", 5), "weights/n1": Entry(b"x", 4)})
NODE_FILE = json.dumps({"id": "n1", "grpc_address": "h:1", "socket": "/s", "new": 1}).encode()
RECORD = Record("a/b", "penstock://m/a/b", '"v"', 9, 65_536, "ab" * 8, 1_700_000_000)


def _footer(data: bytes) -> Footer:
    return parse_footer(data, file_bytes=_file_bytes(data))


def _file_bytes(data: bytes) -> int:
    """Return how long a file with this end says that it is: a chunk of one block."""
    return int.from_bytes(data[30:34], "little") + len(data)


def _is_sealed_again(data: bytes, footer: Footer) -> None:
    assert encode_footer(footer) == data
    assert len(data) <= FOOTER_BYTES_MAX


def _sealed(data: bytes) -> bytes:
    return _seal(data[:-20])


def _name_again(data: bytes, found: tuple[bytes, int] | None) -> None:
    assert found is None or file_name(*found).encode("latin-1") == data


FOOTER = encode_footer(
    Footer(OBJECT, 0, xxhash.xxh3_64_digest(b"x")),
)


FILES: tuple[AnyTarget, ...] = (
    Target(
        "view-file",
        "penstock_node.coordination.view_file penstock_node.coordination.state",
        _view,
        (view_file.UnreadableView,),
        _is_kept,
        seeds=[VIEW],
        words=_words(VIEW),
        mutate=mutate_json,
        bytes_max=8192,
    ),
    Target(
        "standalone-file",
        "penstock.membership.standalone_file",
        partial(standalone_file.parse, path=Path("state.json")),
        (InvalidConfiguration,),
        lambda _data, saved: standalone_file._encode(saved),
        seeds=[standalone_file._encode(SAVED)],
        words=_words(standalone_file._encode(SAVED)),
        mutate=mutate_json,
    ),
    Target(
        "node-file",
        "penstock_node.node_file",
        partial(node_file.parse_node_file, path=Path("node.json")),
        (InvalidConfiguration,),
        seeds=[NODE_FILE],
        words=_words(NODE_FILE),
        mutate=mutate_json,
    ),
    Target(
        "ports-file",
        "penstock_node.node_file",
        node_file.parse_ports,
        holds=lambda _data, ports: json.dumps(ports),
        seeds=[b'{"grpc_port": 7400, "bulk_port": 7401}'],
        words=[b"grpc_port", b"bulk_port"],
        mutate=mutate_json,
    ),
    Target(
        "snapshot-records",
        "penstock.snapshots.manifest",
        record_of_line,
        holds=lambda _data, found: found is None or record_of_line(_line(found)) == found,
        seeds=[_line(RECORD)],
        words=_words(_line(RECORD)),
        mutate=mutate_json,
    ),
    Target(
        "snapshot-journals",
        "penstock.snapshots.partial",
        identity_of,
        holds=lambda _data, found: found is None or (_head(found) and found.piece_count),
        seeds=[_head(Identity("penstock://m/a", '"v"', 9, 65_536))],
        words=_words(_head(Identity("penstock://m/a", '"v"', 9, 65_536))),
        mutate=mutate_json,
    ),
    Target(
        "chunk-footers",
        "penstock_node.store.chunk_file penstock.objects",
        _footer,
        (CorruptData,),
        _is_sealed_again,
        seeds=[FOOTER],
        mend=_sealed,
    ),
    Target(
        "chunk-names",
        "penstock_node.store.chunk_file",
        lambda data: parse_name(data.decode("latin-1")),
        holds=_name_again,
        seeds=[file_name(OBJECT.chunk_id(0), 17).encode()],
        words=[b".", b"0x", b"_", b" ", b"+"],
        bytes_max=128,
    ),
)


def _volume_again(name: str) -> Callable[[bytes], Volume]:
    return partial(Volume.from_json, name)


TARGETS: tuple[AnyTarget, ...] = (
    _record(
        "placement",
        records.placement_from_json,
        Placement.to_json,
        PLACEMENT.to_json(),
        modules="penstock_node.coordination.records penstock.placement",
        also=_can_be_placed_again,
    ),
    _record(
        "members",
        partial(records.member_from_json, "n1"),
        records.member_to_json,
        records.member_to_json(MEMBER),
        also=_can_be_told,
    ),
    _record(
        "nodes",
        partial(records.node_from_json, "n1"),
        partial(records.node_to_json, weight_unit_bytes=10**12),
        records.node_to_json(NODE, weight_unit_bytes=10**12),
        also=_can_be_placed,
    ),
    _record(
        "weights",
        partial(records.weight_from_json, "n1"),
        records.weight_to_json,
        records.weight_to_json(WEIGHT),
    ),
    _record(
        "settings",
        records.settings_from_json,
        records.settings_to_json,
        records.settings_to_json(ClusterSettings()),
        modules="penstock_node.coordination.records penstock.settings penstock.units",
    ),
    _record(
        "volumes",
        _volume_again("models"),
        Volume.to_json,
        VOLUME.to_json(),
        LAKE.to_json(),
        Volume("hub", "hf://org/name@v1/sub", limits=VOLUME.limits).to_json(),
        Volume("az", "az://c/p", {"account_name": "a"}, replicas=2).to_json(),
        modules="penstock.volumes penstock.origin_options penstock.origin_limits "
        "penstock.origin_urls penstock.hub_urls penstock.units",
    ),
    _record(
        "pins",
        partial(pin_records.pin_from_json, "x"),
        pin_records.pin_to_json,
        pin_records.pin_to_json(PIN),
        modules="penstock_node.coordination.pin_records penstock.objects",
    ),
    _record(
        "ticket-keys",
        partial(records.ticket_key_from_json, "k"),
        records.ticket_key_to_json,
        records.ticket_key_to_json(KEY),
    ),
    _record(
        "catalog",
        records.catalog_from_json,
        records.catalog_to_json,
        records.catalog_to_json(CatalogRecord("c1", "h:1")),
    ),
    _record(
        "mirrors",
        records.mirror_rules_from_json,
        records.mirror_rules_to_json,
        records.mirror_rules_to_json(MirrorRules(("*.x",), ("**",), 1e9)),
        modules="penstock_node.coordination.records penstock.mirror_rules",
    ),
    *FILES,
)

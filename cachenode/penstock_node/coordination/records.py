"""The values in etcd: JSON on one side, dataclasses on the other.

Responsible for: which key holds what, and refusing a value that is not what it should be.
Keys of a JSON object that are not known here are ignored: a newer version wrote them.
Not responsible for: what the values mean together (`state`), volumes beyond being objects
(the node's settings know them), the placement's own JSON (`penstock.placement`).
"""

import base64
import functools
import json
import string
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeAlias, get_args

import structlog

from penstock.errors import InvalidRequest
from penstock.json_text import count_in, moment_in, read_json_object, text_in, texts_in
from penstock.membership.view import Member
from penstock.mirror_rules import MirrorRules
from penstock.placement import NodeRecord, Placement, auto_weight, check_weight
from penstock.settings import ClusterSettings
from penstock.ticket import TicketKey

SETTINGS = "settings"
PLACEMENT = "placement"
MEMBERS = "members/"
NODES = "nodes/"
WEIGHTS = "weights/"
VOLUMES = "volumes/"
PINS = "pins/"
PINNED = "pinned"
CATALOG = "catalog"
MIRRORS = "mirrors/"
TICKET_KEYS = "secret/ticket_keys/"

KUBERNETES = "kubernetes"
"""Sets weights too: see `penstock_node.kubernetes`."""

Purpose: TypeAlias = Literal["", "cordon", "drain"]
"""What a weight was set for: for itself, or to take a node out."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class MemberRecord:
    """What stands under ``members/{id}`` while the node's lease lives."""

    member: Member
    machine_id: str
    state_dir_hash: str
    """With ``machine_id`` it names a state directory; its lock proves that an earlier process
    of the same one is dead."""
    owned_capacity_bytes: int = 0
    state: str = "serving"


@dataclass(frozen=True, slots=True)
class WeightOverride:
    """What stands under ``weights/{id}``: an operator's weight, which wins over the automatic."""

    weight: int
    reason: str
    set_at: float
    """Seconds since 1970, UTC."""
    purpose: Purpose = ""
    before: "WeightOverride | None" = None
    """Of a node that was cordoned: what comes back; None for the automatic weight."""
    by: str = ""
    """Who set it, and alone takes it back unasked: `KUBERNETES`, or nobody but operators."""
    gone_at: float = 0.0
    """Of a drain: when the machine stops, in seconds since 1970; 0: when it is drained."""


@dataclass(frozen=True, slots=True)
class CatalogRecord:
    """What stands under ``catalog`` while the catalog's lease lives."""

    id: str
    """Of its state directory, whose lock proves that an earlier process is dead."""
    grpc_address: str


def _encode(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data).encode()


_LEVELS = 2
"""Of what a weight was before: a machine that stops, of a node that an operator has cordoned, whose
weight had been set."""
_MEMBER_TEXTS = tuple(f.name for f in fields(Member) if f.type is str and f.name != "id")
_MEMBER_COUNTS = tuple(f.name for f in fields(Member) if f.type is int)


def member_from_json(node_id: str, value: bytes) -> MemberRecord:
    """Return the record under ``members/{node_id}``. Raises as `state` expects of parsers."""
    data = read_json_object(value)
    if not data.get("host"):
        raise InvalidRequest("a member has a host")
    texts = {name: text_in(data, name, "") for name in _MEMBER_TEXTS}
    counts = {name: count_in(data, name, 0) for name in _MEMBER_COUNTS}
    return MemberRecord(
        member=Member(
            id=node_id,
            **texts,  # type: ignore[arg-type]  # by name and type
            **counts,  # type: ignore[arg-type]
            tls_ports=texts_in(data, "tls_ports"),
        ),
        machine_id=text_in(data, "machine_id", ""),
        state_dir_hash=text_in(data, "state_dir_hash", ""),
        owned_capacity_bytes=count_in(data, "owned_capacity_bytes", 0),
        state=text_in(data, "state", "serving"),
    )


@functools.lru_cache(maxsize=16)
def member_to_json(record: MemberRecord) -> bytes:
    """Return the value of ``members/{id}``; asked for at every look whether it still stands."""
    facts = asdict(record)
    return _encode(facts.pop("member") | facts)


def node_from_json(_node_id: str, value: bytes) -> NodeRecord:
    """Return the record under ``nodes/{node_id}``."""
    data = read_json_object(value)
    return NodeRecord(
        host=text_in(data, "host"),
        zone=text_in(data, "zone", ""),
        machine_id=text_in(data, "machine_id", ""),
        owned_capacity_bytes=count_in(data, "owned_capacity_bytes"),
    )


@functools.lru_cache(maxsize=16)
def node_to_json(record: NodeRecord, *, weight_unit_bytes: int) -> bytes:
    """Return the value of ``nodes/{id}``, with the automatic weight for outside readers.

    The weight is absent while the cluster's unit is not decided, and 0 without owned capacity.
    """
    facts = asdict(record)
    if record.owned_capacity_bytes == 0:
        facts["auto_weight"] = 0
    elif weight_unit_bytes:
        facts["auto_weight"] = auto_weight(record.owned_capacity_bytes, weight_unit_bytes)
    return _encode(facts)


def weight_from_json(_node_id: str, value: bytes) -> WeightOverride:
    """Return the record under ``weights/{node_id}``."""
    return _override(read_json_object(value), levels=_LEVELS)


def _override(data: Mapping[str, Any], *, levels: int) -> WeightOverride:
    weight, before = count_in(data, "weight"), data.get("before")
    check_weight(weight)
    known: dict[str, Purpose] = {name: name for name in get_args(Purpose)}
    return WeightOverride(
        weight,
        text_in(data, "reason", ""),
        moment_in(data, "set_at"),
        known.get(text_in(data, "purpose", ""), ""),  # A later version's: its weight counts.
        _override(before, levels=levels - 1) if levels and isinstance(before, dict) else None,
        text_in(data, "by", ""),
        moment_in(data, "gone_at", 0.0),
    )


def weight_to_json(record: WeightOverride) -> bytes:
    """Return the value of ``weights/{id}``."""
    return _encode(asdict(record))


def volume_from_json(_name: str, value: bytes) -> Mapping[str, Any]:
    """Return the JSON object under ``volumes/{name}``, as it is."""
    return read_json_object(value)


def volume_to_json(value: Mapping[str, Any]) -> bytes:
    """Return the value of ``volumes/{name}``."""
    return _encode(value)


def ticket_key_from_json(key_id: str, value: bytes) -> TicketKey:
    """Return the key under ``secret/ticket_keys/{key_id}``."""
    data = read_json_object(value)
    try:
        secret = base64.b64decode(text_in(data, "secret"), validate=True)
    except ValueError:
        raise InvalidRequest("the secret is no base64") from None
    return TicketKey(
        id=key_id,
        secret=secret,
        created_at=moment_in(data, "created_at"),
        retired_at=None if data.get("retired_at") is None else moment_in(data, "retired_at"),
    )


def ticket_key_to_json(key: TicketKey) -> bytes:
    """Return the value of ``secret/ticket_keys/{key_id}``."""
    secret = base64.b64encode(key.secret).decode()
    return _encode({"secret": secret, "created_at": key.created_at, "retired_at": key.retired_at})


@functools.lru_cache(maxsize=4)  # Each listing has it again.
def settings_from_json(value: bytes) -> ClusterSettings:
    """Return the settings; what is unknown or out of bounds is left at its default, and logged."""
    settings = ClusterSettings()
    known = settings.to_json()
    for name, wanted in read_json_object(value).items():
        if name not in known:
            continue
        try:
            settings = settings.changed({name: wanted})
        except InvalidRequest as error:
            _log.warning("a cluster setting is ignored", setting=name, error=str(error))
    return settings


def settings_to_json(settings: ClusterSettings, *, stored: bytes | None = None) -> bytes:
    """Return the value of ``settings``; what a newer version has ``stored`` there stays."""
    unknown: dict[str, Any] = {}
    if stored is not None:
        try:
            unknown = read_json_object(stored)
        except InvalidRequest:
            _log.warning("the stored settings were not JSON and are replaced")
    return _encode(unknown | settings.to_json())


def catalog_from_json(value: bytes) -> CatalogRecord:
    """Return the record under ``catalog``."""
    data = read_json_object(value)
    return CatalogRecord(text_in(data, "id", ""), text_in(data, "grpc_address"))


def catalog_to_json(record: CatalogRecord) -> bytes:
    """Return the value of ``catalog``."""
    return _encode(asdict(record))


def mirror_rules_from_json(value: bytes) -> MirrorRules:
    """Return the record under ``mirrors/{name}``."""
    data = read_json_object(value)
    rate = data.get("bytes_per_s", 0.0)
    if not isinstance(rate, int | float) or isinstance(rate, bool):
        raise InvalidRequest("bytes_per_s: want a number")
    return MirrorRules(texts_in(data, "copied"), texts_in(data, "warmed"), rate)


def mirror_rules_to_json(rules: MirrorRules) -> bytes:
    """Return the value of ``mirrors/{name}``."""
    return _encode(asdict(rules))


@functools.lru_cache(maxsize=4)
def placement_from_json(value: bytes) -> Placement:
    """Return the placement, with every number and text of the right kind."""
    placement = Placement.from_json(value)
    _check_uid(placement.cluster_uid)
    _check_epoch(placement.epoch)
    for past in placement.history:
        _check_epoch(past.epoch)
    return placement


def _check_uid(uid: str) -> None:
    if len(uid) != 32 or set(uid) - set(string.hexdigits):
        raise InvalidRequest(f"cluster_uid={uid!r}: want 32 hexadecimal digits")


def _check_epoch(epoch: int) -> None:
    if epoch < 1:
        raise InvalidRequest(f"epoch={epoch!r}: want 1 or more")

"""All targets by name: a parser is fuzzed once it stands in one of these lists."""

from collections.abc import Mapping

from tests.fuzz import files, gateways, network, records, texts, wire_messages
from tests.fuzz.target import AnyTarget

TARGETS: Mapping[str, AnyTarget] = {
    target.name: target
    for room in (network, records, gateways, files, wire_messages, texts)
    for target in room.TARGETS
}

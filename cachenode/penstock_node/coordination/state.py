"""Everything under a cluster's prefix at one revision, and what a change makes of it.

Responsible for: the immutable `ClusterState` and the pure step from one to the next.
Not responsible for: where changes come from (`follower`), remembering what the store has lost
(`memory`). A value that cannot be read counts as absent; its entry is kept, so that a
compare-and-swap still sees that the key is taken.
"""

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import structlog

from penstock.errors import InvalidRequest, PenstockError
from penstock.membership.coordinator import ABSENT, Changes, Entry, Listing
from penstock.membership.view import View
from penstock.placement import Inputs, NodeRecord, Placement
from penstock.settings import ClusterSettings
from penstock.ticket import TicketKey, TicketKeys
from penstock_node.coordination import records
from penstock_node.coordination.pin_records import Pin, pin_from_json
from penstock_node.coordination.records import CatalogRecord, MemberRecord, WeightOverride

_log = structlog.get_logger(__name__)

NODES_NAMED_MAX = 20
"""An error names at most so many of the known nodes."""

_SINGLES: Mapping[str, Callable[[bytes], object]] = {
    records.SETTINGS: records.settings_from_json,
    records.PLACEMENT: records.placement_from_json,
    records.CATALOG: records.catalog_from_json,
}
_FAMILIES: Mapping[str, tuple[str, Callable[[str, bytes], object]]] = {
    records.MEMBERS: ("members", records.member_from_json),
    records.NODES: ("nodes", records.node_from_json),
    records.WEIGHTS: ("weights", records.weight_from_json),
    records.VOLUMES: ("volumes", records.volume_from_json),
    records.PINS: ("pins", pin_from_json),
    records.TICKET_KEYS: ("ticket_keys", records.ticket_key_from_json),
}


def _nothing() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ClusterState:
    """A cluster's values at one revision. Never changes; `apply` returns the next one."""

    entries: Mapping[str, Entry] = field(default_factory=_nothing)
    """Every key as it is stored, those too that nothing here reads."""
    revision: int = 0
    store_id: int = 0
    settings: ClusterSettings | None = None
    placement: Placement | None = None
    members: Mapping[str, MemberRecord] = field(default_factory=_nothing)
    nodes: Mapping[str, NodeRecord] = field(default_factory=_nothing)
    weights: Mapping[str, WeightOverride] = field(default_factory=_nothing)
    volumes: Mapping[str, Mapping[str, Any]] = field(default_factory=_nothing)
    pins: Mapping[str, Pin] = field(default_factory=_nothing)
    ticket_keys: Mapping[str, TicketKey] = field(default_factory=_nothing)
    catalog: CatalogRecord | None = None
    """None while none is registered."""

    @classmethod
    def from_listing(cls, listing: Listing) -> "ClusterState":
        """Return the state that a listing tells of."""
        empty = cls(revision=listing.revision, store_id=listing.store_id)
        return empty._with(listing.entries.items(), revision=listing.revision)

    def apply(self, item: Listing | Changes) -> "ClusterState":
        """Return the state after ``item`` of a watch.

        A listing replaces everything. Changes that this state has already seen, through a
        listing newer than they are, make no difference. Of changes that overlap with it all
        are applied: they are in order, so that each key ends at its last value.
        """
        if isinstance(item, Listing):
            return self.from_listing(item)
        if item.revision <= self.revision:
            return self
        return self._with(item.changes, revision=item.revision)

    def _with(
        self, changes: Iterable[tuple[str, Entry | None]], *, revision: int
    ) -> "ClusterState":
        entries, fields = dict(self.entries), _Fields(self)
        for key, entry in changes:
            if entry is None:
                entries.pop(key, None)
            else:
                entries[key] = entry
            fields.set(key, None if entry is None else entry.value)
        return replace(
            self, entries=MappingProxyType(entries), revision=revision, **fields.changed()
        )

    def mod_revision(self, key: str) -> int:
        """Return the condition under which ``key`` is as it is here: `ABSENT` when it is not."""
        entry = self.entries.get(key)
        return ABSENT if entry is None else entry.mod_revision

    @property
    def epoch(self) -> int:
        """The placement's epoch; 0 before the cluster has formed."""
        return 0 if self.placement is None else self.placement.epoch

    @property
    def keys(self) -> TicketKeys:
        """The ticket keys, ready to sign and verify."""
        return TicketKeys(self.ticket_keys.values())

    def inputs(self, *, settings: ClusterSettings, departed: Set[str] = frozenset()) -> Inputs:
        """Return what a placement follows from; ``settings`` are those in force."""
        return Inputs(
            settings=settings,
            nodes=self.nodes,
            overrides={node: override.weight for node, override in self.weights.items()},
            alive=self.members.keys(),
            departed=departed,
        )

    def to_view(self, cluster: str) -> View:
        """Return what readers need of it. The cluster has formed."""
        assert self.placement is not None, "no view before the cluster has formed"
        return View(
            cluster=cluster,
            placement=self.placement,
            members={node: record.member for node, record in self.members.items()},
            replicas=(self.settings or ClusterSettings()).replicas,
        )


def check_node(state: ClusterState, node: str) -> None:
    """Refuse a node that the cluster does not know.

    Raises:
        InvalidRequest: With those that it knows.
    """
    if node not in state.nodes:
        known = sorted(state.nodes)
        more = f" and {len(known) - NODES_NAMED_MAX} more" if len(known) > NODES_NAMED_MAX else ""
        names = ", ".join(known[:NODES_NAMED_MAX]) or "none"
        raise InvalidRequest(f"there is no node {node!r}; known are {names}{more}")


class _Fields:
    """The parsed side of a state under change; a family is copied when it is first touched."""

    def __init__(self, state: ClusterState) -> None:
        self._state = state
        self._singles: dict[str, object] = {}
        self._families: dict[str, dict[str, object]] = {}

    def set(self, key: str, value: bytes | None) -> None:
        """Take in a value; None stands for a deletion."""
        if key in _SINGLES:
            self._singles[key] = _parsed(key, value, _SINGLES[key])
            return
        for prefix, (name, parse) in _FAMILIES.items():
            if key.startswith(prefix):
                item = key.removeprefix(prefix)
                self._put(name, item, _parsed(key, value, partial(parse, item)))
                return

    def _put(self, name: str, item: str, parsed: object | None) -> None:
        if name not in self._families:
            self._families[name] = dict(getattr(self._state, name))
        family = self._families[name]
        if parsed is None:
            family.pop(item, None)
        else:
            family[item] = parsed

    def changed(self) -> dict[str, Any]:
        """Return the state's fields that changed."""
        families = {name: MappingProxyType(items) for name, items in self._families.items()}
        return {**self._singles, **families}


def _parsed(key: str, value: bytes | None, parse: Callable[[bytes], object]) -> object | None:
    if value is None:
        return None
    try:
        return parse(value)
    except (ValueError, KeyError, TypeError, RecursionError, PenstockError) as error:
        _log.warning("a value in the coordinator is ignored", key=key, error=str(error))
        return None

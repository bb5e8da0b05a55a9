"""What the node goes on believing when the store has lost it.

Responsible for: telling a store that was wiped, or restored from an old backup, from one that
moved on; and the state to work with meanwhile. A placement of one cluster never goes backwards.
Not responsible for: giving the store back what it lost (`restore`), files (`view_file`).
"""

from collections.abc import Mapping
from types import MappingProxyType

import structlog

from penstock.membership.coordinator import Entry, Listing
from penstock.settings import ClusterSettings
from penstock_node.coordination import records
from penstock_node.coordination.clock import Clock
from penstock_node.coordination.restore import has_come_back
from penstock_node.coordination.state import ClusterState

LINGER_LEASES = 2.0
"""After the store was wiped or out of reach its members are shown for this many lease times more:
each of them needs less than one to notice that its record is gone, and to put it again."""

_log = structlog.get_logger(__name__)


def is_behind(stored: ClusterState, known: ClusterState) -> bool:
    """Tell whether the store lost what ``known`` has: wiped, or restored from an old backup.

    A placement of another cluster is none of ours to take back, and one that cannot be read is
    a newer version's.
    """
    if known.placement is None:
        return False
    if records.PLACEMENT not in stored.entries:
        return True
    return (
        stored.placement is not None
        and stored.placement.cluster_uid == known.placement.cluster_uid
        and stored.placement.epoch < known.placement.epoch
    )


def is_another_store(stored: ClusterState, before: ClusterState) -> bool:
    """Tell whether ``stored`` does not continue ``before``: leases and members are gone."""
    return stored.store_id != before.store_id or stored.revision < before.revision


class Memory:
    """The state this node works with: the store's, and while that is behind, what it lost."""

    def __init__(self, *, clock: Clock, remembered: ClusterState | None = None) -> None:
        self._clock = clock
        self._stored = remembered or ClusterState()
        self._began = remembered is not None
        self._lingering: Mapping[str, Entry] = {}
        self._linger_until = 0.0
        self.known = self._stored
        """What to work with."""
        self.losses = 0
        """How often the store was found wiped or restored: whoever counts time starts over."""

    @property
    def linger_s(self) -> float:
        """How long members that a store has lost are shown still, in seconds; 0 for none."""
        return max(0.0, self._linger_until - self._clock.monotonic()) if self._lingering else 0.0

    def absorb(self, stored: ClusterState) -> None:
        """Take in what the store says now."""
        if self._began and (is_another_store(stored, self._stored) or self._fell_behind(stored)):
            self._begin_lingering(stored)
        self._stored, self._began = stored, True
        self.refresh()

    def interrupted(self) -> None:
        """Take note that the store is out of reach at this moment; leases end meanwhile.

        Of the members that vanish soon after, most have only not come back yet.
        """
        self._linger()

    def refresh(self) -> None:
        """Bring `known` up to date: members linger no longer than their time."""
        base = _without_regress(self._stored, self.known)
        if self.linger_s > 0:
            base = _overlaid(base, self._lingering)
        else:
            self._lingering = {}
        self.known = base

    def _fell_behind(self, stored: ClusterState) -> bool:
        return is_behind(stored, self.known) and not is_behind(self._stored, self.known)

    def _begin_lingering(self, stored: ClusterState) -> None:
        self.losses += 1
        self._linger()
        _log.warning(
            "the coordinator's store was replaced",
            store_id=stored.store_id,
            revision=stored.revision,
            epoch=stored.epoch,
            known_epoch=self.known.epoch,
        )

    def _linger(self) -> None:
        ttl_s = (self.known.settings or ClusterSettings()).lease_ttl_s
        self._linger_until = self._clock.monotonic() + LINGER_LEASES * ttl_s
        self._lingering = {
            key: entry
            for key, entry in self.known.entries.items()
            if key.startswith(records.MEMBERS)
        }


def _without_regress(stored: ClusterState, known: ClusterState) -> ClusterState:
    """Return what is stored, with what ``known`` has over it where the store is behind."""
    if known.placement is None:
        return stored
    if is_behind(stored, known):
        facts = {k: e for k, e in known.entries.items() if not k.startswith(records.MEMBERS)}
        kept = {k: e for k, e in stored.entries.items() if not has_come_back(k, stored, known)}
        return _from_entries({**kept, **facts}, like=stored)
    if stored.placement is None:  # A newer version's: the last one that we could read stays.
        last = {records.PLACEMENT: known.entries[records.PLACEMENT]}
        return _from_entries({**stored.entries, **last}, like=stored)
    return stored


def _overlaid(base: ClusterState, members: Mapping[str, Entry]) -> ClusterState:
    if not members.keys() - base.entries.keys():
        return base
    return _from_entries({**members, **base.entries}, like=base)


def _from_entries(entries: Mapping[str, Entry], *, like: ClusterState) -> ClusterState:
    listing = Listing(MappingProxyType(dict(entries)), like.revision, like.store_id)
    return ClusterState.from_listing(listing)

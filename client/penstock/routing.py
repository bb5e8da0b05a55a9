"""Whom to ask for a chunk: the ring, who answers, and who is suspected.

Responsible for: the newest view of the cluster, its ring, and nodes that did not answer lately.
Not responsible for: fetching views, talking to nodes. No I/O; thread-safe.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from penstock.errors import ClusterUnavailable
from penstock.membership.view import Member, View
from penstock.ring import Ring

SUSPECT_S = 2.0
"""How long a node that did not answer is passed over, unless another says that it answers."""
SPARE_OWNERS = 3
"""Owners beyond the replicas that are asked in turn when the earlier ones do not answer."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """The node to ask now."""

    member: Member
    epoch: int
    suspects: tuple[str, ...]
    """Owners before this one that could not be reached: it acts in their stead."""


@dataclass(slots=True)
class _Known:
    view: View
    ring: Ring | None
    """None until somebody asks for it: who has a node on the machine never does."""


class Routing:
    """Finds the node to ask for a chunk, in the newest view it was given."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._building = threading.Lock()
        self._known: _Known | None = None
        self._suspected_until: dict[str, float] = {}

    @property
    def view(self) -> View | None:
        """The newest view, or None before the first."""
        known = self._known
        return known.view if known else None

    @property
    def ring(self) -> Ring:
        """The ring of the newest view.

        Raises:
            ClusterUnavailable: There is no view yet.
        """
        return self._ring_of(self._require())

    def _ring_of(self, known: _Known) -> Ring:
        if known.ring is None:
            with self._building:
                if known.ring is None:
                    placement = known.view.placement
                    known.ring = Ring.build(placement.nodes, placement.points_per_100)
        return known.ring

    def _require(self) -> _Known:
        known = self._known
        if known is None:
            raise ClusterUnavailable("no node has told its placement yet")
        return known

    def update(self, view: View) -> None:
        """Take ``view`` if its placement is not older than the known one.

        A first ring of 1,000 nodes takes seconds and a changed one tens of milliseconds:
        readers go on with the old one meanwhile.
        """
        with self._lock:
            known = self._known
            if known and view.placement.is_older_than(known.view.placement):
                return
            self._known = _Known(view, _ring_for(view, known))
            # A process that was not there before has not failed anyone yet.
            before = known.view.members if known else {}
            self.trust(
                node_id
                for node_id, member in view.members.items()
                if node_id not in before or before[node_id].incarnation != member.incarnation
            )

    def candidate(self, chunk_id: bytes, *, unreachable: Collection[str] = ()) -> Candidate | None:
        """Return the first owner that is worth asking, or None when all were tried.

        Args:
            chunk_id: What is read.
            unreachable: Owners that this read has tried in vain.

        Raises:
            ClusterUnavailable: There is no view yet.
        """
        known = self._require()
        view, ring = known.view, self._ring_of(known)
        epoch = view.placement.epoch
        owners: list[str] = []
        passed: list[str] = []
        # Nearly always it is the first, which takes a quarter of the time to find.
        for count in (1, view.replicas + SPARE_OWNERS):
            owners = ring.owners(chunk_id, count)
            for owner in owners[len(passed) :]:
                member = view.members.get(owner)
                if member and owner not in unreachable and not self.is_suspected(owner):
                    return Candidate(member, epoch, tuple(passed))
                passed.append(owner)
        # Everyone is suspected: rather ask a suspect than nobody.
        for at, owner in enumerate(owners):
            if owner in view.members and owner not in unreachable:
                return Candidate(view.members[owner], epoch, tuple(passed[:at]))
        return None

    def is_suspected(self, node_id: str) -> bool:
        """Tell whether the node did not answer lately."""
        return self._suspected_until.get(node_id, 0.0) > self._clock()

    def suspect(self, node_id: str) -> None:
        """Pass the node over for a while: it did not answer."""
        self._suspected_until[node_id] = self._clock() + SUSPECT_S

    def trust(self, node_ids: Iterable[str]) -> None:
        """Stop suspecting nodes: they answered, or another node says that they do."""
        for node_id in node_ids:
            self._suspected_until.pop(node_id, None)


def _ring_for(view: View, known: _Known | None) -> Ring | None:
    if known is None or known.ring is None:
        return None
    placement = view.placement
    if known.view.placement.points_per_100 != placement.points_per_100:
        return Ring.build(placement.nodes, placement.points_per_100)
    if known.view.placement.nodes == placement.nodes:
        return known.ring
    return known.ring.changed_to(placement.nodes)

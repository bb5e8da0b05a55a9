"""Whom to ask for a chunk: the ring, who answers, who is suspected, and who has least to do.

Responsible for: the newest view of the cluster and its ring; choosing among a chunk's owners.
Not responsible for: fetching views, talking to nodes, what is known of them (`standing`). No I/O;
thread-safe.
"""

import random
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from penstock.errors import ClusterUnavailable
from penstock.hot_chunks import HotChunks
from penstock.membership.view import Member, View
from penstock.ring import Ring
from penstock.standing import Standing

FORMER_S = 2.0
"""How long former owners are asked first after a new one has named one."""
SPARE_OWNERS = 3
"""Owners beyond the replicas that are asked in turn when the earlier ones do not answer."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """The node to ask now."""

    member: Member
    epoch: int
    suspects: tuple[str, ...]
    """Owners before this one that could not be reached: it acts in their stead."""
    is_guest: bool = False
    """It keeps no copy by the ring, but may have one: it is asked for what it has, alone."""


@dataclass(slots=True)
class _Known:
    view: View
    ring: Ring | None
    """None until somebody asks for it: who has a node on the machine never does."""
    before: Ring | None = None
    """The ring before the latest change, while chunks are handed over because of it."""


class Routing:
    """Finds the node to ask for a chunk, in the newest view it was given."""

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, rng: random.Random | None = None
    ) -> None:
        """Know nobody yet.

        Args:
            clock: Seconds, from anywhere on.
            rng: Spreads load.
        """
        self.standing = Standing(clock=clock, rng=rng)
        self.hot = HotChunks(clock=clock)
        self._clock = clock
        self._former_until = 0.0
        self._lock = threading.Lock()
        self._building = threading.Lock()
        self._known: _Known | None = None

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
            self._known = _Known(view, _ring_for(view, known), _ring_before(view, known))
            # A process that was not there before has not failed anyone yet.
            self.trust(view.new_processes(known.view if known else None))

    def candidate(
        self, chunk_id: bytes, *, copies: int = 1, unreachable: Collection[str] = ()
    ) -> Candidate | None:
        """Return an owner that is worth asking, or None when all were tried.

        Of those that keep a copy, or have one while many ask for it, the one of two that has less
        to do; when none of them answers, the next in line, which acts in their stead.

        Args:
            chunk_id: What is read.
            copies: How many owners keep it.
            unreachable: Owners that this read has tried in vain.

        Raises:
            ClusterUnavailable: There is no view yet.
        """
        known = self._require()
        wide = max(copies, self.hot.copies(chunk_id))
        owners = self._ring_of(known).owners(chunk_id, wide)
        worth = self._worth(known, owners, unreachable)
        had_it = self._worth(known, self._before(known, chunk_id, owners, copies), unreachable)
        if not worth and not had_it:
            return self._in_their_stead(known, chunk_id, copies, unreachable)
        chosen = self.standing.less_loaded(had_it or worth)
        if chosen in owners[:copies]:
            return _candidate(known, chosen, owners, but=worth)
        return replace(_candidate(known, chosen, (chosen,)), is_guest=True)

    def first_owner(self, chunk_id: bytes, *, copies: int) -> Candidate | None:
        """Return the owner that brings a chunk in: the first that answers, as far as is known.

        Args:
            chunk_id: What is to be brought in.
            copies: How many owners keep it.

        Returns:
            A suspect, if all are; None if none is a member.

        Raises:
            ClusterUnavailable: There is no view yet.
        """
        known = self._require()
        count = max(copies, known.view.replicas) + SPARE_OWNERS
        owners = self._ring_of(known).owners(chunk_id, count)
        there = [owner for owner in owners if owner in known.view.members]
        if not there:
            return None
        worth = self._worth(known, there, ())
        return _candidate(known, (worth or there)[0], owners)

    def are_handing_over(self) -> None:
        """Ask those that owned moved chunks before, for a moment: a new owner has just named one.

        They have what they hand over, also after that; now and then one asks the new owner, which
        tells again, or has it by then.
        """
        self._former_until = self._clock() + FORMER_S

    def _before(
        self, known: _Known, chunk_id: bytes, owners: Sequence[str], copies: int
    ) -> Sequence[str]:
        """Return who owned a chunk before the latest change, if it moved and they are asked."""
        if known.before is None or self._clock() > self._former_until:
            return ()
        before = known.before.owners(chunk_id, copies)
        return () if set(before) <= set(owners) else before

    def _in_their_stead(
        self, known: _Known, chunk_id: bytes, copies: int, unreachable: Collection[str]
    ) -> Candidate | None:
        count = max(copies, known.view.replicas) + SPARE_OWNERS
        owners = self._ring_of(known).owners(chunk_id, count)
        for owner in owners[copies:]:
            if self._is_worth(known, owner, unreachable):
                return _candidate(known, owner, owners)
        # Everyone is suspected: rather ask a suspect than nobody.
        for owner in owners:
            if owner in known.view.members and owner not in unreachable:
                return _candidate(known, owner, owners)
        return None

    def _worth(
        self, known: _Known, owners: Iterable[str], unreachable: Collection[str]
    ) -> list[str]:
        return [owner for owner in owners if self._is_worth(known, owner, unreachable)]

    def _is_worth(self, known: _Known, owner: str, unreachable: Collection[str]) -> bool:
        is_there = owner in known.view.members and owner not in unreachable
        return is_there and not self.is_suspected(owner)

    def other_copy(
        self, chunk_id: bytes, *, copies: int, than: Collection[str]
    ) -> Candidate | None:
        """Return an owner that has a copy too and is worth asking; None if there is none.

        Args:
            chunk_id: What is read.
            copies: How many owners keep it.
            than: Those that are not meant.
        """
        known = self._known
        wide = max(copies, self.hot.copies(chunk_id))
        if known is None or wide == 1:
            return None
        owners = self._ring_of(known).owners(chunk_id, wide)
        others = self._worth(known, owners, than)
        if not others:
            return None
        chosen = self.standing.less_loaded(others)
        is_guest = chosen not in owners[:copies]
        return replace(_candidate(known, chosen, (chosen,)), is_guest=is_guest)

    def guest(self, node_id: str) -> Candidate | None:
        """Return a node as one to ask for what it has alone; None: it is not worth asking."""
        known = self._require()
        if not self._is_worth(known, node_id, ()):
            return None
        return replace(_candidate(known, node_id, (node_id,)), is_guest=True)

    def is_current(self, candidate: Candidate) -> bool:
        """Tell whether nothing is known yet that speaks against a choice made before."""
        known = self._known
        if known is None or known.view.placement.epoch != candidate.epoch:
            return False
        return self._is_worth(known, candidate.member.id, ())

    def is_suspected(self, node_id: str) -> bool:
        """Tell whether the node did not answer lately."""
        return self.standing.is_suspected(node_id)

    def suspect(self, node_id: str) -> None:
        """Pass the node over for a while: it did not answer."""
        self.standing.suspect(node_id)

    def trust(self, node_ids: Iterable[str]) -> None:
        """Stop suspecting nodes: they answered, or another node says that they do."""
        self.standing.trust(node_ids)


def _candidate(
    known: _Known, owner: str, owners: Sequence[str], *, but: Collection[str] = ()
) -> Candidate:
    """Return ``owner`` as the one to ask; those before it could not be reached, ``but`` some."""
    passed = owners[: owners.index(owner)]
    suspects = tuple(each for each in passed if each not in but)
    return Candidate(known.view.members[owner], known.view.placement.epoch, suspects)


def _ring_for(view: View, known: _Known | None) -> Ring | None:
    if known is None or known.ring is None:
        return None
    placement = view.placement
    if known.view.placement.points_per_100 != placement.points_per_100:
        return Ring.build(placement.nodes, placement.points_per_100)
    if known.view.placement.nodes == placement.nodes:
        return known.ring
    return known.ring.changed_to(placement.nodes)


def _ring_before(view: View, known: _Known | None) -> Ring | None:
    """Return the ring before the latest change, None once all have handed over."""
    epoch = view.placement.epoch
    if known is None or all(member.settled_epoch >= epoch for member in view.members.values()):
        return None
    is_same = known.view.placement.nodes == view.placement.nodes
    return known.before if is_same else known.ring

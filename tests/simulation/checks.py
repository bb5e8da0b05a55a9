"""What must hold in every history, at every step, and at its end.

Responsible for: telling from outside, by what lies on the disks and gets through the network,
whether the nodes and the library do what the design promises.
Not responsible for: making things happen (`history`).

Safety, all the time:
- no wrong byte: what lands is what the origin wrote for that version;
- budgets: a disk holds no more than its ledger counts, and that no more than its capacity;
- nobody loses its place on the ring but who was away for the grace;
- no error to a reader while a node that had no trouble could have served, or the origin been read;
- one origin read a chunk: a node reads the origin only if it is the first owner that lives, as far
  as it can know, and none of those who it knows may hold the chunk holds it within its reach.
Liveness, after the faults: all is handed over, every chunk lies at its owners, all can be read, and
that costs the origin only what no disk had.
"""

import functools
from collections import Counter
from collections.abc import Iterable

from penstock.errors import ClusterUnavailable, ObjectChanged, OriginUnavailable
from penstock.membership.coordinator import Changes
from penstock.membership.view import View
from penstock.objects import ObjectId
from penstock.placement import Placement
from penstock.ring import Ring
from penstock.routing import SPARE_OWNERS
from penstock.standing import JITTER, SUSPECT_MAX_S
from penstock_node.coordination.records import MEMBERS, PLACEMENT, placement_from_json
from penstock_node.peers import PROBES
from tests.simulation.client import ChunkRead
from tests.simulation.cluster import SimCluster
from tests.simulation.edges import SILENCE_S
from tests.simulation.node import SimNode
from tests.simulation.origin import OriginRead

NEWS_S = SILENCE_S + PROBES * SILENCE_S + (1 + JITTER) * SUSPECT_MAX_S + 4.0
"""After this long without trouble, all have heard of each other: what was silent was given up, and
is suspected no more; a lease has ended, and watches have told."""
STARTING_S = 3.0
"""Until a node that was started, or stopped, answers well again."""
IN_HAND_S = 3.0
"""After it came, a chunk that others were told of is on its way to them for so long at most."""
BACK_S = 0.5
"""Until all that publish placements have heard that a node is back."""
ERRORS_LAST_S = 2.0
"""For so long a failure of the origin may be told to readers after it is over."""


class Broken(AssertionError):
    """Something that must hold does not."""


class Checks:
    """Watches a cluster."""

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self._clock = cluster.loop.time
        self._rings: dict[object, Ring] = {}
        self._published: dict[tuple[str, bytes], float] = {}
        self.counts: Counter[str] = Counter()
        """How often what was checked: a check that never ran shows nothing."""
        self.broken: list[Broken] = []
        """What did not hold, though the code that it was found in may have gone on."""
        self._away_since: dict[str, float] = {}
        self._was_away: dict[str, tuple[float, float]] = {}
        """From when until when, the last time."""
        self._epoch = 0
        self._placed: set[str] = set()
        """By the newest placement."""
        cluster.keys.watch = self._keys_change
        cluster.world.watch = self._origin_is_read
        for node in cluster.nodes.values():
            node.platter.watch = functools.partial(self._disk_fills, node)

    # Budgets.

    def _disk_fills(self, node: SimNode) -> None:
        parts = node.parts
        if parts is None:  # The write of a process that is no more.
            return
        self.counts["budgets"] += 1
        opened = parts.tier._opened
        assert opened is not None
        used_bytes = opened.ledger.used_bytes
        self._claim(node.platter.used_bytes <= used_bytes, node.id, "holds more than it counts")
        self._claim(used_bytes <= node.capacity_bytes, node.id, "counts more than it may hold")
        newest = next(reversed(node.platter.chunks))
        self._published[node.id, newest] = self._clock()

    # The ring.

    def _keys_change(self, changes: Changes) -> None:
        for key, entry in changes.changes:
            if key.startswith(MEMBERS):
                node_id = key.removeprefix(MEMBERS)
                if entry is None:
                    self._away_since[node_id] = self._clock()
                elif node_id in self._away_since:
                    self._was_away[node_id] = (self._away_since.pop(node_id), self._clock())
            elif key == PLACEMENT and entry is not None:
                self._is_published(placement_from_json(entry.value))

    def _is_published(self, placement: Placement) -> None:
        """Check that only who was away for the grace has lost its place."""
        if placement.epoch < self._epoch:
            return  # Given back after a loss, by one who had not heard the newest: others have.
        self._epoch, placed = placement.epoch, {node.id for node in placement.nodes}
        self.counts["placements"] += 1
        grace_s = self._cluster.shape.settings.departure_grace_s
        for node_id in sorted(self._placed - placed):
            since, until = self._was_away.get(node_id, (0.0, 0.0))
            if until + BACK_S < self._clock():  # Else whoever wrote this had not heard of it.
                since = self._clock()
            away_s = self._clock() - self._away_since.get(node_id, since)
            self._claim(away_s >= grace_s, node_id, "lost its place after", away_s, "s")
            self.counts["departures"] += 1
        self._placed = placed

    # Reads.

    def read_ended(self, read: ChunkRead) -> None:
        """Judge what a client was given."""
        self.counts["reads"] += 1
        if read.error is None:
            self._claim(read.is_right, "wrong bytes for", read.object, read.index)
            return
        self.counts[f"failed: {read.error.name}"] += 1
        self._claim(self._may_fail(read), "a read failed without need:", read)

    def _may_fail(self, read: ChunkRead) -> bool:
        subject, world = read.object, self._cluster.world
        if isinstance(read.error, ObjectChanged):
            return (subject.key, subject.version) in world.overwritten_at
        is_origin_well = world.is_up and world.changed_at + ERRORS_LAST_S < read.began_at
        if isinstance(read.error, OriginUnavailable):
            return not is_origin_well
        if not isinstance(read.error, ClusterUnavailable):
            return False
        return not any(self._was_well(owner, read) for owner in self._in_line(subject, read.index))

    def _was_well(self, node: SimNode, read: ChunkRead) -> bool:
        return node.is_up and node.unsteady_at + NEWS_S < read.began_at

    def _in_line(self, subject: ObjectId, index: int) -> list[SimNode]:
        """Return the nodes that may act as a chunk's owner, by the newest placement."""
        views = sorted(self._views(), key=lambda view: view.placement.epoch)
        if not views:
            return []
        view = views[-1]
        owners = self._ring(view).owners(subject.chunk_id(index), view.replicas + SPARE_OWNERS)
        return [self._cluster.nodes[owner] for owner in owners]

    def _views(self) -> Iterable[View]:
        for node in self._cluster.nodes.values():
            if node.parts is not None and node.parts.cluster.routing.view is not None:
                yield node.parts.cluster.view

    def _ring(self, view: View) -> Ring:
        placement = view.placement
        key = placement.nodes, placement.points_per_100
        if key not in self._rings:
            self._rings[key] = Ring.build(*key)
        return self._rings[key]

    # The origin.

    def _origin_is_read(self, read: OriginRead) -> None:
        self.counts["origin reads"] += 1
        node = self._cluster.nodes[read.node]
        parts = node.parts
        if parts is None:
            return
        chunk_id = read.object.chunk_id(read.index)
        self._cluster.trace(read.node, "reads the origin:", read.object.key, read.index)
        self.counts["first owner"] += 1
        for other in self._better_owners(node, parts.cluster.view, chunk_id):
            self._claim(False, read.node, "reads the origin before", other.id, chunk_id.hex())
        began_at, known = parts.filler.began[chunk_id]
        if parts.took_at >= began_at:
            return  # It may have asked whom an earlier placement named.
        unsettled = self._unsettled(node, parts.cluster.view, chunk_id)
        for other in self._unsettled(node, known, chunk_id):
            if other not in unsettled:
                continue
            had_it = self._had_it(node, other, chunk_id, began_at)
            self._claim(not had_it, read.node, "did not ask", other.id, "for", chunk_id.hex())
            self.counts["not asked in vain"] += 1

    def _better_owners(self, node: SimNode, view: View, chunk_id: bytes) -> list[SimNode]:
        """Return owners before this one that it has no reason to pass over."""
        owners = self._ring(view).owners(chunk_id, view.replicas + SPARE_OWNERS)
        before = owners[: owners.index(node.id)] if node.id in owners else owners
        others = (self._cluster.nodes[each] for each in before if each in view.members)
        return [other for other in others if self._is_near(node, other)]

    def _is_near(self, node: SimNode, other: SimNode) -> bool:
        """Tell whether two nodes have had no trouble with each other for a while."""
        since = self._clock() - NEWS_S
        are_steady = other.unsteady_at < since and node.unsteady_at < since
        are_linked = self._cluster.links_changed_at < since and not self._is_cut(node, other)
        return other.is_up and are_steady and are_linked

    def _unsettled(self, node: SimNode, view: View, chunk_id: bytes) -> list[SimNode]:
        """Return whom a node should ask before the origin, by what it knows."""
        owners = self._ring(view).owners(chunk_id, view.replicas + SPARE_OWNERS)
        for past in view.placement.history:
            ring = Ring.build(past.nodes, past.points_per_100)
            owners += ring.owners(chunk_id, view.replicas)
        unsettled = [
            owner
            for owner in dict.fromkeys(owners)
            if owner != node.id
            and owner in view.members
            and view.members[owner].settled_epoch < view.placement.epoch
        ]
        return [self._cluster.nodes[owner] for owner in unsettled[:4]]

    def _had_it(self, node: SimNode, other: SimNode, chunk_id: bytes, since: float) -> bool:
        """Tell whether another had a good copy all the time, within the node's reach."""
        is_good = chunk_id in other.platter.chunks and chunk_id not in other.platter.rotten
        came_at = self._published.get((other.id, chunk_id), 0.0)
        was_near = other.unsteady_at < since - STARTING_S and self._cluster.links_changed_at < since
        is_near = other.is_up and was_near and not self._is_cut(node, other)
        return is_near and is_good and came_at < since

    def _is_cut(self, node: SimNode, other: SimNode) -> bool:
        return self._cluster.network.is_cut(node.id, other.id)

    # The end.

    def holders(self, chunk_id: bytes) -> list[str]:
        """Return the nodes on whose disks a chunk lies."""
        nodes = self._cluster.nodes.values()
        return [node.id for node in nodes if chunk_id in node.platter.chunks]

    def is_lost(self, chunk_id: bytes) -> bool:
        """Tell whether a chunk's first owner has to read it anew: it has no good copy.

        All is in its place by then: it has one if any node has, but for copies that rotted.
        """
        view = next(iter(self._views()))
        (first,) = self._ring(view).owners(chunk_id, 1)
        platter = self._cluster.nodes[first].platter
        return chunk_id not in platter.chunks or chunk_id in platter.rotten

    def all_is_in_place(self, *, but_for_troubled: bool) -> None:
        """Check that each chunk that lies anywhere lies at each of its owners.

        Args:
            but_for_troubled: Not at one that started, ended or stopped when it was told of a copy:
                that it took note and never copied it, nobody learns before the next placement.
        """
        view = next(iter(self._views()))
        everywhere = {
            chunk_id for node in self._cluster.nodes.values() for chunk_id in node.platter.chunks
        }
        # A bad copy is one until it is read; then it is gone, and nobody else knows.
        for chunk_id in sorted(everywhere - self._cluster.ever_rotten):
            self.counts["placed chunks"] += 1
            owners = self._ring(view).owners(chunk_id, view.replicas)
            holders = self.holders(chunk_id)
            missing = set(owners) - set(holders)
            if but_for_troubled and view.replicas > 1:
                missing -= {each for each in missing if self._was_troubled(each, chunk_id)}
            self._claim(
                not missing, chunk_id.hex(), "is at", holders, "and not at", sorted(missing)
            )

    def _was_troubled(self, owner: str, chunk_id: bytes) -> bool:
        came_at = min(self._published.get((each, chunk_id), 0.0) for each in self.holders(chunk_id))
        troubled_at = self._cluster.nodes[owner].troubled_at
        return any(came_at - IN_HAND_S <= at <= came_at + IN_HAND_S for at in troubled_at)

    def _claim(self, holds: bool, *otherwise: object) -> None:
        if not holds:
            broken = Broken(" ".join(map(str, otherwise)))
            self.broken.append(broken)
            raise broken

"""Who has been away for longer than the grace, and so loses its place on the ring.

Responsible for: counting the time that placed nodes are away. No I/O and no clock of its own:
it is shown the world, with the time, at least once a lease time.
Not responsible for: taking a departed node off the ring (`publisher`).

Only time in which a node could have been seen counts. While the coordinator is away nobody can
keep a lease alive, so no grace runs, nor until the coordinator has been back for one lease time:
by then every node that lives has said so. Time that this process slept through does not count
either. Counted time stays counted over an outage.
"""

from collections.abc import Set
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sighting:
    """What can be seen of the cluster at one moment."""

    now: float
    """In seconds, of a clock that never runs backwards."""
    connected: bool
    placed: Set[str]
    alive: Set[str]


class Departures:
    """How long each placed node has been away, as one observer counts it."""

    def __init__(self) -> None:
        self._away_s: dict[str, float] = {}
        self._last_at: float | None = None
        self._counts_from: float | None = None

    def interrupted(self) -> None:
        """The coordinator was replaced by one that knows of no member: as after an outage."""
        self._counts_from = None

    def observe(self, sighting: Sighting, *, lease_ttl_s: float) -> None:
        """Count the time since the last sighting for every placed node that is away."""
        elapsed_s = self._counted_s(sighting, lease_ttl_s=lease_ttl_s)
        away = sighting.placed - sighting.alive
        # A node that is away for the first time begins at 0: it may have left just now.
        self._away_s = {
            node: self._away_s[node] + elapsed_s if node in self._away_s else 0.0 for node in away
        }

    def _counted_s(self, sighting: Sighting, *, lease_ttl_s: float) -> float:
        before, self._last_at = self._last_at, sighting.now
        slept = before is not None and sighting.now - before > lease_ttl_s
        if not sighting.connected:
            self._counts_from = None
            return 0.0
        if self._counts_from is None or before is None or slept:
            self._counts_from = sighting.now + lease_ttl_s
            return 0.0
        return max(0.0, sighting.now - max(before, self._counts_from))

    def departed(self, *, grace_s: float) -> frozenset[str]:
        """Return who was away, at the last sighting, for the grace or longer."""
        if self._counts_from is None or self._last_at is None or self._last_at < self._counts_from:
            return frozenset()  # Right after an outage nobody can be told from the dead.
        return frozenset(node for node, away_s in self._away_s.items() if away_s >= grace_s)

    def away_s(self, node: str) -> float:
        """Return for how long ``node`` has been away, in seconds; 0 when it is not."""
        return self._away_s.get(node, 0.0)

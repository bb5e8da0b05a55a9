"""Who has been away for long enough that others make copies in its stead."""

from collections.abc import Callable, Set

from penstock_node.cluster import Cluster


class Absences:
    """The owners that do not answer, and since when."""

    def __init__(self, cluster: Cluster, *, clock: Callable[[], float]) -> None:
        """Begin to look; ``clock`` tells seconds, from anywhere on."""
        self._cluster = cluster
        self._clock = clock
        self._since: dict[str, float] = {}

    def absent(self) -> Set[str]:
        """Return those that have been away for `repair_after_s`, as far as looks have told."""
        view, now = self._cluster.view, self._clock()
        away = {
            node.id
            for node in view.placement.nodes
            if node.weight > 0 and node.id not in view.members
        }
        self._since = {node_id: self._since.get(node_id, now) for node_id in away}
        limit_s = self._cluster.settings.repair_after_s
        return frozenset(
            node_id for node_id, since in self._since.items() if now - since >= limit_s
        )

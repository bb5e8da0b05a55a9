"""What a catalog does beyond others where it is a mirror, as operators set and see it.

Responsible for: rules of which data is brought into the region, and telling how far all is.
Not responsible for: following the source (`mirroring`), bringing data (`bringing`).
"""

import contextlib
from concurrent.futures import Executor

from penstock.errors import ClusterUnavailable, InvalidRequest
from penstock.membership.coordinator import Coordinator
from penstock.mirror_rules import BroughtVolume, MirrorRules
from penstock.volumes import READ_ONLY_KINDS
from penstock_node.catalog.copies import Copied, Copies
from penstock_node.catalog.selection import Selection
from penstock_node.catalog_server.bringing import Bringing
from penstock_node.catalog_server.mirroring import Mirror
from penstock_node.catalog_server.nearby import Nearby
from penstock_node.catalog_server.places import Places
from penstock_node.coordination.records import MIRRORS, mirror_rules_to_json
from penstock_node.tasks import in_thread


class Mirrored:
    """A mirror as its service knows it. On one event loop."""

    def __init__(
        self,
        following: Mirror,
        *,
        nearby: Nearby,
        copies: Copies,
        places: Places,
        threads: Executor,
        coordinator: Coordinator | None = None,
        bringing: Bringing | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            following: Follows the source.
            nearby: Knows copies.
            copies: Has them.
            places: Where files lie.
            threads: For the database.
            coordinator: Has the rules; with ``bringing``, which heeds them. None: no cluster.
            bringing: See there.
        """
        self.following, self.nearby = following, nearby
        self._copies, self._places, self._threads = copies, places, threads
        self._coordinator, self._bringing = coordinator, bringing

    async def set_rules(self, volume: str, rules: MirrorRules) -> None:
        """Have some data of a volume brought here from now on; without globs, none.

        Raises:
            InvalidRequest: There is no such volume, no store that data could be copied to, or a
                glob is none.
            ClusterUnavailable: The coordinator does not answer.
        """
        if self._coordinator is None:
            raise InvalidRequest("this catalog has no [etcd], and so no cluster to bring data to")
        origins = (await self._places.origin(volume)).places
        nearest = origins[0]
        if rules.copied and len(origins) == 1:
            raise InvalidRequest(
                f"volume {volume!r} lies at {nearest.url} alone: give it this region's own store "
                f"first: penstock volume add {volume} --catalogued --origin URL --origin "
                f"{nearest.url} --replace"
            )
        if rules.copied and nearest.kind in READ_ONLY_KINDS:
            raise InvalidRequest(f"{nearest.url}: {nearest.kind} origins cannot be written")
        for globs in (rules.copied, rules.warmed):
            Selection(globs)
        key, is_wanted = MIRRORS + volume, rules.copied or rules.warmed
        if is_wanted:
            await self._coordinator.commit(puts={key: mirror_rules_to_json(rules)})
        else:
            await self._coordinator.commit(deletes=[key])

    async def brought(self) -> list[BroughtVolume]:
        """Return how far each volume is that has rules; while the coordinator is away, none."""
        rules_of = dict[str, MirrorRules]()
        if self._bringing is not None:
            with contextlib.suppress(ClusterUnavailable):
                rules_of = await self._bringing.rules()
        return [await self._told(volume, rules) for volume, rules in sorted(rules_of.items())]

    async def _told(self, volume: str, rules: MirrorRules) -> BroughtVolume:
        def look() -> tuple[int, Copied]:
            seq = self._copies.brought(volume, rules=rules.selection_key)
            return seq, self._copies.copied(volume)

        seq, copied = await in_thread(self._threads, look)
        return BroughtVolume(volume, rules, seq, copied.files, copied.bytes, self._trouble(volume))

    def _trouble(self, volume: str) -> str:
        told = self._bringing.trouble if self._bringing else {}
        return told.get(volume) or told.get("", "")

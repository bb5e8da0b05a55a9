"""Where the files of catalogued volumes lie: the volumes as the cluster has them now.

Responsible for: finding a volume, and which of its origins a url lies in.
Not responsible for: reading origins.
"""

import contextlib
import time
from collections.abc import Callable, Mapping

import structlog

from penstock.errors import InvalidRequest, PenstockError
from penstock.membership.coordinator import Coordinator
from penstock.volumes import Volume
from penstock_node.coordination.records import VOLUMES
from penstock_node.origin import CataloguedOrigin, Origin, Origins

RECALLED_S = 5.0
"""How old an answer about volumes may be that is given without asking the coordinator."""

_log = structlog.get_logger(__name__)


class Places:
    """The volumes of a cluster. On one event loop."""

    def __init__(
        self,
        origins: Origins,
        *,
        coordinator: Coordinator | None,
        configured: Mapping[str, Volume],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask nothing yet.

        Args:
            origins: Opens them.
            coordinator: Has the volumes; None: there is no cluster.
            configured: Those without a cluster.
            clock: Monotonic, in seconds.
        """
        self._origins, self._coordinator = origins, coordinator
        self._known: Mapping[str, Volume] = dict(configured)
        self._foreign: Mapping[str, str] = {}
        """Why this version cannot read a volume's record, by volume."""
        self._clock, self._asked_at = clock, -RECALLED_S

    async def locate(self, volume: str, url: str) -> tuple[Volume, Origin, str]:
        """Return the origin of a volume that a url lies in, and the path within that.

        Raises:
            InvalidRequest: There is no such catalogued volume.
            NotPermitted: The url lies in none of its origins.
            ClusterUnavailable: The coordinator does not answer.
        """
        return (await self.origin(volume)).place_of(url)

    async def origin(self, volume: str) -> CataloguedOrigin:
        """Return the origin of a volume; raises as `check`."""
        return self._opened(await self._catalogued(volume))

    async def recall(self, volume: str) -> CataloguedOrigin | None:
        """Return the origin of a volume as it was some seconds ago, or longer ago while the
        coordinator is away; None: there was none.
        """
        known = self._known
        if self._clock() >= self._asked_at + RECALLED_S:
            with contextlib.suppress(PenstockError):
                known = await self._volumes()
        found = known.get(volume)
        return self._opened(found) if found and found.is_catalogued else None

    def _opened(self, volume: Volume) -> CataloguedOrigin:
        origin = self._origins.get(volume)
        assert isinstance(origin, CataloguedOrigin), "origins of catalogued volumes are"
        return origin

    async def check(self, volume: str) -> None:
        """Refuse what is no catalogued volume; raises as `locate`."""
        await self._catalogued(volume)

    async def _catalogued(self, name: str) -> Volume:
        volumes = await self._volumes()
        if name in volumes and volumes[name].is_catalogued:
            return volumes[name]
        if name in volumes:
            raise InvalidRequest(f"volume {name!r} is not catalogued: it is read where it lies")
        if name in self._foreign:
            raise InvalidRequest(self._foreign[name])
        raise InvalidRequest(
            f"there is no catalogued volume {name!r}; penstock volume ls shows which there are; "
            f"add it with: penstock volume add {name} --catalogued --origin URL"
        )

    async def _volumes(self) -> Mapping[str, Volume]:
        if self._coordinator is None:
            return self._known
        self._asked_at = self._clock()  # Also where nobody answers: it is not asked at once again.
        found = (await self._coordinator.list(VOLUMES)).entries
        volumes, foreign = dict[str, Volume](), dict[str, str]()
        for key, entry in found.items():
            name = key.removeprefix(VOLUMES)
            try:
                volumes[name] = Volume.from_json(name, entry.value)
            except InvalidRequest as error:  # A newer version's, perhaps: the others are served.
                foreign[name] = str(error)
                if self._foreign.get(name) != foreign[name]:
                    _log.warning("a volume is not served", volume=name, error=foreign[name])
        self._known, self._foreign = volumes, foreign
        return self._known

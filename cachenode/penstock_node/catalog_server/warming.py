"""Having a region's cache bring in files, as any program of that region would.

Responsible for: finding nodes, opening files anew so that no node believes an older version, and
what did not come. Not responsible for: which files (`bringing`), filling (nodes do).
"""

import asyncio
import threading
from collections.abc import Sequence

from penstock.address import seed_addresses
from penstock.cache import Cache
from penstock.catalog_file import CatalogFile
from penstock.core import Core, Options
from penstock.credentials import Authorization
from penstock.errors import (
    ClusterUnavailable,
    ObjectNotFound,
    OriginUnavailable,
    PenstockError,
    from_name,
)
from penstock.membership.coordinator import Coordinator
from penstock.tls import Tls
from penstock.volumes import penstock_url
from penstock.warmup import WarmupFailure
from penstock_node.catalog_server.passed_by import is_of_one_file
from penstock_node.coordination.records import MEMBERS, member_from_json

SEEDS_MAX = 8
"""Nodes that are asked for the others."""
_MOVED_ON = ("ObjectChanged", "ObjectNotFound")


class Warmer:
    """Warms files of one cluster, some at a time. On one event loop."""

    def __init__(
        self,
        coordinator: Coordinator,
        *,
        tls: Tls | None,
        authorization: Authorization,
        insecure: bool,
    ) -> None:
        """Ask nothing yet.

        Args:
            coordinator: Knows the nodes.
            tls: What is shown to them.
            authorization: Returns what is shown to them with each call.
            insecure: That may be in plain text.
        """
        self._coordinator, self._tls, self._insecure = coordinator, tls, insecure
        self._authorization = authorization

    async def warm(self, volume: str, files: Sequence[CatalogFile]) -> dict[str, PenstockError]:
        """Have files in the cache, in the versions that they have; wait until they are there.

        Those that have another version by now are passed by.

        Returns:
            By path, why some did not come, where that is a matter of each by itself.

        Raises:
            ClusterUnavailable: No node answers.
            OriginUnavailable: Some did not come; the others did.
        """
        address = ",".join(await self._addresses())
        stop = threading.Event()
        try:
            return await asyncio.to_thread(self._warm, address, volume, files, stop)
        finally:
            stop.set()

    async def _addresses(self) -> list[str]:
        found = (await self._coordinator.list(MEMBERS)).entries
        members = [
            member_from_json(key.removeprefix(MEMBERS), entry.value).member
            for key, entry in found.items()
        ]
        addresses = [each.grpc_address for each in members if each.grpc_address]
        if not addresses:
            raise ClusterUnavailable("this region has no node that could bring data into its cache")
        return addresses[:SEEDS_MAX]

    def _warm(
        self, address: str, volume: str, files: Sequence[CatalogFile], stop: threading.Event
    ) -> dict[str, PenstockError]:
        options = Options(
            seeds=seed_addresses(address),
            authorization=self._authorization,
            credentials=self._tls.credentials() if self._tls else None,
            insecure=self._insecure,
        )
        with Cache(lambda: Core(options), address=address) as cache:
            present, failed = _present(cache, volume, files, stop)
            report = cache.warmup(list(present), stop=stop)
        left: list[WarmupFailure] = []
        for each in report.failed:
            error = from_name(each.error, each.message)
            if each.error in _MOVED_ON:
                continue
            if each.url in present and is_of_one_file(error):
                failed[present[each.url]] = error
            else:
                left.append(each)
        if left:
            raise OriginUnavailable(
                f"{len(left)} files were not brought into the cache: {left[0].url}: "
                f"{left[0].message}"
            )
        return failed


def _present(
    cache: Cache, volume: str, files: Sequence[CatalogFile], stop: threading.Event
) -> tuple[dict[str, str], dict[str, PenstockError]]:
    """Return by url the paths that are as they were told, and by path what failed by itself."""
    found: dict[str, str] = {}
    failed: dict[str, PenstockError] = {}
    for file in files:
        if stop.is_set():
            break
        url = penstock_url(volume, file.path)
        try:
            is_same = cache.stat(url, refresh=True).version == file.version
        except ObjectNotFound:
            continue
        except PenstockError as error:
            if not is_of_one_file(error):
                raise
            failed[file.path] = error
            continue
        if is_same:
            found[url] = file.path
    return found, failed

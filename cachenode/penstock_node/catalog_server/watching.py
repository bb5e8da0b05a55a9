"""Having places watched.

Responsible for: which may be, and telling where events are to be sent.
Not responsible for: events (`events`), remembering (`catalog.watched`).
"""

from concurrent.futures import Executor
from typing import TypeVar

from penstock.errors import InvalidRequest
from penstock.origin_urls import canonical_url, check_path
from penstock_node.catalog.files import Files
from penstock_node.catalog.selection import Selection
from penstock_node.catalog.watched import Watched, WatchedPlace
from penstock_node.catalog_server.places import Places
from penstock_node.tasks import in_thread

T = TypeVar("T")


class Watching:
    """Begins and ends it. On one event loop."""

    def __init__(
        self, watched: Watched, *, files: Files, places: Places, threads: Executor, events_url: str
    ) -> None:
        """Ask nothing yet.

        Args:
            watched: Which places are.
            files: Of all volumes.
            places: Where they lie.
            threads: For the database, whose calls block.
            events_url: Where this process hears of events.
        """
        self._watched, self._files, self._places = watched, files, places
        self._threads, self.events_url = threads, events_url

    async def begin(self, volume: str, url: str, *, to: str, selection: Selection) -> None:
        """Have a place watched.

        Raises:
            InvalidRequest: There is no such volume, or the place's store tells of nothing.
            NotPermitted: The place is in none of the volume's origins.
        """
        wanted = _place(volume, url, to=to, selection=selection)
        place, _, _ = await self._places.locate(volume, wanted.url)
        if place.kind != "s3":
            raise InvalidRequest(
                f"{wanted.url}: only stores that speak S3 tell of changes; import it --every 10m"
            )
        await in_thread(self._threads, lambda: self._files.volume(volume))  # Made, where it is new.
        await in_thread(self._threads, lambda: self._watched.begin(wanted))

    async def end(self, volume: str, url: str, *, to: str) -> None:
        """Have it watched no more.

        Raises:
            InvalidRequest: It is not watched; the message says what is.
        """
        place = _place(volume, url, to=to, selection=Selection())
        if await in_thread(self._threads, lambda: self._watched.end(place)):
            return
        known = await in_thread(self._threads, lambda: self._watched.of_volume(volume))
        told = ", ".join(str(each) for each in known) or "nothing"
        raise InvalidRequest(f"{place} is not watched for {volume!r}; watched is: {told}")


def _place(volume: str, url: str, *, to: str, selection: Selection) -> WatchedPlace:
    to = to.strip("/")
    if to:
        check_path(to)
    return WatchedPlace(volume, canonical_url(url, where=f"volume {volume!r}"), to, selection)

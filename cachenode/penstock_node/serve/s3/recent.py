"""Objects that were opened a moment ago: a client that reads ranges asks for one many times.

Responsible for: believing an answer for as long as it says, in bounded memory. `recall` from any
thread, `open` on the event loop.
Not responsible for: which node asks the origin (`opening`).
"""

import time
from collections import OrderedDict
from collections.abc import Callable

from penstock.errors import PenstockError
from penstock.object_info import OpenedObject
from penstock_node.opening import Opener

REMEMBERED_MAX = 10_000


class RecentOpens:
    """What was opened lately, by url."""

    def __init__(self, opener: Opener, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._opener = opener
        self._clock = clock
        self._remembered: OrderedDict[str, tuple[float, OpenedObject]] = OrderedDict()

    def recall(self, url: str) -> OpenedObject | None:
        """Return the object at ``url`` as it was opened a moment ago, if it was."""
        known = self._remembered.get(url)
        return known[1] if known is not None and known[0] > self._clock() else None

    async def open(self, url: str, *, refresh: bool) -> OpenedObject:
        """Return the object at ``url``; with ``refresh`` as it is at its origin now.

        Raises:
            ObjectNotFound: There is none.
            PenstockError: What `Opener.open` tells.
        """
        known = None if refresh else self.recall(url)
        if known is not None:
            return known
        asked_at = self._clock()
        (result,) = await self._opener.open([url], refresh=refresh, forwarded=False)
        self._remembered.pop(url, None)
        if isinstance(result, PenstockError):
            raise result
        self._remembered[url] = (asked_at + result.fresh_for_s, result)
        if len(self._remembered) > REMEMBERED_MAX:
            self._remembered.popitem(last=False)
        return result

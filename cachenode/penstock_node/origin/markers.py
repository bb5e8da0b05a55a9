"""Markers of folders: empty objects named "folder/", which consoles make for a new folder.

Responsible for: leaving them out of listings. obstore tells them without their slash, as
"folder": an object that is not there, and over which a copy of the whole bucket would fail.
Not responsible for: listing itself (`object_store`).
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from penstock.errors import ObjectNotFound, PenstockError
from penstock_node.origin.interface import ListPage, OriginMeta

HEADS_AT_ONCE = 16

_BEHIND = "/ "
"""Added to a marker's path: what lies in the folder is behind it, and the marker is not."""


async def without_markers(page: ListPage, head: Callable[[str], Awaitable[OriginMeta]]) -> ListPage:
    """Return ``page`` without markers; each object without bytes costs a ``head``.

    The page may have become empty and still have a next one.
    """
    empty = [found.path for found in page.objects if found.size == 0]
    markers: set[str] = set()
    for start in range(0, len(empty), HEADS_AT_ONCE):
        few = empty[start : start + HEADS_AT_ONCE]
        answers = await asyncio.gather(*(_is_there(path, head) for path in few))
        markers.update(path for path, is_there in zip(few, answers, strict=True) if not is_there)
    if not markers:
        return page
    objects = tuple(found for found in page.objects if found.path not in markers)
    goes_on = page.next_after + _BEHIND if page.next_after in markers else page.next_after
    return replace(page, objects=objects, next_after=goes_on)


async def _is_there(path: str, head: Callable[[str], Awaitable[OriginMeta]]) -> bool:
    try:
        await head(path)
    except ObjectNotFound:
        return False
    except PenstockError:  # Whoever reads it is told.
        return True
    return True

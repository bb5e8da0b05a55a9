"""What lies directly in a directory, from an origin that tells keys in their order.

The origin is a fake that knows its keys; pages of any size must tell all there is, once.
"""

from bisect import bisect_right
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import InvalidRequest, NotPermitted
from penstock.object_info import ObjectInfo
from penstock.volumes import Volume, Volumes
from penstock_node.key_listing import ROOT, list_directory
from penstock_node.listing import Page, check_limit

_VOLUMES = Volumes({name: Volume(name, f"s3://{name}/") for name in ("data", "models")})


class Keys:
    """Stands for a node's listings of one volume."""

    def __init__(self, keys: set[str]) -> None:
        self._keys = sorted(keys)
        self.asked = 0

    async def page(self, url: str, *, after: str, limit: int, refresh: bool = False) -> Page:
        check_limit(limit)
        self.asked += 1
        directory = url.removeprefix("penstock://data/")
        start = f"{directory}/" if directory else ""
        first = bisect_right(self._keys, after)
        found = [key for key in self._keys[first:] if key.startswith(start)]
        objects = tuple(ObjectInfo(f"penstock://data/{key}", "v", 1, None) for key in found[:limit])
        return Page(objects, found[limit - 1] if len(found) > limit else "")


async def told(keys: Keys, url: str, *, limit: int) -> tuple[list[str], list[str]]:
    objects, directories, after = list[str](), list[str](), ""
    while True:
        page = await _page(keys, url, after=after, limit=limit)
        objects += [info.url for info in page.objects]
        directories += page.directories
        if not (after := page.next_token):
            return objects, directories
        assert len(page.objects) + len(page.directories) <= limit


async def _page(keys: Keys, url: str, *, after: str = "", limit: int = 0) -> Page:
    return await list_directory(cast("Any", keys), _VOLUMES, url, after=after, limit=limit)


_NAMES = st.text(st.sampled_from("ab.!~é"), min_size=1, max_size=3).filter(
    lambda name: name not in (".", "..")
)
_KEYS = st.sets(st.lists(_NAMES, min_size=1, max_size=3).map("/".join), max_size=40)


@given(_KEYS, st.integers(1, 7), st.sampled_from(["", "a", "a/b"]))
async def test_every_object_and_directory_is_told_once_whatever_the_pages(
    keys: set[str], limit: int, directory: str
) -> None:
    top = f"penstock://data/{directory}"
    start = f"{directory}/" if directory else ""
    below = {key.removeprefix(start) for key in keys if key.startswith(start)}

    objects, directories = await told(Keys(keys), top, limit=limit)

    base = f"penstock://data/{start}"
    assert objects == sorted(base + key for key in below if "/" not in key)
    assert directories == sorted({f"{base}{key.partition('/')[0]}/" for key in below if "/" in key})


async def test_a_directory_of_many_objects_costs_few_questions() -> None:
    keys = Keys({f"deep/{at:05}" for at in range(20_000)} | {"top"})

    assert await told(keys, "penstock://data/", limit=1000) == (
        ["penstock://data/top"],
        ["penstock://data/deep/"],
    )
    assert keys.asked == 2


async def test_the_volumes_are_the_directories_of_the_root() -> None:
    page = await _page(Keys(set()), ROOT)

    assert page == Page((), "", ("penstock://data/", "penstock://models/"))


async def test_what_cannot_be_listed_is_refused() -> None:
    for url, limit, error in (
        ("penstock://none/", 0, NotPermitted),
        ("penstock://data/a/../b", 0, InvalidRequest),
        ("penstock://data/", 1_001, InvalidRequest),
    ):
        with pytest.raises(error):
            await _page(Keys(set()), url, limit=limit)

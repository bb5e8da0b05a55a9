"""Filling pages of keys from a volume's listings: what has a prefix, or lies in one directory.

Responsible for: asking a volume page by page until a page of keys is full, and what lies directly
in a directory.
Not responsible for: which keys a page takes (`key_pages`), how long a listing is believed
(`listing`).
"""

from penstock.volumes import URL_SCHEME, Volumes, penstock_url
from penstock_node.key_pages import KeyPage, KeyQuery, askable
from penstock_node.listing import PAGE_MAX, Listings, Page, check_limit

KEYS_A_PAGE = PAGE_MAX - 1
"""Asked of an origin at once: with one more, which tells whether there are more, it answers in
one request."""
PAGES_MAX = 64
"""Of an origin, for one answer. Each folded directory of over `KEYS_A_PAGE` keys costs one; an
answer that would need more is cut short and goes on with its token."""
ROOT = f"{URL_SCHEME}://"
"""The directory whose directories are the volumes."""


async def take_keys(
    listings: Listings,
    page: KeyPage,
    *,
    volume: str,
    directory: str,
    prefix: str = "",
    pages_max: int = PAGES_MAX,
    refresh: bool = False,
) -> int:
    """Let ``page`` take a volume's keys until there are no more or it is over.

    Args:
        listings: Is asked for them.
        page: Takes keys.
        volume: The volume's name.
        directory: Below which keys are looked for: whole segments of a path within it.
        prefix: What stands before the volume's keys in the page's.
        pages_max: Of the volume, unless the page has nothing yet.
        refresh: Ask the origin, whatever is known.

    Returns:
        How many pages of the volume that took.
    """
    url, top = penstock_url(volume, directory), len(penstock_url(volume, ""))
    token, asked, is_stuck = "", 0, False
    while (behind := _within(prefix, page.cursor)) is not None:
        after = askable(behind)
        if after != behind or is_stuck:
            after = token or after
        floor = page.cursor if after != behind else ""
        found = await listings.page(url, after=after, limit=KEYS_A_PAGE, refresh=refresh)
        for info in found.objects:
            page.take(prefix + info.url[top:], info, floor=floor)
            if page.is_over:
                return asked
        # A page may be empty and not the last: the cursor stays where it was.
        token, asked, is_stuck = found.next_token, asked + 1, not found.objects
        if not token:
            break
        if asked >= pages_max and len(page):
            page.cut()
            break
    return asked


async def list_directory(
    listings: Listings,
    volumes: Volumes,
    url: str,
    *,
    after: str,
    limit: int,
    refresh: bool = False,
) -> Page:
    """Return some of what lies directly in the directory ``url``.

    Args:
        listings: Is asked for it.
        volumes: Those of the cluster.
        url: As for `Listings.page`; or `ROOT`.
        after: The last page's ``next_token``; empty to begin.
        limit: 1 to 1,000; 0 means 1,000.
        refresh: Ask the origin, whatever is known.

    Raises:
        InvalidRequest: A limit out of bounds, or what `Listings.page` raises.
    """
    check_limit(limit)
    if url == ROOT:
        return Page((), "", tuple(penstock_url(each.name, "") for each in volumes))
    location = volumes.resolve_prefix(url)
    volume, path = location.volume.name, location.path.rstrip("/")
    prefix = f"{path}/" if path else ""
    page = KeyPage(KeyQuery(prefix=prefix, delimiter="/", after=after, limit=limit or PAGE_MAX))
    await take_keys(listings, page, volume=volume, directory=path, refresh=refresh)
    return Page(
        tuple(info for _, info in page.objects),
        page.last if page.is_truncated else "",
        tuple(penstock_url(volume, key) for key in page.common_prefixes),
    )


def _within(prefix: str, behind: str) -> str | None:
    """Return where the keys of a volume at ``prefix`` begin behind a text; None: it has none."""
    if behind.startswith(prefix):
        return behind.removeprefix(prefix)
    return "" if behind < prefix else None

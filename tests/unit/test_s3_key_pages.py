"""Pages of keys: what S3's rules show of a sorted list of keys, however it comes in."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.object_info import ObjectInfo
from penstock_node.key_pages import KeyPage, KeyQuery, askable

KEYS = [
    "asdf",
    "boo/bar",
    "boo/baz/xyzzy",
    "boo2",
    "cquux/bla",
    "cquux/thud",
    "zü/1",
    "\U0010fffd",
]


def info(key: str) -> ObjectInfo:
    return ObjectInfo(f"penstock://models/{key}", '"v"', 1, None)


def tree_order(key: str) -> list[str]:
    """As stores have it that keep keys as files in directories: "a/x" stands before "a.txt"."""
    return key.split("/")


class OriginOfKeys:
    """Tells keys as an origin does: those behind a text, some at a time."""

    def __init__(self, keys: Sequence[str], *, in_tree_order: bool, page: int) -> None:
        self._order = tree_order if in_tree_order else None
        self._keys = sorted(keys, key=self._order)
        self._page = page

    def behind(self, after: str) -> list[str]:
        if self._order is None:
            found = [key for key in self._keys if key > after]
        else:
            found = [key for key in self._keys if self._order(key) > self._order(after)]
        return found[: self._page]


def page_of(origin: OriginOfKeys, query: KeyQuery) -> KeyPage:
    page = KeyPage(query)
    while not page.is_over:
        keys = origin.behind(page.cursor)
        if not keys:
            break
        for key in keys:
            if not page.is_over:
                page.take(key, info(key), floor="")
    return page


def all_pages(origin: OriginOfKeys, query: KeyQuery) -> Iterator[KeyPage]:
    page = page_of(origin, query)
    yield page
    while page.is_truncated:
        assert page.last > query.after or len(page), "a page that goes nowhere"
        query = KeyQuery(query.prefix, query.delimiter, page.last, query.limit)
        page = page_of(origin, query)
        yield page


def lines(page: KeyPage) -> list[str]:
    return [key for key, _ in page.objects] + page.common_prefixes


def expected(keys: Sequence[str], query: KeyQuery) -> set[str]:
    """What S3's reference says, without pages."""
    shown = [key for key in keys if key.startswith(query.prefix) and key > query.after]
    return {query.folded(key) or key for key in shown}


def listed(query: KeyQuery, keys: Sequence[str] = KEYS) -> tuple[list[str], list[str], bool]:
    page = page_of(OriginOfKeys(keys, in_tree_order=False, page=3), query)
    return [key for key, _ in page.objects], page.common_prefixes, page.is_truncated


def test_without_a_delimiter_all_keys_are_shown() -> None:
    assert listed(KeyQuery()) == (KEYS, [], False)


def test_a_prefix_need_not_end_at_a_slash() -> None:
    assert listed(KeyQuery("boo")) == (["boo/bar", "boo/baz/xyzzy", "boo2"], [], False)
    assert listed(KeyQuery("boo/b")) == (["boo/bar", "boo/baz/xyzzy"], [], False)
    assert listed(KeyQuery("zü")) == (["zü/1"], [], False)
    assert listed(KeyQuery("b/")) == ([], [], False)


def test_a_delimiter_folds_what_lies_behind_it() -> None:
    top = ["asdf", "boo2", "\U0010fffd"]

    assert listed(KeyQuery(delimiter="/")) == (top, ["boo/", "cquux/", "zü/"], False)
    assert listed(KeyQuery("boo/", "/")) == (["boo/bar"], ["boo/baz/"], False)
    assert listed(KeyQuery("boo", "/")) == (["boo2"], ["boo/"], False)
    assert listed(KeyQuery("boo/ba", "az/")) == (["boo/bar", "boo/baz/xyzzy"], [], False)
    assert listed(KeyQuery("boo/b", "az/")) == (["boo/bar"], ["boo/baz/"], False)


def test_pages_of_one_line_go_through_keys_and_common_prefixes() -> None:
    origin = OriginOfKeys(KEYS[:6], in_tree_order=False, page=3)

    pages = list(all_pages(origin, KeyQuery(delimiter="/", limit=1)))

    assert [lines(page) for page in pages] == [["asdf"], ["boo/"], ["boo2"], ["cquux/"]]
    assert [page.is_truncated for page in pages] == [True, True, True, False]


def test_a_page_of_nothing_is_not_truncated() -> None:
    assert listed(KeyQuery(limit=0)) == ([], [], False)
    assert listed(KeyQuery(limit=5), []) == ([], [], False)


def test_a_page_that_is_just_full_is_not_truncated() -> None:
    assert listed(KeyQuery(limit=8)) == (KEYS, [], False)


def test_to_begin_within_a_folded_directory_shows_it() -> None:
    assert listed(KeyQuery(delimiter="/", after="boo/bar"), KEYS[:4]) == (["boo2"], ["boo/"], False)
    assert listed(KeyQuery(delimiter="/", after="boo/"), KEYS[:4]) == (["boo2"], [], False)


def test_a_folded_directory_is_asked_for_once_however_large_it_is() -> None:
    keys = [f"big/{number:06}" for number in range(10_000)] + ["small"]
    page = KeyPage(KeyQuery(delimiter="/"))
    origin = OriginOfKeys(keys, in_tree_order=False, page=100)

    asked = 0
    while keys := origin.behind(page.cursor):
        asked += 1
        for key in keys:
            page.take(key, info(key), floor="")

    assert lines(page) == ["small", "big/"]
    assert asked == 2


def test_what_no_origin_can_be_asked_with_is_cut() -> None:
    assert askable("a/b") == "a/b"
    assert askable("a/b/") == "a/b"
    assert askable("a//b") == "a"
    assert askable("/a") == ""
    assert askable("a/../b") == "a"
    assert askable("a/b\x01") == "a"
    assert askable("") == ""
    assert askable("a/\U0010ffff") == "a/\U0010ffff"


LETTERS = st.text("ab.-/é", min_size=1, max_size=6)
PATHS = LETTERS.filter(lambda key: all(key.split("/")))


@given(
    keys=st.sets(PATHS, max_size=30),
    prefix=st.text("ab/", max_size=3),
    delimiter=st.sampled_from(["", "/", "a", "b/"]),
    after=st.text("ab.-/é", max_size=4),
    limit=st.integers(1, 5),
    page=st.integers(1, 7),
)
def test_pages_together_are_the_whole_listing(
    keys: set[str], prefix: str, delimiter: str, after: str, limit: int, page: int
) -> None:
    query = KeyQuery(prefix, delimiter, after, limit)
    origin = OriginOfKeys(sorted(keys), in_tree_order=False, page=page)

    pages = list(all_pages(origin, query))

    shown = [line for one in pages for line in sorted(lines(one))]
    wanted = expected(sorted(keys), query)
    # Who begins at a common prefix has seen it.
    assert shown == sorted(wanted - {after})
    assert all(len(one) == limit for one in pages[:-1])


@given(keys=st.sets(PATHS, max_size=30), limit=st.integers(1, 5), page=st.integers(1, 7))
@pytest.mark.parametrize("delimiter", ["", "/"])
def test_nothing_is_lost_of_a_store_in_the_order_of_a_tree(
    keys: set[str], delimiter: str, limit: int, page: int
) -> None:
    # Such a store has no file and directory of one name.
    keys = {key for key in keys if not any(other.startswith(key + "/") for other in keys)}
    origin = OriginOfKeys(sorted(keys), in_tree_order=True, page=page)

    pages = list(all_pages(origin, KeyQuery("", delimiter, "", limit)))

    shown = [line for one in pages for line in lines(one)]
    assert len(shown) == len(set(shown))
    assert set(shown) == expected(sorted(keys), KeyQuery("", delimiter))


def test_the_example_keys_are_sorted() -> None:
    assert all(first < second for first, second in pairwise(KEYS))

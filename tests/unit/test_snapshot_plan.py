"""Which files a snapshot has, what they are called, and what is refused by name."""

import random
import threading
from collections.abc import Iterator, Sequence

import pytest
from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]

from penstock.counters import Counters, Stats
from penstock.errors import InvalidRequest, ObjectNotFound
from penstock.object_info import ObjectInfo
from penstock.opens import Handle
from penstock.snapshots.bringing import Window, cut_windows
from penstock.snapshots.partial import Identity
from penstock.snapshots.patterns import Selection
from penstock.snapshots.plan import check_paths, make_plan

PATHS = ["config.json", "a/b.json", "a/b/c.bin", "weights.safetensors", "A/x.JSON", "a[1].txt"]


@pytest.mark.parametrize(
    ("allow", "ignore"),
    [
        (None, None),
        ("*.json", None),
        (["*.json", "a/"], None),
        (None, "a/"),
        (["*"], ["*.bin", "weights*"]),
        ([], None),
        ("a/b*", "*/c.bin"),
        ("a[[]1].txt", []),
        ("?onfig.json", None),
    ],
)
def test_patterns_select_what_the_hubs_own_library_selects(
    allow: str | list[str] | None, ignore: str | list[str] | None
) -> None:
    selection = Selection.of(allow, ignore)

    expected = list(filter_repo_objects(PATHS, allow_patterns=allow, ignore_patterns=ignore))
    assert [path for path in PATHS if path in selection] == expected


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "a/../x",
        "/etc/passwd",
        "a//b",
        "a/",
        "",
        ".",
        "a/./b",
        "a\0b",
        ".penstock/manifest",
        "x" * 256,
        "a/" + "ü" * 128,
        "\udcff",
    ],
)
def test_a_path_that_is_none_below_a_directory_is_refused_and_named(path: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_paths(["fine", path])

    assert repr(path) in str(refused.value)
    assert "fine" not in str(refused.value)


def test_odd_names_that_a_directory_can_have_are_taken() -> None:
    check_paths(["a b", "ü/ß", "..x", "a..b/c", "a/.penstock", "%2F", "a\\b", "x" * 255, "-r"])


def test_a_path_that_is_a_file_and_a_directory_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="'a/b': are objects and directories at once"):
        check_paths(["a/b", "a/b.txt", "a/b/c/d", "ab"])


def test_many_bad_paths_are_counted_and_some_named() -> None:
    with pytest.raises(InvalidRequest, match="and 7 more"):
        check_paths([f"../{n}" for n in range(10)])


class Listing:
    """A cache that lists and opens nothing but what it is told."""

    def __init__(self, *urls: str) -> None:
        self._urls = urls

    def list_pages(self, prefix: str) -> Iterator[Sequence[ObjectInfo]]:
        given = prefix.rstrip("/") + "/"
        found = [ObjectInfo(url, '"1"', 5, None) for url in self._urls if url.startswith(given)]
        yield from ([one] for one in found)

    def open(self, url: str, *, refresh: bool = False) -> Handle:
        raise ObjectNotFound(f"no {url}")

    def read(
        self, handle: Handle, target: memoryview, offset: int, *, stop: threading.Event
    ) -> None:
        raise AssertionError("a plan reads nothing")

    def host(self) -> None:
        return None

    def count(self, source: str, length: int) -> None:
        raise AssertionError("a plan reads nothing")

    def stats(self) -> Stats:
        return Counters().stats()


def test_a_tree_has_paths_below_its_prefix_and_marks_what_is_wanted() -> None:
    listing = Listing("penstock://v/m/a.json", "penstock://v/m/d/b.bin", "penstock://v/mm/c")

    plan = make_plan(
        listing,
        "penstock://v/m/",
        kind="auto",
        selection=Selection.of("*.json", None),
        name=None,
        refresh=False,
    )

    assert [(file.path, file.is_wanted) for file in plan.files] == [
        ("a.json", True),
        ("d/b.bin", False),
    ]
    assert plan.is_tree


def test_what_the_patterns_leave_out_may_have_any_name() -> None:
    listing = Listing("penstock://v/m/a.json", "penstock://v/m/../x")
    selection = Selection.of(None, "../*")

    plan = make_plan(
        listing, "penstock://v/m", kind="tree", selection=selection, name=None, refresh=False
    )

    assert [file.path for file in plan.wanted] == ["a.json"]


@pytest.mark.parametrize("seed", range(20))
def test_windows_are_all_pieces_once_each_whole_and_together(seed: int) -> None:
    rng = random.Random(seed)
    size = rng.randrange(1, 400)
    identity = Identity("u", "v", size, piece_bytes=7)
    pieces = sorted(rng.sample(range(identity.piece_count), rng.randint(0, identity.piece_count)))
    first = rng.randrange(len(pieces)) if pieces else 0
    turned = pieces[first:] + pieces[:first]

    windows = list(cut_windows(turned, identity, 4))

    assert [index for window in windows for index in window.pieces] == turned
    for window in windows:
        assert 0 < len(window.pieces) <= 4
        assert window.at == window.pieces[0] * 7
        assert window.length == sum(identity.span(index)[1] for index in window.pieces)


def test_windows_end_where_a_piece_is_there_already() -> None:
    identity = Identity("u", "v", 100, piece_bytes=10)

    assert list(cut_windows([0, 1, 3, 9], identity, 4)) == [
        Window(0, 20, range(2)),
        Window(30, 10, range(3, 4)),
        Window(90, 10, range(9, 10)),
    ]

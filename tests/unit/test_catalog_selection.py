"""Which files globs mean."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import InvalidRequest
from penstock_node.catalog.selection import GLOB_CHARACTERS_MAX, GLOBS_MAX, Selection


@pytest.mark.parametrize(
    ("glob", "meant", "others"),
    [
        ("*.json", ["a.json", "d/e/a.json", ".json"], ["a.json/b", "a.jsonl"]),
        ("/*.json", ["a.json"], ["d/a.json"]),
        ("d/*", ["d/a", "d/.a"], ["d/e/a", "d", "e/d/a"]),
        ("/d/*", ["d/a"], ["e/d/a"]),
        ("d/**", ["d/a", "d/e/f/a"], ["d", "dd/a", "e/d/a"]),
        ("**/d/*", ["d/a", "x/y/d/a"], ["xd/a", "d/e/a"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["ab", "a/xb", "a/b/c"]),
        ("**", ["a", "a/b"], []),
        ("**.bin", ["a.bin", "a/b.bin"], ["a.bin/c"]),
        ("a**b", ["ab", "a/x/b"], ["a/x/bc"]),
        ("?", ["a", "d/ü", "😀"], ["ab", ""]),
        ("a?b/c", ["axb/c"], ["a/b/c"]),
        ("[a-c]x", ["ax", "d/cx"], ["dx", "x"]),
        ("[!a-c]x", ["dx", "!x"], ["ax", "a/bx"]),
        ("[]]x", ["]x"], ["x"]),
        ("[^a]/b", ["c/b"], ["a/b", "//b"]),
        ("[[]a]", ["[a]"], ["a"]),
        ("[a--z]", ["a", "."], ["!"]),
        ("a.b", ["a.b"], ["axb"]),
        ("(a|b)+", ["(a|b)+"], ["a", "b"]),
        ("a\nb", ["a\nb"], ["ab"]),
    ],
)
def test_a_glob_means(glob: str, meant: list[str], others: list[str]) -> None:
    selection = Selection(include=[glob])

    assert [path for path in [*meant, *others] if selection.covers(path)] == meant


def test_no_globs_mean_everything() -> None:
    assert Selection().covers("a/b")


def test_what_is_excluded_is_not_meant_whatever_includes_it() -> None:
    selection = Selection(include=["*.bin", "*.json"], exclude=["d/**", "x.bin"])

    paths = ["a.bin", "a.json", "e/x.bin", "d/a.bin", "a.txt"]
    assert [path for path in paths if selection.covers(path)] == ["a.bin", "a.json"]
    assert Selection(exclude=["*.bin"]).covers("a.txt")


@pytest.mark.parametrize(
    ("globs", "told"),
    [
        ([""], "1 to 1024 characters"),
        (["a" * (GLOB_CHARACTERS_MAX + 1)], "1 to 1024 characters"),
        (["a"] * (GLOBS_MAX + 1), "want 64 at most"),
        (["a[b"], "not closed"),
        (["a[]b"], "names no character"),
        (["[z-a]"], "the lesser first"),
        (["d/"], r"write 'd/\*\*'"),
    ],
)
def test_what_is_no_glob_is_refused(globs: list[str], told: str) -> None:
    for refused in ({"include": globs}, {"exclude": globs}):
        with pytest.raises(InvalidRequest, match=told):
            Selection(**refused)


def means(glob: str, path: str) -> bool:
    """As slow as it is plain."""
    if not glob:
        return not path
    if glob.startswith("**/"):
        tails = [path[at + 1 :] for at, letter in enumerate(path) if letter == "/"]
        return any(means(glob[3:], tail) for tail in [path, *tails])
    if glob.startswith("**"):
        return any(means(glob[2:], path[at:]) for at in range(len(path) + 1))
    if glob.startswith("*"):
        heads = len(path.partition("/")[0])
        return any(means(glob[1:], path[at:]) for at in range(heads + 1))
    matches = path[:1] == glob[0] or (glob[0] == "?" and path[:1] not in ("", "/"))
    return matches and means(glob[1:], path[1:])


@given(
    st.lists(st.sampled_from(["a", "b", "*", "**/", "/", "?", "*/"]), min_size=1, max_size=9),
    st.lists(st.sampled_from(["a", "b", "/"]), max_size=10),
)
def test_globs_mean_what_a_plain_matcher_says(tokens: list[str], letters: list[str]) -> None:
    # At the beginning so that a name's glob means that name alone, and "**/" a whole segment.
    glob, path = "/" + "".join(tokens), "".join(letters)
    glob = glob.replace("***", "**").replace("a**/", "a/**/").replace("b**/", "b/**/")
    glob = glob.replace("?**/", "?/**/").rstrip("/") or "/a"
    if path.startswith("/") or glob.startswith("//") or "***" in glob:
        return

    assert Selection(include=[glob]).covers(path) == means(glob[1:], path)


def test_many_stars_do_not_take_for_ever() -> None:
    selection = Selection(include=["*a" * 200 + "b", "**a" * 100 + "b", "*a/" * 100 + "b"])
    begins = time.thread_time()

    assert not selection.covers("a" * 1_000 + "/" + "a/" * 10 + "c")

    assert time.thread_time() - begins < 5

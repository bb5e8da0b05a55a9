"""What has been listed between two paths, in either order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_node.catalog.key_order import BYTES, TREE, Order, behind, disputed

_NAMES = st.text("a!-.0b", min_size=1, max_size=3)
_PATHS = st.lists(_NAMES, min_size=1, max_size=3).map("/".join)
_BOUNDS = st.none() | _PATHS | _PATHS.map(behind)


@given(st.sampled_from([BYTES, TREE]), _BOUNDS, _BOUNDS, st.lists(_PATHS, max_size=20))
def test_spans_hold_what_lies_between_and_each_path_once(
    order: Order, after: str | None, last: str | None, paths: list[str]
) -> None:
    spans = order.spans(after, last)

    for path in paths:
        count = sum(span.holds(path) for span in spans)
        assert count == order.holds(path, after, last), path


def test_a_directory_lies_where_the_order_has_it() -> None:
    paths = ["a-b", "a.b/c", "a/x", "a0"]

    assert BYTES.is_kept(paths, None, None)
    assert not TREE.is_kept(paths, None, None)
    assert TREE.is_kept(["a/x", "a-b", "a.b/c", "a0"], None, "b")
    assert not TREE.is_kept(["a/x", "a-b"], "a/x", "b")
    assert not TREE.is_kept(["a/x", "a-b"], None, "a-a")


@given(_PATHS, _PATHS)
def test_the_orders_disagree_about_a_directory_and_longer_names(one: str, other: str) -> None:
    agree = (BYTES.key(one) < BYTES.key(other)) == (TREE.key(one) < TREE.key(other))

    assert agree or disputed(one, other) == disputed(other, one) != ""


@pytest.mark.parametrize(
    ("one", "other", "directory"),
    [("a/x", "a-b", "a"), ("d/a-b/x", "d/a/y", "d/a"), ("a/x", "a0", ""), ("a/x", "a/x/y", "")],
)
def test_the_disputed_directory_is(one: str, other: str, directory: str) -> None:
    assert disputed(one, other) == directory

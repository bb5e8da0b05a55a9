"""What has to be written so that what is known becomes what there is."""

import sys

from hypothesis import given
from hypothesis import strategies as st

from penstock.catalog_file import CatalogFile
from penstock_node.catalog.records import Known, difference, end_of

_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)


def file(path: str, version: str = "1", size: int = 1) -> CatalogFile:
    return CatalogFile(path, version, size, 0, f"s3://bucket/{path}", version)


def known(*files: CatalogFile) -> dict[str, Known]:
    return {
        each.path: Known(seq, each.version, each.size, each.source_url)
        for seq, each in enumerate(files)
    }


def test_what_is_as_it_was_is_no_difference() -> None:
    found = difference(known(file("a"), file("b")), [file("b"), file("a")], prunes=True)

    assert not found
    assert found.unchanged == 2


def test_new_changed_and_removed_files_are_told_apart() -> None:
    before = known(file("a"), file("b"), file("c"), file("d"))

    found = difference(
        before, [file("a"), file("b", "2"), file("c", size=2), file("e")], prunes=True
    )

    assert found.new == [file("e")]
    assert found.changed == [(1, file("b", "2")), (2, file("c", size=2))]
    assert found.removed == [(3, "d")]
    assert found.unchanged == 1


def test_a_file_that_has_moved_to_another_origin_has_changed() -> None:
    moved = file("a")._replace(source_url="s3://other/a")

    assert difference(known(file("a")), [moved], prunes=False).changed == [(0, moved)]


def test_nothing_is_removed_unless_that_is_asked_for() -> None:
    assert not difference(known(file("a")), [], prunes=False)


@given(_TEXTS, _TEXTS)
def test_the_end_of_a_prefix_divides_what_has_it_from_what_lies_behind(
    prefix: str, other: str
) -> None:
    end = end_of(prefix)
    begins, text = prefix.encode(), other.encode()

    if end is None:
        assert set(prefix) <= {chr(sys.maxunicode)}
    elif text >= begins:
        assert (text < end.encode()) == text.startswith(begins)
    assert end is None or (prefix + other).encode() < end.encode()

"""Samples out of tar files, beside the `webdataset` package on the same files."""

import io
import random
import tarfile
from pathlib import Path
from typing import Any

import pytest
from webdataset.tariterators import group_by_keys, tar_file_iterator

from penstock.data.sources import LocalSource
from penstock.data.tar import WINDOW_BYTES, TarShard, split_name
from penstock.errors import InvalidRequest
from penstock_node.testbed.shards import write_tar

Members = list[tuple[str, bytes]]


def opened(path: Path, fields: tuple[str, ...] | None = None) -> TarShard:
    return TarShard(LocalSource().open(str(path)), fields)


def samples(path: Path, fields: tuple[str, ...] | None = None) -> list[dict[str, Any]]:
    return [each.sample for each in opened(path, fields).stream(0)]


def by_webdataset(path: Path) -> list[dict[str, Any]]:
    members = tar_file_iterator(io.BytesIO(path.read_bytes()))
    return list(group_by_keys({**each, "__url__": str(path)} for each in members))


ODD: Members = [
    ("a.jpg", b"1"),
    ("a.seg.PNG", b"2"),
    ("folder/a.jpg", b"3"),
    ("folder.v1/a.jpg", b"4"),
    ("folder.v1/readme", b"of no sample"),
    ("folder.v1/a.txt", b"5"),
    (".hidden", b"of no sample"),
    ("__meta__/about.json", b"of no sample"),
    ("__info__", b"of no sample"),
    ("b.", b"6"),
    ("a.jpg", b"the key again, later: another sample"),
]


def test_members_are_grouped_as_webdataset_groups_them(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "odd.tar", ODD)

    found = samples(path)

    assert [each["__key__"] for each in found] == ["a", "folder/a", "folder.v1/a", "b", "a"]
    assert found == by_webdataset(path)


@pytest.mark.parametrize("sizes", [(0, 700), (100_000, 300_000), (1 << 20, 3 * WINDOW_BYTES)])
def test_bytes_are_right_wherever_the_window_ends(tmp_path: Path, sizes: tuple[int, int]) -> None:
    rng = random.Random(7)
    members = [(f"{at}.{at % 3}", rng.randbytes(rng.randint(*sizes))) for at in range(12)]
    path = write_tar(tmp_path / "sizes.tar", members, tar_format=tarfile.PAX_FORMAT)

    found = samples(path)

    assert [each[f"{at % 3}"] for at, each in enumerate(found)] == [
        content for _, content in members
    ]


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    rng = random.Random(7)
    sizes = [rng.choice((10, 5_000, 90_000, 700_000)) for _ in range(60)]
    members: Members = []
    for at, size in enumerate(sizes):
        members += [(f"{at:03}.jpg", rng.randbytes(size)), (f"{at:03}.cls", b"%d" % at)]
    return write_tar(tmp_path / "shard.tar", members)


def test_a_stream_can_begin_at_any_place(shard: Path) -> None:
    everything = list(opened(shard).stream(0))

    for at in (0, 1, 17, 59):
        assert list(opened(shard).stream(everything[at].place)) == everything[at:]
    assert list(opened(shard).stream(everything[-1].following)) == []


def test_an_index_has_the_places_of_the_stream(shard: Path) -> None:
    everything = list(opened(shard).stream(0))

    places = opened(shard).places()

    assert list(places) == [each.place for each in everything] + [everything[-1].following]


def test_samples_are_taken_in_the_order_of_the_question(shard: Path) -> None:
    everything = list(opened(shard).stream(0))
    wanted = [everything[at] for at in (17, 3, 59, 0, 4, 17)]

    assert opened(shard).take([(each.place, each.following) for each in wanted]) == wanted


def test_sizes_are_those_of_the_contents(shard: Path) -> None:
    for found in opened(shard).stream(0):
        assert found.size_bytes == len(found.sample["jpg"]) + len(found.sample["cls"])


class CountingSource(LocalSource):
    """Tells how many bytes were read."""

    read_bytes = 0

    def open(self, url: str, *, refresh: bool = False) -> Any:
        file = super().open(url)
        read_at = file.read_at

        def counted(memory: memoryview, offset: int) -> None:
            self.read_bytes += len(memory)
            read_at(memory, offset)

        file.read_at = counted  # type: ignore[method-assign]
        return file


def test_an_index_costs_little_more_than_the_headers_of_large_members(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "large.tar", [(f"{at}.bin", bytes(4 << 20)) for at in range(8)])
    source = CountingSource()

    places = TarShard(source.open(str(path)), None).places()

    assert len(places) == 9
    assert source.read_bytes < 3 << 19, "a window, and some blocks for each"


def test_a_sample_far_from_others_is_read_by_itself(tmp_path: Path) -> None:
    members = [(f"{at}.bin", bytes(100_000)) for at in range(60)]
    path = write_tar(tmp_path / "many.tar", members)
    places = opened(path).places()
    source = CountingSource()

    TarShard(source.open(str(path)), None).take([(int(places[30]), int(places[31]))])

    assert source.read_bytes <= 100_000 + 3 * 65_536


def test_what_is_not_wanted_is_left_out(shard: Path) -> None:
    found = samples(shard, ("cls",))

    assert [each["cls"] for each in found] == [b"%d" % at for at in range(60)]
    assert not any("jpg" in each for each in found)


@pytest.mark.parametrize("second", ["a.jpg", "a.JPG"])
def test_two_members_of_one_name_in_a_sample_are_refused(tmp_path: Path, second: str) -> None:
    path = write_tar(tmp_path / "twice.tar", [("a.jpg", b"1"), ("a.txt", b"2"), (second, b"3")])

    with pytest.raises(InvalidRequest, match=rf"{path} has two members '{second}'"):
        samples(path)


WHOLE_BYTES = 82_944
"""Of a tar file of two members, of 80,000 bytes and of 5, and two empty blocks."""


@pytest.mark.parametrize("left", [100, 612, 70_000, WHOLE_BYTES - 1_100, WHOLE_BYTES - 1_024])
def test_one_that_is_cut_short_is_refused_before_bytes_that_are_not_there(
    tmp_path: Path, left: int
) -> None:
    path = write_tar(tmp_path / "cut.tar", [("a.jpg", bytes(80_000)), ("b.jpg", bytes(5))])
    path.write_bytes(path.read_bytes()[:left])

    with pytest.raises(InvalidRequest, match=f"shard {path} is a tar file that is cut short"):
        samples(path)
    with pytest.raises(InvalidRequest, match="cut short"):
        opened(path).places()


def test_an_empty_tar_file_has_no_samples(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "empty.tar", [])

    assert samples(path) == []
    assert list(opened(path).places()) == [0]


@pytest.mark.parametrize(
    ("name", "key", "field"),
    [
        ("a.jpg", "a", "jpg"),
        ("a/b.c/d.e.JPG", "a/b.c/d", "e.jpg"),
        ("./a.jpg", "./a", "jpg"),
        ("a", None, ""),
        ("a.b/c", None, ""),
        ("a/.jpg", None, ""),
        ("__a__/b.jpg", None, ""),
        ("__a/b.jpg", "__a/b", "jpg"),
        ("", None, ""),
    ],
)
def test_names_are_cut_at_the_first_dot_of_the_base_name(
    name: str, key: str | None, field: str
) -> None:
    assert split_name(name) == (key, field)

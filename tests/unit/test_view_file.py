"""`view.json`, on a real disk."""

import asyncio
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import InvalidConfiguration
from penstock.membership.coordinator import Entry, Listing
from penstock_node.coordination import view_file
from penstock_node.coordination.state import ClusterState
from penstock_node.coordination.view_file import UnreadableView, ViewWriter


def state(revision: int = 7, **volumes: bytes) -> ClusterState:
    entries = {f"volumes/{name}": Entry(value, revision) for name, value in volumes.items()}
    return ClusterState.from_listing(Listing(entries, revision, store_id=3))


async def written(path: Path, *states: ClusterState) -> None:
    """Give states to a writer and let it finish."""
    writer = ViewWriter(path, cluster="prod")
    for each in states:
        writer.give(each)
    writer.stop()
    await writer.run()


async def test_what_was_written_last_is_read_back(tmp_path: Path) -> None:
    path, last = tmp_path / "view.json", state(b=b'{"url": "s3://b/"}')

    await written(path, state(a=b"{}"), last)

    assert view_file.load(path, cluster="prod") == last


async def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "view.json"

    await written(path, state())

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nothing_but_the_file_is_left(tmp_path: Path) -> None:
    asyncio.run(written(tmp_path / "view.json", state()))

    assert [path.name for path in tmp_path.iterdir()] == ["view.json"]


async def test_a_disk_that_takes_nothing_does_not_stop_the_node(tmp_path: Path) -> None:
    await written(tmp_path / "absent" / "view.json", state())

    assert not (tmp_path / "absent").exists()


def test_there_may_be_none(tmp_path: Path) -> None:
    assert view_file.load(tmp_path / "view.json", cluster="prod") is None


async def test_another_clusters_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "view.json"
    await written(path, state())

    with pytest.raises(InvalidConfiguration, match=r"cluster 'prod'.*'test'.*state_dir"):
        view_file.load(path, cluster="test")


def test_a_value_that_is_no_text_is_left_out() -> None:
    data = view_file.encode(state(a=b"\xff", b=b"{}"), cluster="prod")

    assert view_file.decode(data)[1].entries.keys() == {"volumes/b"}


@given(st.binary(max_size=100) | st.integers(0, 150))
def test_a_damaged_file_is_an_error_that_load_ignores(damage: bytes | int) -> None:
    whole = view_file.encode(state(a=b"{}"), cluster="prod")
    data = damage if isinstance(damage, bytes) else whole[: min(damage, len(whole) - 1)]

    with pytest.raises(UnreadableView):
        view_file.decode(data)


@pytest.mark.parametrize(
    "data",
    [b"[]", b"{}", b'{"format": 2}', b'{"format": 1, "revision": 1, "store_id": 1, "entries": []}'],
)
def test_a_file_of_another_form_is_ignored(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "view.json"
    path.write_bytes(data)

    assert view_file.load(path, cluster="prod") is None

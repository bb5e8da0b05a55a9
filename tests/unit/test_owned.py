"""Owned tiers as hand-over sees them: what goes first, and what is worth its room."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from penstock.checksums import BLOCK_BYTES
from penstock.objects import ObjectId
from penstock_node.store import Described, Store, Tier
from penstock_node.store.chunk_file import ChunkFile
from penstock_node.store.listed import split_ids

CHUNKS = 40
TAKES_BYTES = 17 * 4096
ROOM_BYTES = 2 * CHUNKS * TAKES_BYTES

Opener = Callable[..., Store]


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Opener]:
    with ExitStack() as stack:

        def open_one(*capacities: int) -> Store:
            store = Store(
                [
                    Tier(tmp_path / str(at), capacity, "owned")
                    for at, capacity in enumerate(capacities)
                ]
            )
            stack.callback(store.close)
            return store

        yield open_one


def model(name: str) -> ObjectId:
    return ObjectId(f"s3://b/{name}", "v1", CHUNKS * BLOCK_BYTES, BLOCK_BYTES)


def payload_of(subject: ObjectId, index: int) -> bytes:
    return subject.chunk_id(index) * (BLOCK_BYTES // 16)


def fill(store: Store, subject: ObjectId) -> None:
    for index in range(CHUNKS):
        assert store.put(subject, index, payload_of(subject, index), owned=True, reason="read")


def read(store: Store, subject: ObjectId, *, times: int) -> None:
    for index in range(CHUNKS):
        for _ in range(times):
            stored = store.get(subject, index)
            assert stored is not None
            stored.close()


def ids(subject: ObjectId) -> set[bytes]:
    return {subject.chunk_id(index) for index in range(CHUNKS)}


def test_what_is_read_most_goes_first(open_store: Opener) -> None:
    store = open_store(ROOM_BYTES, ROOM_BYTES)
    seldom, often = model("seldom"), model("often")
    for subject in (seldom, often):
        fill(store, subject)
    read(store, seldom, times=1)
    read(store, often, times=4)

    order = split_ids(store.owned.best_first().ids)

    assert len(order) == 2 * CHUNKS
    assert set(order) == ids(seldom) | ids(often)
    # Of two disks, whose objects are the same: the better half is nearly all of one object.
    assert len(set(order[:CHUNKS]) & ids(often)) > 0.8 * CHUNKS


def test_of_a_disk_that_is_new_and_half_empty_the_best_goes_as_early(open_store: Opener) -> None:
    store = open_store(ROOM_BYTES, ROOM_BYTES)
    seldom, often = model("seldom"), model("often")
    for subject in (seldom, often):
        fill(store, subject)
    read(store, seldom, times=1)
    read(store, often, times=4)
    # Of what is read seldom nothing has come to the second disk since it was replaced.
    second = store.owned._tiers[1]
    for index in range(CHUNKS):
        second.drop(ChunkFile(seldom, index))

    order = split_ids(store.owned.best_first().ids)

    assert len(set(order[:CHUNKS]) & ids(often)) > 0.9 * CHUNKS


def test_it_tells_what_it_holds_and_what_that_is_worth(open_store: Opener) -> None:
    store = open_store(ROOM_BYTES)
    subject = model("model")
    fill(store, subject)

    described = store.owned.describe(subject.chunk_id(5))

    assert described is not None
    assert (described.object, described.index) == (subject, 5)
    assert subject.chunk_id(5) in store.owned
    assert bytes(16) not in store.owned
    assert store.owned.describe(bytes(16)) is None


def test_a_damaged_chunk_is_not_described(open_store: Opener, tmp_path: Path) -> None:
    store = open_store(ROOM_BYTES)
    subject = model("model")
    fill(store, subject)
    (path,) = tmp_path.glob(f"0/chunks/*/{subject.chunk_id(5).hex()}.*")
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.truncate(100)

    assert store.owned.describe(subject.chunk_id(5)) is None


def test_what_was_owned_elsewhere_is_kept_with_what_it_was_worth(open_store: Opener) -> None:
    store = open_store(ROOM_BYTES)
    subject = model("model")
    wanted = Described(subject, 3, readings=7.0)

    assert store.owned.has_room_for(wanted)
    assert store.owned.take(wanted, payload_of(subject, 3))

    described = store.owned.describe(subject.chunk_id(3))
    assert described is not None
    assert described.readings == pytest.approx(7.0)
    with store.get(subject, 3) as stored:  # type: ignore[union-attr]  # it is there
        assert stored.read(0, stored.length) == payload_of(subject, 3)


def test_it_takes_no_chunk_for_one_that_is_read_more(open_store: Opener) -> None:
    store = open_store(CHUNKS * TAKES_BYTES)
    fill(store, model("here"))
    here = store.owned.describe(model("here").chunk_id(0))
    assert here is not None
    colder = Described(model("there"), 0, readings=here.readings / 2)
    hotter = Described(model("there"), 1, readings=here.readings * 2)

    assert not store.owned.has_room_for(colder)
    assert store.owned.has_room_for(hotter)


def test_an_object_that_comes_chunk_by_chunk_does_not_drive_itself_out(open_store: Opener) -> None:
    store = open_store(CHUNKS * TAKES_BYTES)
    fill(store, model("here"))
    here = store.owned.describe(model("here").chunk_id(0))
    assert here is not None
    subject = model("there")

    for index in range(CHUNKS // 2):
        wanted = Described(subject, index, readings=here.readings * 2)
        assert store.owned.has_room_for(wanted)
        assert store.owned.take(wanted, payload_of(subject, index))

    assert all(subject.chunk_id(index) in store.owned for index in range(CHUNKS // 2))


def test_no_disk_takes_nothing(open_store: Opener) -> None:
    store = open_store()
    wanted = Described(model("model"), 0, readings=7.0)

    assert not store.owned.has_room_for(wanted)
    assert not store.owned.take(wanted, payload_of(model("model"), 0))
    assert len(store.owned.best_first()) == 0

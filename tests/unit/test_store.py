"""The store's tiers together: where chunks go, what is served, and what is never served."""

import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.checksums import BLOCK_BYTES
from penstock.errors import InvalidRequest
from penstock.objects import ObjectId
from penstock_node.store import Reason, Role, Store, StoredChunk, Tier
from penstock_node.store.choice import choose_tier
from penstock_node.store.chunk_file import ChunkFile

CHUNK_BYTES = BLOCK_BYTES
TAKES_BYTES = 17 * 4096
"""A whole chunk with its footer, in pages."""
DEADLINE_S = 30

Opener = Callable[..., Store]


def model(number: int, *, chunks: int = 4) -> ObjectId:
    return ObjectId(f"s3://b/{number}", "v1", (chunks - 1) * CHUNK_BYTES + 5000, CHUNK_BYTES)


def payload_of(obj: ObjectId, index: int) -> bytes:
    return random.Random(f"{obj.key} {index}").randbytes(obj.chunk_length(index))


def put(
    store: Store, obj: ObjectId, index: int, *, owned: bool = True, reason: Reason = "read"
) -> bool:
    payload = payload_of(obj, index)
    return store.put(obj, index, payload, owned=owned, reason=reason)


def read(store: Store, obj: ObjectId, index: int) -> bytes | None:
    stored = store.get(obj, index)
    return None if stored is None else read_and_close(stored)


def read_and_close(stored: StoredChunk) -> bytes:
    with stored:
        return stored.read(0, stored.length)


def source_of(store: Store, obj: ObjectId, index: int) -> str | None:
    stored = store.get(obj, index)
    if stored is None:
        return None
    with stored:
        return stored.source


def disk_bytes(path: Path) -> int:
    return sum(file.stat().st_blocks * 512 for file in path.rglob("[!.]*") if file.is_file())


def copies(root: Path, obj: ObjectId, index: int) -> list[Path]:
    name = ChunkFile(obj, index).relative_path.name
    return sorted(path for path in root.glob(f"*/chunks/*/{name}"))


def flip_byte(path: Path, *, at: int) -> None:
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 0x80]))


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Opener]:
    """Open stores below one directory: ``open_store(memory=4, owned=8)`` in chunks a tier."""
    opened: list[Store] = []

    def open_one(**chunks: int) -> Store:
        while opened:
            opened.pop().close()
        roles: dict[str, Role] = {"memory": "memory", "local": "local", "owned": "owned"}
        tiers = [
            Tier(tmp_path / name, count * TAKES_BYTES, roles[name.rstrip("0123456789")])
            for name, count in chunks.items()
        ]
        opened.append(Store(tiers))
        return opened[-1]

    yield open_one
    while opened:
        opened.pop().close()


def scan(store: Store) -> None:
    store.start_scan()
    assert store.wait_scanned(DEADLINE_S)
    assert store.is_scanned


def test_an_owned_chunk_goes_to_memory_and_to_the_owned_tier(
    open_store: Opener, tmp_path: Path
) -> None:
    store = open_store(memory=4, local=4, owned=4)

    assert put(store, model(1), 0, owned=True)

    assert [path.parts[-4] for path in copies(tmp_path, model(1), 0)] == ["memory", "owned"]
    assert read(store, model(1), 0) == payload_of(model(1), 0)
    assert source_of(store, model(1), 0) == "memory"


def test_a_chunk_of_another_node_goes_to_memory_and_to_the_local_tier(
    open_store: Opener, tmp_path: Path
) -> None:
    store = open_store(memory=4, local=4, owned=4)

    assert put(store, model(1), 0, owned=False)

    assert [path.parts[-4] for path in copies(tmp_path, model(1), 0)] == ["local", "memory"]
    assert list(store.owned_chunks()) == []


def test_without_a_tier_for_it_a_chunk_is_kept_in_memory_or_not_at_all(open_store: Opener) -> None:
    assert put(open_store(memory=4, owned=4), model(1), 0, owned=False)
    assert not put(open_store(owned=4), model(1), 1, owned=False)


def test_a_chunk_that_memory_lost_is_served_from_disk_and_promoted(open_store: Opener) -> None:
    store = open_store(memory=2, owned=8)
    for index in range(4):
        put(store, model(1), index)
    lost = next(index for index in range(4) if source_of(store, model(1), index) == "disk")

    store.promote(model(1), lost)

    assert source_of(store, model(1), lost) == "memory"
    assert read(store, model(1), lost) == payload_of(model(1), lost)


def test_promoting_is_nothing_without_memory_or_without_the_chunk(open_store: Opener) -> None:
    store = open_store(owned=4)
    put(store, model(1), 0)
    store.promote(model(1), 0)
    assert source_of(store, model(1), 0) == "disk"

    store = open_store(memory=4, owned=4)
    store.promote(model(1), 1)
    assert not store.holds(model(1), 1)


def test_a_bad_copy_is_not_promoted(open_store: Opener, tmp_path: Path) -> None:
    store = open_store(memory=4, owned=4)
    put(store, model(1), 0)
    in_memory, on_disk = copies(tmp_path, model(1), 0)
    flip_byte(in_memory, at=0)
    assert store.recheck(model(1), 0)
    flip_byte(on_disk, at=0)

    store.promote(model(1), 0)

    assert not store.holds(model(1), 0)
    assert store.statistics.corrupt_chunks == 2


def test_a_chunk_beyond_the_object_is_refused(open_store: Opener) -> None:
    store = open_store(owned=4)

    with pytest.raises(InvalidRequest):
        store.get(model(1), 4)


def test_a_full_store_reports_not_kept(open_store: Opener, tmp_path: Path) -> None:
    store = open_store(owned=1)
    put(store, model(1), 0)
    held = store.get(model(1), 0)
    assert held is not None

    with held:
        assert not put(store, model(1), 1)

    assert store.statistics.not_kept == 1
    assert put(store, model(1), 1)


def test_all_copies_are_rechecked_and_a_good_one_goes_on_serving(
    open_store: Opener, tmp_path: Path
) -> None:
    store = open_store(memory=4, owned=4)
    put(store, model(1), 0)
    flip_byte(copies(tmp_path, model(1), 0)[0], at=7)

    assert store.recheck(model(1), 0)

    assert source_of(store, model(1), 0) == "disk"
    assert read(store, model(1), 0) == payload_of(model(1), 0)
    flip_byte(copies(tmp_path, model(1), 0)[0], at=7)
    assert not store.recheck(model(1), 0)
    assert not store.holds(model(1), 0)
    assert store.statistics.corrupt_chunks == 2


def test_after_a_restart_a_bad_copy_in_memory_gives_way_to_the_good_one_on_disk(
    open_store: Opener, tmp_path: Path
) -> None:
    put(open_store(memory=4, owned=4), model(1), 0)
    flip_byte(copies(tmp_path, model(1), 0)[0], at=CHUNK_BYTES - 1)

    store = open_store(memory=4, owned=4)

    stored = store.get(model(1), 0)
    assert stored is not None
    assert stored.source == "disk"
    assert read_and_close(stored) == payload_of(model(1), 0)
    assert store.statistics.corrupt_chunks == 1


def test_a_restarted_store_serves_before_its_scan_and_knows_all_after_it(
    open_store: Opener, tmp_path: Path
) -> None:
    store = open_store(memory=8, local=8, owned=8)
    for index in range(4):
        put(store, model(1), index, owned=True)
        put(store, model(2), index, owned=False)

    store = open_store(memory=8, local=8, owned=8)

    assert read(store, model(1), 3) == payload_of(model(1), 3)
    assert store.holds(model(2), 0)
    assert not store.holds(model(3), 0)
    assert not store.is_scanned
    scan(store)
    assert store.cached_chunks == 8
    assert sum(usage.used_bytes for usage in store.tier_usage()) == disk_bytes(tmp_path)


def test_a_chunk_in_memory_and_on_disk_is_counted_once(open_store: Opener) -> None:
    store = open_store(memory=8, owned=2)
    sizes = [ChunkFile(model(1), index).allocated_bytes for index in range(4)]
    for index in range(4):
        put(store, model(1), index)

    assert store.cached_chunks == 4
    assert store.cached_bytes == sum(sizes)
    assert store.owned_capacity_bytes == 2 * TAKES_BYTES
    assert sum(size for _, size in store.owned_chunks()) <= 2 * TAKES_BYTES
    assert [usage.role for usage in store.tier_usage()] == ["memory", "owned"]


def test_evicting_an_object_takes_all_its_chunks_and_no_others(open_store: Opener) -> None:
    store = open_store(memory=20, local=20, owned=20)
    for index in range(3):
        put(store, model(1), index)
        put(store, model(2), index, owned=False)
    takes = 2 * sum(ChunkFile(model(1), index).allocated_bytes for index in range(3))

    assert store.evict(model(1)) == (3, takes)

    assert not any(store.holds(model(1), index) for index in range(4))
    assert all(read(store, model(2), index) == payload_of(model(2), index) for index in range(3))
    assert store.evict(model(1)) == (0, 0)
    assert store.statistics.evicted_bytes == takes


def test_evicting_reaches_chunks_that_the_scan_has_not(open_store: Opener) -> None:
    put(open_store(owned=8), model(1), 0)
    store = open_store(owned=8)

    assert store.evict(model(1)) == (1, ChunkFile(model(1), 0).allocated_bytes)

    scan(store)
    assert store.cached_chunks == 0


def test_an_evicted_chunk_stays_readable_for_whoever_holds_it(open_store: Opener) -> None:
    store = open_store(owned=8)
    put(store, model(1), 0)
    stored = store.get(model(1), 0)
    assert stored is not None

    store.evict(model(1))

    assert read_and_close(stored) == payload_of(model(1), 0)


def test_owned_chunks_may_be_listed_while_they_change(open_store: Opener) -> None:
    store = open_store(owned=8)
    for index in range(4):
        put(store, model(1), index)

    listed = []
    for chunk_id, size_bytes in store.owned_chunks():
        listed.append((chunk_id, size_bytes))
        store.evict(model(1))

    chunks = [ChunkFile(model(1), index) for index in range(4)]
    assert sorted(listed) == sorted((chunk.chunk_id, chunk.allocated_bytes) for chunk in chunks)


def test_disks_share_chunks_by_capacity_and_a_new_disk_moves_none_between_others(
    tmp_path: Path,
) -> None:
    tiers = [Tier(tmp_path / name, size, "owned") for name, size in (("a", 100), ("b", 300))]
    third = Tier(tmp_path / "c", 400, "owned")
    chunk_ids = [random.Random(number).randbytes(16) for number in range(4000)]

    before = [choose_tier(tiers, chunk_id) for chunk_id in chunk_ids]
    after = [choose_tier([third, *tiers], chunk_id) for chunk_id in chunk_ids]

    assert before.count(tiers[0]) == pytest.approx(1000, rel=0.1)
    assert after.count(third) == pytest.approx(2000, rel=0.1)
    moved = [new for old, new in zip(before, after, strict=True) if new is not old]
    assert set(moved) == {third}
    assert choose_tier([], chunk_ids[0]) is None
    for tier in (*tiers, third):
        tier.close()


def test_chunks_kept_before_a_disk_was_added_are_served_and_not_doubled(
    open_store: Opener, tmp_path: Path
) -> None:
    store = open_store(owned1=40)
    for index in range(20):
        put(store, model(1, chunks=20), index)

    store = open_store(owned1=40, owned2=40)
    scan(store)
    for index in range(20):
        assert put(store, model(1, chunks=20), index)
        assert len(copies(tmp_path, model(1, chunks=20), index)) == 1

    fresh = model(2, chunks=20)
    assert all(put(store, fresh, index) for index in range(20))
    homes = {copies(tmp_path, fresh, index)[0].parts[-4] for index in range(20)}
    assert homes == {"owned1", "owned2"}


def test_closing_stops_a_scan_that_runs(open_store: Opener) -> None:
    store = open_store(owned=100)
    for number in range(25):
        put(store, model(number), 0)
    store = open_store(owned=100)

    store.start_scan()
    store.close()

    assert store.wait_scanned(0)
    assert store.is_scanned


class Reader(threading.Thread):
    """Does anything with a store, in an order of its own; notes bytes that were wrong."""

    def __init__(self, store: Store, *, seed: int) -> None:
        super().__init__()
        self._store, self._rng = store, random.Random(seed)
        self._held: list[tuple[bytes, StoredChunk]] = []
        self.wrong = 0
        self.reads = 0

    def run(self) -> None:
        for _ in range(120):
            self._act(model(self._rng.randrange(8)), self._rng.randrange(4))
            self._release(keep=self._rng.randrange(4))
        self._release(keep=0)

    def _act(self, obj: ObjectId, index: int) -> None:
        match self._rng.choice(("put", "put", "hold", "hold", "promote", "evict", "recheck")):
            case "put":
                put(self._store, obj, index, owned=self._rng.random() < 0.5)
            case "hold" if (stored := self._store.get(obj, index)) is not None:
                self._held.append((payload_of(obj, index), stored))
            case "promote":
                self._store.promote(obj, index)
            case "evict" if self._rng.random() < 0.2:
                self._store.evict(obj)
            case "recheck":
                self._store.recheck(obj, index)

    def _release(self, *, keep: int) -> None:
        while len(self._held) > keep:
            payload, stored = self._held.pop(0)
            self.reads += 1
            self.wrong += read_and_close(stored) != payload


def over_budget(store: Store) -> list[str]:
    return [
        f"{usage.path}: {usage.used_bytes} of {usage.capacity_bytes}"
        for usage in store.tier_usage()
        if usage.used_bytes > usage.capacity_bytes
    ]


@pytest.mark.parametrize("seed", range(4))
def test_threads_never_read_wrong_bytes_nor_pass_the_budget(open_store: Opener, seed: int) -> None:
    store = open_store(memory=6, local=10, owned=12)
    readers = [Reader(store, seed=10 * seed + number) for number in range(4)]
    over: list[str] = []

    for reader in readers:
        reader.start()
    while any(reader.is_alive() for reader in readers):
        over += over_budget(store)

    assert over == []
    assert sum(reader.wrong for reader in readers) == 0
    assert sum(reader.reads for reader in readers) > 20
    assert store.statistics.corrupt_chunks == store.statistics.write_errors == 0
    for usage in store.tier_usage():
        assert usage.used_bytes == disk_bytes(usage.path) <= usage.capacity_bytes


ROOMY = {"memory": 200, "local": 200, "owned1": 200, "owned2": 200}
TIGHT = {"memory": 4, "local": 7, "owned1": 5, "owned2": 9}


class History:
    """A seeded history of one store beside a dict of what it was given."""

    def __init__(self, open_store: Opener, root: Path, tiers: dict[str, int], seed: int) -> None:
        self._open_store, self._root, self._tiers = open_store, root, tiers
        self._rng = random.Random(seed)
        self._is_roomy = tiers is ROOMY
        self.store = open_store(**tiers)
        self.model: dict[tuple[ObjectId, int], bytes] = {}
        self.held: list[tuple[bytes, StoredChunk]] = []

    def step(self) -> None:
        obj, index = model(self._rng.randrange(10)), self._rng.randrange(4)
        actions = (self._put, self._get, self._get, self._hold, self._release, self._promote)
        rare = (self._evict, self._recheck, self._damage, self._restart)
        self._rng.choice(rare if self._rng.random() < 0.2 else actions)(obj, index)
        self._check_budget()

    def finish(self) -> None:
        while self.held:
            self._release(model(0), 0)
        for obj, index in list(self.model):
            self._get(obj, index)

    def _put(self, obj: ObjectId, index: int) -> None:
        reasons: list[Reason] = ["read", "warmup", "handoff"]
        owned, reason = self._rng.random() < 0.5, self._rng.choice(reasons)
        assert put(self.store, obj, index, owned=owned, reason=reason) >= self._is_roomy
        self.model[obj, index] = payload_of(obj, index)

    def _get(self, obj: ObjectId, index: int) -> None:
        assert self.store.holds(obj, index) >= self._must_hold(obj, index)
        self._expect(obj, index, read(self.store, obj, index))

    def _hold(self, obj: ObjectId, index: int) -> None:
        stored = self.store.get(obj, index)
        if stored is not None and len(self.held) < 4:
            self.held.append((self.model[obj, index], stored))
        elif stored is not None:
            stored.close()

    def _release(self, obj: ObjectId, index: int) -> None:
        if self.held:
            payload, stored = self.held.pop(self._rng.randrange(len(self.held)))
            assert read_and_close(stored) == payload

    def _promote(self, obj: ObjectId, index: int) -> None:
        self.store.promote(obj, index)
        if self._must_hold(obj, index):
            assert source_of(self.store, obj, index) == "memory"

    def _evict(self, obj: ObjectId, index: int) -> None:
        self.store.evict(obj)
        for gone in range(obj.chunk_count):
            self.model.pop((obj, gone), None)
            assert not self.store.holds(obj, gone)

    def _recheck(self, obj: ObjectId, index: int) -> None:
        assert self.store.recheck(obj, index) == self.store.holds(obj, index)

    def _damage(self, obj: ObjectId, index: int) -> None:
        """A disk loses or flips bytes of every copy; it is found by a recheck or a restart."""
        if any(payload == self.model.get((obj, index)) for payload, _ in self.held):
            return  # Whoever holds the file verifies what is read, as planes do.
        for path in copies(self._root, obj, index):
            flip_byte(path, at=self._rng.randrange(path.stat().st_size))
            if self._rng.random() < 0.3:
                os.truncate(path, self._rng.randrange(path.stat().st_size))
        if self._rng.random() < 0.5:
            assert not self.store.recheck(obj, index)
        else:
            self._restart(obj, index)
        assert read(self.store, obj, index) is None
        self.model.pop((obj, index), None)

    def _restart(self, obj: ObjectId, index: int) -> None:
        while self.held:
            self._release(obj, index)
        self.store.close()
        self.store = self._open_store(**self._tiers)
        for _ in range(self._rng.randrange(4)):  # Some reads, and then the scan or none.
            self.store.get(model(self._rng.randrange(10)), 0)
        scan(self.store)

    def _must_hold(self, obj: ObjectId, index: int) -> bool:
        return self._is_roomy and (obj, index) in self.model

    def _expect(self, obj: ObjectId, index: int, got: bytes | None) -> None:
        if got is None:
            assert not self._must_hold(obj, index)
        else:
            assert got == self.model[obj, index]

    def _check_budget(self) -> None:
        for usage in self.store.tier_usage():
            assert disk_bytes(usage.path) <= usage.used_bytes <= usage.capacity_bytes


@pytest.mark.parametrize("tiers", [ROOMY, TIGHT], ids=["roomy", "tight"])
@pytest.mark.parametrize("seed", range(10))
def test_any_history_serves_what_was_put_or_nothing(
    open_store: Opener, tmp_path: Path, seed: int, tiers: dict[str, int]
) -> None:
    """With room for all it serves exactly what it was given; else that or nothing."""
    history = History(open_store, tmp_path, tiers, seed)
    for _ in range(150):
        history.step()
    history.finish()

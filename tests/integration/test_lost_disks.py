"""A store of several disks, some of which are lost: the others go on, and lost ones come back."""

import contextlib
import os
import random
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.checksums import BLOCK_BYTES
from penstock.errors import InvalidConfiguration
from penstock.objects import ObjectId
from penstock_node.store import Store, Tier
from penstock_node.store.tier import Role
from penstock_node.testbed.odd_disk import OddDisk, small_disk
from penstock_node.testbed.processes import wait_until

CHUNKS = 16
MODEL = ObjectId("s3://b/model", "v1", CHUNKS * BLOCK_BYTES, BLOCK_BYTES)
CAPACITY_BYTES = 4 << 20
FLOOR_BYTES = CAPACITY_BYTES - (1 << 19)
DEADLINE_S = 20
SCRIPT_DEADLINE_S = 55


def payload_of(index: int) -> bytes:
    return random.Random(index).randbytes(BLOCK_BYTES)


def put(store: Store, index: int) -> bool:
    payload = payload_of(index)
    return store.put(MODEL, index, payload, owned=True, reason="read")


def put_all(store: Store) -> list[bool]:
    return [put(store, index) for index in range(CHUNKS)]


def held(store: Store) -> list[int]:
    """Return which chunks are served; each of them right."""
    found = []
    for index in range(CHUNKS):
        stored = store.get(MODEL, index)
        if stored is not None:
            with stored:
                assert stored.read(0, stored.length) == payload_of(index)
            found.append(index)
    return found


@contextlib.contextmanager
def store_of(*tiers: tuple[Path, Role]) -> Iterator[Store]:
    made = Store([Tier(path, CAPACITY_BYTES, role, is_open=False) for path, role in tiers])
    try:
        made.open()
        yield made
    finally:
        made.close()


@pytest.fixture
def odd(tmp_path: Path) -> Iterator[OddDisk]:
    with OddDisk(tmp_path / "odd", below=tmp_path / "below") as disk:
        yield disk
        if disk.is_mounted:
            disk.become("well")


def wait_for(store: Store, *, healthy: int) -> None:
    wait_until(
        lambda: sum(usage.is_healthy for usage in store.tier_usage()) == healthy,
        deadline_s=DEADLINE_S,
        what=f"{healthy} disks are well",
    )


def test_a_lost_disk_is_as_good_as_empty_and_the_other_takes_its_chunks(
    tmp_path: Path, odd: OddDisk
) -> None:
    with store_of((odd.path, "owned"), (tmp_path / "plain", "owned")) as store:
        put_all(store)
        assert held(store) == list(range(CHUNKS))
        assert store.owned_capacity_bytes == 2 * CAPACITY_BYTES

        odd.become("failing")
        wait_for(store, healthy=1)

        assert 0 < len(held(store)) < CHUNKS
        assert store.owned_capacity_bytes == CAPACITY_BYTES
        assert store.cached_chunks == len(held(store)) == len(list(store.owned_chunks()))
        lost = [usage for usage in store.tier_usage() if not usage.is_healthy]
        assert [(usage.path, usage.used_bytes, usage.capacity_bytes) for usage in lost] == [
            (odd.path, 0, 0)
        ]
        assert all(put_all(store))
        assert held(store) == list(range(CHUNKS))


def test_what_a_disk_has_when_it_is_back_is_found_and_checked(odd: OddDisk, tmp_path: Path) -> None:
    with store_of((odd.path, "owned"), (tmp_path / "plain", "owned")) as store:
        put_all(store)
        on_disk = sorted(odd.backing.glob("chunks/*/*"))
        odd.unmount()
        wait_for(store, healthy=1)
        on_disk[0].write_bytes(b"not a chunk")
        on_disk[1].unlink()

        odd.mount()
        wait_for(store, healthy=2)

        assert store.wait_scanned(DEADLINE_S)
        assert len(held(store)) == CHUNKS - 2
        assert store.statistics.corrupt_chunks == 1


def test_one_chunk_that_cannot_be_read_is_absent_and_the_disk_goes_on(
    odd: OddDisk, tmp_path: Path
) -> None:
    tier = Tier(odd.path, CAPACITY_BYTES, "owned")
    store = Store([tier])
    put_all(store)
    odd.become("failing")
    assert store.get(MODEL, 0) is None
    odd.become("well")

    assert tier.disk.is_healthy, "one error is none"
    assert store.statistics.read_errors == 1
    assert store.statistics.corrupt_chunks == 0
    assert store.holds(MODEL, 1)
    store.close()


def test_a_node_starts_without_a_dead_disk_while_another_has_its_role(
    tmp_path: Path, odd: OddDisk
) -> None:
    odd.become("failing")

    with store_of((odd.path, "owned"), (tmp_path / "plain", "owned")) as store:
        assert [usage.is_healthy for usage in store.tier_usage()] == [False, True]
        assert all(put_all(store))
        odd.become("well")
        wait_for(store, healthy=2)


def test_a_disk_that_hangs_at_the_start_is_waited_for_only_so_long(
    tmp_path: Path, odd: OddDisk
) -> None:
    odd.become("hanging")

    with store_of((odd.path, "owned"), (tmp_path / "plain", "owned")) as store:
        assert [usage.is_healthy for usage in store.tier_usage()] == [False, True]
        odd.become("well")
        wait_for(store, healthy=2)


def test_the_only_disk_of_a_role_must_work(tmp_path: Path, odd: OddDisk) -> None:
    odd.become("failing")

    with (
        pytest.raises(InvalidConfiguration, match=r"odd cannot be used: Input/output error"),
        store_of((odd.path, "owned"), (tmp_path / "plain", "local")),
    ):
        pass


def test_a_tier_that_another_process_uses_is_refused_however_many_there_are(
    tmp_path: Path,
) -> None:
    theirs = Tier(tmp_path / "a", CAPACITY_BYTES, "owned")

    with (
        pytest.raises(InvalidConfiguration, match="in use by another process"),
        store_of((tmp_path / "a", "owned"), (tmp_path / "b", "owned")),
    ):
        pass

    theirs.close()


def test_a_mount_point_without_its_disk_is_never_written_to(tmp_path: Path, odd: OddDisk) -> None:
    with store_of((odd.path, "owned"), (tmp_path / "plain", "owned")) as store:
        put_all(store)
        odd.unmount()
        wait_for(store, healthy=1)
        put_all(store)
        assert store.statistics.not_kept == 0, "the other keeps all"

        assert list(odd.path.iterdir()) == []


def test_only_the_tiers_own_directory_is_taken_back(odd: OddDisk) -> None:
    tier = Tier(odd.path, CAPACITY_BYTES, "owned")
    tier.disk.take_out("the test says so")
    assert tier.is_back()

    odd.unmount()
    assert not tier.is_back(), "the mount point alone is not the tier"
    assert list(odd.path.iterdir()) == []

    odd.mount()
    assert tier.is_back()
    tier.close()


def test_a_write_that_hangs_is_waited_for_until_its_disk_is_out(odd: OddDisk) -> None:
    with store_of((odd.path, "owned")) as store:
        odd.become("hanging")

        assert not put(store, 0)

        assert [usage.is_healthy for usage in store.tier_usage()] == [False]
        assert store.statistics.not_kept == 1
        odd.become("well")
        wait_until(lambda: put(store, 0), deadline_s=DEADLINE_S, what="it takes chunks again")
        assert held(store) == [0]


def test_the_floor_is_kept_by_eviction_and_else_by_not_keeping(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", size_bytes=4 << 20) as path:
        tier = Tier(path, CAPACITY_BYTES, "owned", free_floor_bytes=FLOOR_BYTES)
        store = Store([tier])

        assert all(put_all(store))
        free = os.statvfs(path).f_bavail * os.statvfs(path).f_frsize
        assert free >= FLOOR_BYTES
        assert 0 < store.cached_chunks < CHUNKS // 2

        (path / "of-others").write_bytes(bytes(2 << 20))
        assert put_all(store)[-1] is False
        assert store.cached_chunks == 0
        assert store.statistics.write_errors == 0
        store.close()


def test_without_descriptors_a_chunk_is_neither_bad_nor_gone(tmp_path: Path) -> None:
    said = run_python(
        f"""
        import os, resource
        from pathlib import Path
        from penstock.errors import Overloaded
        from penstock.objects import ObjectId
        from penstock_node.store import Store, Tier
        model = ObjectId("k", "v", 1000, 1 << 20)
        store = Store([Tier(Path({str(tmp_path)!r}), 1 << 20, "owned")])
        def put():
            return store.put(model, 0, bytes(1000), owned=True, reason="read")
        assert put()
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        taken = []
        try:
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        try:
            store.get(model, 0)
        except Overloaded as error:
            print(error)
        assert store.statistics.shortages == 1
        assert store.holds(model, 0)
        os.close(taken.pop())
        with store.get(model, 0) as stored:
            assert stored.read(0, 1000) == bytes(1000)
        assert store.statistics.read_errors == store.statistics.corrupt_chunks == 0
        """
    )

    assert "cannot open a chunk: Too many open files" in said


@pytest.mark.parametrize("seed", range(2))
def test_a_process_killed_at_any_instant_leaves_nothing_that_is_believed_and_wrong(
    tmp_path: Path, seed: int
) -> None:
    """Real writers, each killed somewhere in a write, a rename, an eviction or the sweep."""
    said = run_python(
        f"""
        import os, random, signal, time
        from pathlib import Path
        from penstock.objects import ObjectId
        from penstock_node.store import Store, Tier
        root, rng = Path({str(tmp_path)!r}), random.Random({seed})
        size, capacity = 1 << 20, 8 * ((1 << 20) + 4096)
        model = ObjectId("k", "v", 12 * size, size)
        payloads = [random.Random(n).randbytes(size) for n in range(12)]
        def write_for_ever(has_written):
            store = Store([Tier(root, capacity, "owned")])
            store.start_scan()
            while True:
                index = rng.randrange(12)
                store.put(model, index, payloads[index], owned=True,
                          reason=rng.choice(["read", "warmup"]))
                if has_written is not None:
                    os.write(has_written, b"1")
                    has_written = None
        rounds = right = swept = 0
        while rounds < 25 or swept == 0 and rounds < 500:
            rounds += 1
            is_written, has_written = os.pipe()
            child = os.fork()
            if child == 0:
                write_for_ever(has_written)
            os.close(has_written)
            if rounds % 2:  # Others may be killed before they have written anything.
                assert os.read(is_written, 1)
            os.close(is_written)
            time.sleep(rng.uniform(0.0, 0.05))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            swept += len(list((root / "tmp").glob("*")))
            store = Store([Tier(root, capacity, "owned")])
            assert not list((root / "tmp").iterdir())
            if rng.random() < 0.5:
                store.start_scan()
                assert store.wait_scanned(10)
            for index in range(12):
                stored = store.get(model, index)
                if stored is not None:
                    with stored:
                        assert stored.read(0, stored.length) == payloads[index]
                    right += 1
            assert store.statistics.corrupt_chunks == 0
            store.close()
        assert right > 50, right
        assert swept > 0, "no writer was killed in a write"
        print("all is well")
        """
    )

    assert "all is well" in said


def run_python(script: str) -> str:
    command = [sys.executable, "-c", textwrap.dedent(script)]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=SCRIPT_DEADLINE_S, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout

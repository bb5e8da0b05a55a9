"""One tier: what it keeps, refuses, survives, and never exceeds."""

import functools
import os
import random
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.checksums import BLOCK_BYTES, block_checksums
from penstock.errors import CorruptData, InvalidConfiguration
from penstock.objects import ObjectId
from penstock_node.store.chunk_file import ChunkFile
from penstock_node.store.eviction import Reason
from penstock_node.store.quarantine import QUARANTINE_FILES_MAX
from penstock_node.store.tier import Tier
from penstock_node.store.tier_directory import TierDirectory

SIZE_BYTES = 2 * BLOCK_BYTES + 100
TAKES_BYTES = 33 * 4096
"""A chunk of `SIZE_BYTES` with its footer, in pages."""
DEADLINE_S = 30


def chunk_of(number: int) -> ChunkFile:
    subject = ObjectId(key=f"k{number}", version="v", size=SIZE_BYTES, chunk_size=4 * BLOCK_BYTES)
    return ChunkFile(subject, 0)


def payload_of(number: int) -> bytes:
    return random.Random(number).randbytes(SIZE_BYTES)


def put(tier: Tier, number: int, *, reason: Reason = "read") -> bool:
    payload = payload_of(number)
    checksums = block_checksums(payload)
    return tier.put(chunk_of(number), payload, checksums=checksums, reason=reason)


def payload_in(tier: Tier, number: int) -> bytes | None:
    stored = tier.get(chunk_of(number))
    if stored is None:
        return None
    with stored:
        return stored.read(0, stored.length)


def path_of(tier: Tier, number: int) -> Path:
    return tier.path / "chunks" / chunk_of(number).relative_path


def flip_byte(path: Path, *, at: int) -> None:
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


def disk_bytes(path: Path) -> int:
    """What du says of the files of chunks."""
    return sum(file.stat().st_blocks * 512 for file in path.rglob("[!.]*") if file.is_file())


def tier_of(path: Path, *, chunks: int = 8) -> Tier:
    return Tier(path, chunks * TAKES_BYTES, "owned")


def restart(tier: Tier, *, chunks: int = 8) -> Tier:
    tier.close()
    return tier_of(tier.path, chunks=chunks)


@pytest.fixture
def tier(tmp_path: Path) -> Iterator[Tier]:
    tier = tier_of(tmp_path / "tier")
    yield tier
    tier.stop_scan()


def test_what_is_put_is_served(tier: Tier) -> None:
    assert chunk_of(1).allocated_bytes == TAKES_BYTES
    assert payload_in(tier, 1) is None

    assert put(tier, 1)

    assert payload_in(tier, 1) == payload_of(1)
    assert (tier.used_bytes, tier.chunk_count) == (TAKES_BYTES, 1)
    stored = tier.get(chunk_of(1))
    assert stored is not None
    with stored:
        assert stored.checksums == block_checksums(payload_of(1))
        assert stored.source == "disk"
        assert os.pread(stored.fileno(), 10, 5) == payload_of(1)[5:15]


def test_a_descriptor_cannot_be_written_through(tier: Tier) -> None:
    put(tier, 1)
    stored = tier.get(chunk_of(1))
    assert stored is not None

    with stored, pytest.raises(OSError, match="Bad file descriptor"):
        os.pwrite(stored.fileno(), b"x", 0)


def test_putting_again_changes_nothing(tier: Tier) -> None:
    put(tier, 1)
    before = path_of(tier, 1).stat().st_ino

    assert put(tier, 1)

    assert path_of(tier, 1).stat().st_ino == before
    assert tier.used_bytes == TAKES_BYTES


def test_the_budget_is_held_by_eviction(tier: Tier) -> None:
    for number in range(30):
        assert put(tier, number)
        assert tier.used_bytes <= tier.capacity_bytes

    assert tier.chunk_count == 8
    assert disk_bytes(tier.path) == tier.used_bytes == 8 * TAKES_BYTES
    assert tier.statistics.evicted_bytes == 22 * TAKES_BYTES


def test_a_chunk_larger_than_the_tier_is_not_kept_and_evicts_nothing(tmp_path: Path) -> None:
    tier = Tier(tmp_path, TAKES_BYTES - 1, "local")

    assert not put(tier, 1)
    assert tier.statistics.not_kept == 1
    assert disk_bytes(tmp_path) == 0


def test_a_reader_keeps_a_chunk_that_is_dropped_and_its_bytes_count(tier: Tier) -> None:
    put(tier, 1)
    stored = tier.get(chunk_of(1))
    assert stored is not None

    assert tier.drop(chunk_of(1)) == TAKES_BYTES

    assert not path_of(tier, 1).exists()
    assert tier.used_bytes == TAKES_BYTES
    assert stored.read(0, stored.length) == payload_of(1)
    stored.close()
    stored.close()
    assert tier.used_bytes == 0


def test_a_dropped_chunk_may_come_back_while_the_old_file_is_held(tier: Tier) -> None:
    put(tier, 1)
    old = tier.get(chunk_of(1))
    assert old is not None
    tier.drop(chunk_of(1))

    put(tier, 1)

    assert tier.used_bytes == 2 * TAKES_BYTES
    assert payload_in(tier, 1) == payload_of(1)
    old.close()
    assert tier.used_bytes == TAKES_BYTES


def test_chunks_in_use_are_not_evicted(tier: Tier) -> None:
    for number in range(8):
        put(tier, number)
    stored = [tier.get(chunk_of(number)) for number in range(7)]

    assert put(tier, 100)
    assert put(tier, 101)

    assert all(tier.holds(chunk_of(number)) for number in range(7))
    for held in stored:
        assert held is not None
        held.close()


def test_a_tier_whose_readers_hold_everything_keeps_nothing_more(tier: Tier) -> None:
    for number in range(8):
        put(tier, number)
    stored = [tier.get(chunk_of(number)) for number in range(8)]

    assert not put(tier, 100)

    assert tier.chunk_count == 8
    for held in stored:
        assert held is not None
        held.close()
    assert put(tier, 100)


def test_a_restarted_tier_serves_before_and_after_its_scan(tier: Tier) -> None:
    for number in range(4):
        put(tier, number)

    tier = restart(tier)

    assert not tier.is_scanned
    assert tier.holds(chunk_of(0))
    assert payload_in(tier, 0) == payload_of(0)
    assert not tier.holds(chunk_of(100))
    assert payload_in(tier, 100) is None
    tier.scan()
    assert tier.is_scanned
    assert [payload_in(tier, number) for number in range(4)] == list(map(payload_of, range(4)))
    assert tier.used_bytes == disk_bytes(tier.path) == 4 * TAKES_BYTES


def test_a_new_tier_needs_no_scan(tmp_path: Path) -> None:
    tier = tier_of(tmp_path)

    assert tier.is_scanned
    assert tier.used_bytes == 0


def test_before_the_scan_a_write_is_paid_for_by_a_chunk_that_was_found(tier: Tier) -> None:
    """What is on disk is not known yet: the budget holds all the same."""
    for number in range(8):
        put(tier, number)
    tier = restart(tier)

    assert not put(tier, 100)
    assert payload_in(tier, 0) is not None
    assert put(tier, 101)

    assert disk_bytes(tier.path) == 8 * TAKES_BYTES
    tier.scan()
    assert tier.used_bytes == 8 * TAKES_BYTES


def test_a_lowered_capacity_is_kept_after_the_scan(tier: Tier) -> None:
    for number in range(8):
        put(tier, number)

    tier = restart(tier, chunks=3)
    tier.scan()

    assert tier.used_bytes == disk_bytes(tier.path) == 3 * TAKES_BYTES
    assert put(tier, 100)
    assert disk_bytes(tier.path) == 3 * TAKES_BYTES


def test_names_that_are_no_chunks_are_left_alone(tier: Tier) -> None:
    put(tier, 1)
    other = tier.path / "chunks" / "fff"
    other.mkdir(exist_ok=True)
    (other / "README").write_text("not ours")
    (other / path_of(tier, 2).name).write_text("in the wrong directory")
    (tier.path / "chunks" / "file").write_text("not a directory")
    for name in ("bak", "tmp", "FFF", "a_b", "+1f", "aéa"):
        (tier.path / "chunks" / name).mkdir()

    tier = restart(tier)
    tier.scan()

    assert tier.is_scanned
    assert tier.chunk_count == 1
    assert (other / "README").exists()


def test_a_scan_that_an_error_ends_has_ended(tier: Tier) -> None:
    put(tier, 1)
    tier = restart(tier)
    usual_bytes = threading.stack_size(1 << 46)  # More than any process may have.
    try:
        with pytest.raises(RuntimeError, match="start new thread"):
            tier.scan()
    finally:
        threading.stack_size(usual_bytes)

    assert tier.scan_has_ended
    assert not tier.is_scanned
    assert payload_in(tier, 1) == payload_of(1)


@pytest.mark.parametrize("at", [0, SIZE_BYTES - 1, SIZE_BYTES + 20, chunk_of(1).file_bytes - 1])
def test_a_flipped_byte_is_never_served_after_a_restart(tier: Tier, at: int) -> None:
    put(tier, 1)
    flip_byte(path_of(tier, 1), at=at)

    tier = restart(tier)
    tier.scan()

    assert payload_in(tier, 1) is None
    assert not tier.holds(chunk_of(1))
    assert tier.statistics.corrupt_chunks == 1
    assert put(tier, 1)
    assert payload_in(tier, 1) == payload_of(1)


@pytest.mark.parametrize("at", [0, SIZE_BYTES - 1, SIZE_BYTES + 20])
def test_a_flipped_byte_is_found_by_a_recheck(tier: Tier, at: int) -> None:
    put(tier, 1)
    assert tier.recheck(chunk_of(1))
    flip_byte(path_of(tier, 1), at=at)

    assert not tier.recheck(chunk_of(1))

    assert payload_in(tier, 1) is None
    assert tier.statistics.corrupt_chunks == 1


@pytest.mark.parametrize("length", [0, 1, SIZE_BYTES, chunk_of(1).file_bytes - 1])
def test_a_cut_file_is_never_served(tier: Tier, length: int) -> None:
    put(tier, 1)
    path_of(tier, 1).chmod(0o600)
    os.truncate(path_of(tier, 1), length)

    assert payload_in(tier, 1) is None

    assert tier.statistics.corrupt_chunks == 1
    assert not path_of(tier, 1).exists()


def test_a_file_cut_under_a_reader_is_an_error_not_short_data(tier: Tier) -> None:
    put(tier, 1)
    stored = tier.get(chunk_of(1))
    assert stored is not None
    path_of(tier, 1).chmod(0o600)
    os.truncate(path_of(tier, 1), 1000)

    with stored, pytest.raises(CorruptData, match="ends after 1000 bytes"):
        stored.read(0, SIZE_BYTES)


def test_another_objects_file_under_a_chunks_name_is_refused(tier: Tier) -> None:
    put(tier, 1)
    put(tier, 2)
    path_of(tier, 1).unlink()
    path_of(tier, 2).rename(path_of(tier, 1))

    assert payload_in(tier, 1) is None

    assert tier.statistics.corrupt_chunks == 1
    assert payload_in(tier, 2) is None, "its file is gone"
    assert tier.statistics.corrupt_chunks == 1, "a missing file is not a bad one"


def test_a_name_that_tells_another_size_is_refused(tier: Tier) -> None:
    put(tier, 1)
    path = path_of(tier, 1)
    path.rename(path.with_suffix(".1"))

    tier = restart(tier)
    tier.scan()

    assert payload_in(tier, 1) is None
    assert tier.statistics.corrupt_chunks == 1
    assert put(tier, 1)


def test_a_directory_in_place_of_a_chunk_is_not_served(tier: Tier) -> None:
    put(tier, 1)
    path_of(tier, 1).unlink()
    path_of(tier, 1).mkdir()

    assert payload_in(tier, 1) is None


def test_bad_files_are_kept_within_bounds(tmp_path: Path) -> None:
    capacity_bytes = 16 * (QUARANTINE_FILES_MAX - 1) * TAKES_BYTES
    tier = Tier(tmp_path, capacity_bytes, "owned")
    for number in range(10):
        put(tier, number)
        flip_byte(path_of(tier, number), at=0)
        assert not tier.recheck(chunk_of(number))

    kept = list((tmp_path / "quarantine").iterdir())

    assert len(kept) == QUARANTINE_FILES_MAX - 1
    assert {path.name.split(".", 1)[1] for path in kept} == {
        path_of(tier, number).name for number in (7, 8, 9)
    }
    assert tier.used_bytes == disk_bytes(tmp_path) == len(kept) * TAKES_BYTES
    tier.close()
    assert Tier(tmp_path, capacity_bytes, "owned").used_bytes == capacity_bytes
    tier = Tier(tmp_path / "small", 8 * TAKES_BYTES, "owned")
    put(tier, 1)
    flip_byte(path_of(tier, 1), at=0)
    assert not tier.recheck(chunk_of(1))
    assert tier.used_bytes == disk_bytes(tier.path) == 0


def test_a_bad_chunk_that_readers_hold_counts_until_they_close(tier: Tier) -> None:
    put(tier, 1)
    stored = tier.get(chunk_of(1))
    assert stored is not None
    flip_byte(path_of(tier, 1), at=0)

    assert not tier.recheck(chunk_of(1))

    assert tier.used_bytes == TAKES_BYTES
    stored.close()
    assert tier.used_bytes == 0


def test_what_a_crash_left_in_tmp_is_swept(tier: Tier) -> None:
    put(tier, 1)
    tier.close()
    leftover = tier.path / "tmp" / f"{chunk_of(2).chunk_id.hex()}.0"
    leftover.write_bytes(bytes(SIZE_BYTES))

    tier = tier_of(tier.path)
    tier.scan()

    assert not leftover.exists()
    assert tier.used_bytes == disk_bytes(tier.path) == TAKES_BYTES
    assert not tier.holds(chunk_of(2))


def test_a_second_process_is_refused_and_told_what_to_do(tier: Tier) -> None:
    script = f"""
        from pathlib import Path
        from penstock.errors import InvalidConfiguration
        from penstock_node.store.tier import Tier
        try:
            Tier(Path({str(tier.path)!r}), 1000, "owned")
        except InvalidConfiguration as error:
            print(error)
    """

    said = run_python(script)

    assert str(tier.path) in said
    assert "in use by another process; stop that one, or give each node" in said


def test_a_closed_tier_may_be_used_by_the_next(tier: Tier) -> None:
    with pytest.raises(InvalidConfiguration, match="in use"):
        tier_of(tier.path)
    tier.close()

    tier_of(tier.path).close()


def test_a_tier_below_a_file_is_refused_and_told_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(InvalidConfiguration, match=r"file/tier cannot be used: Not a directory"):
        tier_of(tmp_path / "file" / "tier")


def test_a_read_only_tier_is_refused_and_told_what_to_do(tmp_path: Path) -> None:
    said = run_python(
        f"""
        from pathlib import Path
        from penstock.errors import InvalidConfiguration
        from penstock_node.store.tier import Tier
        try:
            Tier(Path({str(tmp_path)!r}), 1000, "owned")
        except InvalidConfiguration as error:
            print(error)
        """,
        mount=f"-t tmpfs -o ro tmpfs {tmp_path}",
    )

    assert f"tier {tmp_path} cannot be used: Read-only file system" in said
    assert "make it a directory that uid" in said


def test_a_full_disk_evicts_and_then_keeps_or_gives_up(tmp_path: Path) -> None:
    """A real file system of 1 MiB under a tier that believes it has 64 MiB."""
    said = run_python(
        f"""
        import os
        from pathlib import Path
        from penstock.checksums import block_checksums
        from penstock.objects import ObjectId
        from penstock_node.store.chunk_file import ChunkFile
        from penstock_node.store.tier import Tier
        root = Path({str(tmp_path)!r})
        tier = Tier(root, 64 << 20, "owned", free_floor_bytes=0)
        def put(number, size):
            payload = os.urandom(size)
            subject = ObjectId(key=f"k{{number}}", version="v", size=size, chunk_size=4 << 20)
            chunk = ChunkFile(subject, 0)
            kept = tier.put(chunk, payload, checksums=block_checksums(payload), reason="read")
            assert kept == tier.holds(chunk)
            if kept:
                with tier.get(chunk) as stored:
                    assert stored.read(0, size) == payload
            return kept
        assert all(put(number, 200_000) for number in range(20))
        assert tier.chunk_count == 5, tier
        assert tier.statistics.write_errors == 15
        assert tier.statistics.not_kept == 0
        assert not put(100, 2_000_000)
        assert tier.statistics.not_kept == 1
        assert list((root / "tmp").iterdir()) == []
        assert put(101, 200_000)
        used = sum(path.stat().st_blocks * 512 for path in root.rglob("[!.]*") if path.is_file())
        assert tier.used_bytes == used, (tier, used)
        print("all is well")
        """,
        mount=f"-t tmpfs -o size=1m tmpfs {tmp_path}",
    )

    assert "all is well" in said


def test_the_budget_holds_at_every_instant_on_a_disk_of_exactly_its_size(tmp_path: Path) -> None:
    """The kernel is the probe: one page too many, at any instant, and a write would fail."""
    said = run_python(
        f"""
        import os, random, threading
        from pathlib import Path
        from penstock.checksums import block_checksums
        from penstock.objects import ObjectId
        from penstock_node.store.chunk_file import ChunkFile
        from penstock_node.store.tier import Tier
        root = Path({str(tmp_path)!r})
        tier = Tier(root, 2 << 20, "owned", free_floor_bytes=0)
        sizes = [30_000 * (1 + number % 5) for number in range(60)]
        payloads = [os.urandom(size) for size in sizes]
        sums = [block_checksums(payload) for payload in payloads]
        chunks = [
            ChunkFile(ObjectId(key=f"k{{n}}", version="v", size=len(p), chunk_size=1 << 20), 0)
            for n, p in enumerate(payloads)
        ]
        failures = []
        def work(seed):
            rng, held = random.Random(seed), []
            for _ in range(400):
                number = rng.randrange(len(chunks))
                match rng.choice(("put", "put", "hold", "release", "drop", "recheck")):
                    case "put":
                        tier.put(chunks[number], payloads[number], checksums=sums[number],
                                 reason=rng.choice(("read", "warmup")))
                    case "hold" if (stored := tier.get(chunks[number])) is not None:
                        held.append((number, stored))
                    case "drop":
                        tier.drop(chunks[number])
                    case "recheck":
                        tier.recheck(chunks[number])
                if len(held) > 3 or (held and rng.random() < 0.2):
                    number, stored = held.pop(0)
                    with stored:
                        if stored.read(0, stored.length) != payloads[number]:
                            failures.append(number)
                if tier.used_bytes > tier.capacity_bytes:
                    failures.append("over budget")
            for _, stored in held:
                stored.close()
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert not failures, failures
        assert tier.statistics.write_errors == 0, tier.statistics
        assert tier.statistics.evicted_bytes > 10 << 20, "the disk was never full"
        used = sum(path.stat().st_blocks * 512 for path in root.rglob("[!.]*") if path.is_file())
        assert tier.used_bytes == used, (tier, used)
        print("all is well")
        """,
        mount=f"-t tmpfs -o size={2048 + 4}k tmpfs {tmp_path}",  # And a page for the lock file.
    )

    assert "all is well" in said


def run_python(script: str, *, mount: str | None = None) -> str:
    """Run a script in a process of its own, with a mount that only that process sees."""
    command = [sys.executable, "-c", textwrap.dedent(script)]
    if mount is not None:
        # Root may mount as it is; anybody else becomes root of a user namespace of their own.
        unshare = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
        command = [*unshare, "sh", "-c", f'mount {mount} && exec "$0" "$@"', *command]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_a_disk_that_cannot_unlink_keeps_its_bytes_in_the_sum(tier: Tier) -> None:
    """Something that cannot be unlinked, a directory, stands for a disk that refuses to."""
    for number in range(8):
        put(tier, number)
    for number in range(8):
        path_of(tier, number).unlink()
        path_of(tier, number).mkdir()

    assert not put(tier, 100)

    assert tier.used_bytes == 8 * TAKES_BYTES
    assert tier.statistics.write_errors > 0


def run_together(*jobs: Callable[[], object]) -> None:
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


def test_two_threads_that_put_one_chunk_leave_one_file(tier: Tier) -> None:
    together = threading.Barrier(4)
    kept: list[bool] = []

    def put_all() -> None:
        for number in range(50):
            together.wait()
            kept.append(put(tier, number))

    run_together(*[put_all] * 4)

    assert kept.count(True) >= 50
    assert tier.holds(chunk_of(49))
    assert tier.used_bytes == disk_bytes(tier.path) == tier.cached_bytes


class InterruptedDirectory(TierDirectory):
    """A real directory in which something happens just before a file is opened."""

    before_open: Callable[[], object] = staticmethod(lambda: None)

    def open(self, chunk: ChunkFile) -> int:
        self.before_open()
        return super().open(chunk)


def test_a_chunk_replaced_while_it_is_opened_is_not_served_uncounted(tmp_path: Path) -> None:
    tier = tier_of(tmp_path)
    assert tier._opened is not None
    tier._opened.close()
    tier._opened.directory = directory = InterruptedDirectory(tmp_path)
    put(tier, 1)
    directory.before_open = lambda: run_together(lambda: tier.drop(chunk_of(1)) and put(tier, 1))

    assert tier.get(chunk_of(1)) is None

    assert tier.holds(chunk_of(1)), "the new file is no worse for it"
    assert tier.used_bytes == disk_bytes(tmp_path) == TAKES_BYTES
    assert tier.statistics.read_errors == tier.statistics.corrupt_chunks == 0


@pytest.mark.parametrize("seed", range(8))
def test_a_scan_beside_readers_and_writers_ends_in_the_truth(tmp_path: Path, seed: int) -> None:
    tier = tier_of(tmp_path, chunks=40)
    for number in range(40):
        put(tier, number)
    tier = restart(tier, chunks=40)
    wrong: list[int] = []

    def work(rng: random.Random) -> None:
        for number in rng.choices(range(60), k=60):
            match rng.choice(("put", "get", "get", "drop")):
                case "put":
                    put(tier, number)
                case "get" if payload_in(tier, number) not in (None, payload_of(number)):
                    wrong.append(number)
                case "drop":
                    tier.drop(chunk_of(number))
            if tier.used_bytes > tier.capacity_bytes:
                wrong.append(-1)

    workers = [functools.partial(work, random.Random(100 * seed + n)) for n in range(3)]
    run_together(tier.scan, *workers)

    assert not wrong
    assert tier.is_scanned
    assert tier.used_bytes == disk_bytes(tier.path), f"replay with seed {seed}"
    assert tier.statistics.corrupt_chunks == 0
    on_disk = {path.name for path in (tmp_path / "chunks").rglob("*.*")}
    assert {f"{chunk.chunk_id.hex()}.21" for chunk in tier.chunks()} == on_disk

"""What a snapshot's directory keeps: partial files, journals, manifests, layouts and locks."""

import json
import os
import random
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import xxhash

from penstock.checksums import block_checksums
from penstock.errors import Cancelled, InvalidRequest, NoSpace
from penstock.snapshots.digests import checksum_on_disk, file_checksum, piece_digest
from penstock.snapshots.kernel_copy import KernelCopy
from penstock.snapshots.locks import lock, try_lock
from penstock.snapshots.manifest import COMPACT_MIN_LINES, Manifest, Record, matches_disk
from penstock.snapshots.partial import Identity, Partial, landed_bytes, read_journal
from penstock.snapshots.places import FileVersion, hub_in, plain_in, prepare
from penstock.snapshots.room import check_space
from penstock.snapshots.shelves import Candidate, Shelf, _choose

PIECE = 64 * 1024
DATA = random.Random(1).randbytes(3 * PIECE + 100)
IDENTITY = Identity("penstock://v/f", '"1"', len(DATA), PIECE)


def piece(index: int) -> bytes:
    at, length = IDENTITY.span(index)
    return DATA[at : at + length]


def digest(index: int) -> int:
    return piece_digest(block_checksums(piece(index)))


def write(partial: Partial, *indexes: int) -> None:
    for index in indexes:
        os.pwrite(partial.descriptor, piece(index), IDENTITY.span(index)[0])
        partial.landed(index, digest(index))


def opened(directory: Path) -> Partial:
    partial = Partial.try_open(directory, "f")
    assert partial is not None
    return partial


def test_a_files_checksum_is_the_hash_of_its_pieces_digests(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(DATA)
    digests = [xxhash.xxh3_64_intdigest(block_checksums(piece(n))) for n in range(4)]
    expected = xxhash.xxh3_128_hexdigest(struct.pack("<4Q", *digests))

    with path.open("rb") as file:
        found = checksum_on_disk(file.fileno(), size=len(DATA), piece_bytes=PIECE)

    assert found == f"xxh3t-{PIECE}:{expected}"
    assert found == file_checksum(map(digest, range(4)), piece_bytes=PIECE)


def test_a_partial_file_goes_on_where_the_last_process_was(tmp_path: Path) -> None:
    with opened(tmp_path) as partial:
        assert partial.begin(IDENTITY) == [0, 1, 2, 3]
        write(partial, 3, 1)
    seen = landed_bytes(tmp_path, "f", IDENTITY.url, IDENTITY.version, IDENTITY.size)
    told: list[Record] = []
    with opened(tmp_path) as partial:
        missing = partial.begin(IDENTITY)
        write(partial, *missing)
        partial.publish(tmp_path / "target", told.append)

    assert seen == 2 * PIECE, "about: one of the two is short"
    assert missing == [0, 2]
    assert (tmp_path / "target").read_bytes() == DATA
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert matches_disk(told[0], tmp_path / "target", checked=True)


@pytest.mark.parametrize("seed", range(30))
def test_whatever_a_crash_leaves_of_file_and_journal_is_checked(tmp_path: Path, seed: int) -> None:
    """A machine's crash keeps any part of either: bytes, zeros, cut records, other bytes."""
    rng = random.Random(seed)
    with opened(tmp_path) as partial:
        partial.begin(IDENTITY)
        write(partial, *rng.sample(range(4), rng.randint(1, 4)))
    (part,) = tmp_path.glob("*.part")
    (journal,) = tmp_path.glob("*.pieces")
    for path in rng.sample([part, journal], rng.randint(1, 2)):
        left = bytearray(path.read_bytes())
        if rng.random() < 0.5:
            del left[rng.randrange(len(left)) :]
        else:
            at = rng.randrange(len(left))
            left[at : at + 20] = rng.choice([bytes(20), rng.randbytes(20)])
        path.write_bytes(left)

    with opened(tmp_path) as partial:
        write(partial, *partial.begin(IDENTITY))
        partial.publish(tmp_path / "target", lambda _record: None)

    assert (tmp_path / "target").read_bytes() == DATA


def test_pieces_of_another_version_are_thrown_away(tmp_path: Path) -> None:
    newer = Identity(IDENTITY.url, '"2"', len(DATA), PIECE)
    with opened(tmp_path) as partial:
        partial.begin(IDENTITY)
        write(partial, 0, 1, 2)
    (journal,) = tmp_path.glob("*.pieces")
    told = read_journal(journal, IDENTITY), read_journal(journal, newer)
    with opened(tmp_path) as partial:
        missing = partial.begin(newer)
        size = os.fstat(partial.descriptor).st_size

    assert told == ({index: digest(index) for index in range(3)}, {})
    assert (missing, size) == ([0, 1, 2, 3], 0)


def test_one_partial_file_has_one_writer(tmp_path: Path) -> None:
    with opened(tmp_path) as partial:
        partial.begin(IDENTITY)
        write(partial, 0, 1, 2, 3)
        assert Partial.try_open(tmp_path, "f") is None
        partial.publish(tmp_path / "target", lambda _record: None)
        late = Partial.try_open(tmp_path, "f")

    assert late is not None
    with late:
        assert late.begin(IDENTITY) == [0, 1, 2, 3], "the file that was published is another"
    assert (tmp_path / "target").read_bytes() == DATA


def test_an_empty_file_has_no_pieces(tmp_path: Path) -> None:
    with opened(tmp_path) as partial:
        assert partial.begin(Identity("u", "v", 0, PIECE)) == []
        partial.publish(tmp_path / "target", lambda _record: None)

    assert (tmp_path / "target").read_bytes() == b""


def record(name: str, version: str = '"1"') -> Record:
    return Record(name, f"penstock://v/{name}", version, 5, PIECE, "xxh3t-1:0", 7)


def test_the_last_line_about_a_file_counts_and_a_cut_one_is_none(tmp_path: Path) -> None:
    path = tmp_path / "manifest"
    first, other = Manifest(path), Manifest(path)
    first.add(record("a"))
    with path.open("ab") as file:
        file.write(b'{"name": "b", "ver')  # Its writer was killed.
    first.add(record("c"))
    first.add(record("a", '"2"'))
    other.refresh()

    assert other.get("a") == record("a", '"2"')
    assert (other.get("b"), other.get("c")) == (None, record("c"))


def test_a_manifest_of_the_past_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "manifest"
    manifest = Manifest(path)
    for version in range(COMPACT_MIN_LINES):
        manifest.add(record("a", str(version)))
    manifest.refresh()
    Manifest(path).compact()

    lines = [line for line in path.read_bytes().splitlines() if line]
    assert [json.loads(line)["version"] for line in lines] == [str(COMPACT_MIN_LINES - 1)]
    Manifest(path).add(record("b"))
    manifest.refresh()
    assert manifest.get("a") == record("a", str(COMPACT_MIN_LINES - 1))
    assert manifest.get("b") == record("b")


HOLDER = """
import sys, threading
from pathlib import Path
from penstock.snapshots.locks import lock

held = lock(Path(sys.argv[1]), over=threading.Event())
print("held", flush=True)
threading.Event().wait()
"""


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    words = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        said, while_held = holder.stdout.readline(), try_lock(path)
        holder.kill()
    with lock(path, over=threading.Event()):
        pass

    assert (said, while_held) == (b"held\n", None)


def test_who_waits_for_a_lock_can_give_up(tmp_path: Path) -> None:
    over = threading.Event()
    with lock(tmp_path / "lock", over=over):
        over.set()
        with pytest.raises(Cancelled):
            lock(tmp_path / "lock", over=over)


def test_a_shared_lock_becomes_ones_own_only_alone(tmp_path: Path) -> None:
    one = try_lock(tmp_path / "lock", shared=True)
    two = try_lock(tmp_path / "lock", shared=True)
    assert one is not None
    assert two is not None
    with one:
        with two:
            assert not one.try_alone()
        assert try_lock(tmp_path / "lock") is None, "it is shared still"
        assert one.try_alone()
        assert try_lock(tmp_path / "lock", shared=True) is None


def test_a_lock_on_a_file_that_was_removed_is_of_the_new_file(tmp_path: Path) -> None:
    old = try_lock(tmp_path / "lock")
    assert old is not None
    with old:
        (tmp_path / "lock").unlink()
        new = try_lock(tmp_path / "lock")
        assert new is not None
        with new:
            assert (old.is_there, new.is_there) == (False, True)


@pytest.mark.parametrize(
    ("url", "repo", "revision", "folder", "called"),
    [
        ("penstock://models/org/name", None, None, "models--org--name", "main"),
        ("penstock://models/org/name/", None, None, "models--org--name", "main"),
        ("penstock://models/org/name/v1", None, None, "models--org--name", "v1"),
        ("penstock://models/gpt2", None, None, "models--gpt2", "main"),
        ("penstock://m/a/b/c/d", "org/name", "pr/1", "models--org--name", "pr/1"),
        ("penstock://models/org/name/v1", "x/y", None, "models--x--y", "v1"),
    ],
)
def test_a_repository_is_called_by_the_end_of_its_path(
    tmp_path: Path, url: str, repo: str | None, revision: str | None, folder: str, called: str
) -> None:
    place = hub_in(tmp_path, url, repo=repo, revision=revision)

    assert (place.base, place.revision) == (tmp_path / folder, called)


@pytest.mark.parametrize(
    ("url", "repo", "revision"),
    [
        ("penstock://models/", None, None),
        ("penstock://m/a/b/c/d", None, None),
        ("penstock://m/a", "a/b/c", None),
        ("penstock://m/a", "../x", None),
        ("penstock://m/a", "a--b/c", None),
        ("penstock://m/a", None, "../../x"),
        ("penstock://m/a", None, "/x"),
    ],
)
def test_what_names_no_repository_is_refused(
    tmp_path: Path, url: str, repo: str | None, revision: str | None
) -> None:
    with pytest.raises(InvalidRequest):
        hub_in(tmp_path, url, repo=repo, revision=revision)


def test_a_commit_follows_from_paths_versions_and_sizes(tmp_path: Path) -> None:
    place = hub_in(tmp_path, "penstock://m/org/name", repo=None, revision=None)
    files = [FileVersion("a", "u/a", "1", 5), FileVersion("b", "u/b", "1", 6)]

    commit = place.commit_of(files)

    assert len(commit) == 40
    assert place.commit_of(files[::-1]) == commit
    for change in (FileVersion("b", "u/b", "2", 6), FileVersion("c", "u/b", "1", 6)):
        assert place.commit_of([files[0], change]) != commit
    assert hub_in(tmp_path, "m://m/o/n", repo=None, revision=commit).commit_of([]) == commit


def test_urls_that_look_alike_have_places_of_their_own(tmp_path: Path) -> None:
    urls = ["penstock://m/a/b", "penstock://m/a-b", "penstock://m-a/b", "penstock://m/a b"]

    assert len({plain_in(tmp_path, url).base for url in urls}) == len(urls)
    assert plain_in(tmp_path, urls[0] + "/") == plain_in(tmp_path, urls[0])


def test_what_stands_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "out").symlink_to("/tmp")  # noqa: S108 - nothing is written there
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(InvalidRequest, match="there is a file"):
        prepare(tmp_path, "file/x")
    with pytest.raises(InvalidRequest, match="there is a directory"):
        prepare(tmp_path, "folder")
    with pytest.raises(InvalidRequest, match="leads out of"):
        prepare(tmp_path, "out/x")
    with pytest.raises(InvalidRequest, match="no regular file"):
        prepare(tmp_path, "pipe")


def test_what_does_not_fit_is_refused_with_the_numbers(tmp_path: Path) -> None:
    with pytest.raises(NoSpace, match=r"1152921\.5 TB are to come .* free"):
        check_space(tmp_path, 1 << 60)

    check_space(tmp_path, 0)


def test_the_kernel_copies_any_range_of_a_file_or_says_that_it_cannot(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(DATA)
    anonymous = os.memfd_create("other-file-system")
    os.write(anonymous, DATA)
    with (tmp_path / "source").open("rb") as source, (tmp_path / "target").open("wb+") as target:
        kernel = KernelCopy(target.fileno())
        way = kernel.copy(source.fileno(), 4096, at=8192, length=PIECE + 77)
        cannot = kernel.copy(anonymous, 0, at=0, length=100)
        target.seek(8192)
        copied = target.read()
    os.close(anonymous)

    assert way in ("reflink", "copy_file_range")
    assert copied == DATA[4096 : 4096 + PIECE + 77]
    assert cannot is None


def candidates(shelf: Shelf) -> list[Candidate]:
    return [Candidate(shelf, name, used) for name, used in shelf.uses.items()]


def test_least_recently_used_snapshots_go_first_and_no_more_than_needed(tmp_path: Path) -> None:
    shelves = [Shelf(tmp_path / str(n), 100, uses={"plain": 10 - n}) for n in range(3)]
    all_of_them = [one for shelf in shelves for one in candidates(shelf)]

    def chosen(excess: int) -> list[str] | None:
        found = _choose(all_of_them, excess)
        return None if found is None else [one.shelf.base.name for one in found]

    assert chosen(0) == []
    assert chosen(1) == ["2"]
    assert chosen(101) == ["2", "1"]
    assert chosen(300) == ["2", "1", "0"]
    assert chosen(301) is None


def test_what_commits_share_is_gone_only_with_the_last_of_them(tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for name, size in (("shared", 5), ("one", 1), ("two", 2)):
        (blobs / name).write_bytes(b"x" * size * 4096)
    shelf = Shelf(
        tmp_path,
        8 * 4096,
        uses={"c1": 1, "c2": 2},
        blobs={"c1": {"shared", "one"}, "c2": {"shared", "two"}},
    )

    assert [one.name for one in _choose(candidates(shelf), 4096) or ()] == ["c1"]
    assert [one.name for one in _choose(candidates(shelf), 4097) or ()] == ["c1", "c2"]


def test_what_another_program_has_put_into_a_repository_stays(tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for name in ("ours", "theirs"):
        (blobs / name).write_bytes(b"x" * 4096)
    shelf = Shelf(tmp_path, 2 * 4096, uses={"c1": 1}, blobs={"c1": {"ours"}, "c2": {"theirs"}})

    assert [one.name for one in _choose(candidates(shelf), 4096) or ()] == ["c1"]
    assert _choose(candidates(shelf), 4097) is None

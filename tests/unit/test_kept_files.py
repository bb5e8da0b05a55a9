"""Files of small reads: few, closed by nobody who reads, given back together."""

import os
import threading
from pathlib import Path

from penstock.kept_files import KeptFile, KeptFiles
from penstock.objects import ObjectId
from penstock_node.testbed.processes import wait_until

OBJECT = ObjectId("key", "1", size=10 * 65536, chunk_size=65536)
OTHER = ObjectId("other", "1", size=10 * 65536, chunk_size=65536)
PATH = Path(__file__)


def opened() -> KeptFile:
    return KeptFile(os.open(PATH, os.O_RDONLY), 0, b"", "disk")


def is_open(file: KeptFile) -> bool:
    return file.descriptor >= 0


class Rig:
    """Kept files, and how often they were given back."""

    def __init__(self, *, files_max: int = 4) -> None:
        self.kept = KeptFiles(files_max=files_max)
        self.given_back = threading.Event()

    def keep(self, index: int) -> KeptFile:
        file = opened()
        self.kept.make_room(1)
        self.kept.keep(OBJECT, {index: file}, give_back=self.given_back.set)
        return file


def test_a_kept_file_is_lent_until_it_is_forgotten() -> None:
    rig = Rig()
    file = rig.keep(3)
    with rig.kept.borrow(OBJECT, 3) as found, rig.kept.borrow(OBJECT, 4) as absent:
        assert found is file
        assert absent is None

    rig.kept.forget(OBJECT, 3)

    assert not is_open(file)
    with rig.kept.borrow(OBJECT, 3) as found:
        assert found is None
    rig.kept.drop_all()


def test_no_file_is_closed_while_it_is_read() -> None:
    rig = Rig()
    file = rig.keep(0)
    with rig.kept.borrow(OBJECT, 0):
        rig.kept.drop_all()
        assert is_open(file)

    assert not is_open(file)


def test_too_many_files_are_given_back_together() -> None:
    rig = Rig(files_max=4)

    files = [rig.keep(index) for index in range(4)]
    assert all(map(is_open, files))
    files.append(rig.keep(4))

    assert rig.given_back.is_set()
    assert [is_open(file) for file in files] == [False] * 4 + [True]
    rig.kept.drop_all()


def test_what_is_missing_of_an_object_is_told_and_each_object_has_its_share() -> None:
    rig = Rig(files_max=16)
    alone = rig.kept.share
    rig.keep(1)
    rig.keep(3)

    assert rig.kept.missing(OBJECT, range(5)) == [0, 2, 4]
    assert rig.kept.missing(OTHER, range(2)) == [0, 1]
    assert (alone, rig.kept.share) == (8, 4)
    rig.kept.drop_all()
    assert rig.kept.missing(OBJECT, range(2)) == [0, 1]


def test_two_files_of_one_chunk_are_one_too_many() -> None:
    rig = Rig()

    first, second = rig.keep(1), rig.keep(1)

    assert (is_open(first), is_open(second)) == (False, True)
    rig.kept.drop_all()


def test_files_that_nobody_reads_are_given_back_by_themselves() -> None:
    rig = Rig()
    file = rig.keep(1)

    wait_until(rig.given_back.is_set, deadline_s=20, what="files are given back")

    assert not is_open(file)


def test_a_forked_child_closes_its_copies_and_tells_nobody() -> None:
    rig = Rig()
    file = rig.keep(1)

    rig.kept.abandon()

    assert not is_open(file)
    assert not rig.given_back.is_set()
    assert len(rig.kept) == 0
    rig.kept.drop_all()

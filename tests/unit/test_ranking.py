"""Which objects are worth keeping, from what is read of them."""

import numpy as np
import pytest

from penstock_node.store.ranking import GROUPS, HALF_LIVES, UNKNOWN, Ranking

CAPACITY_BYTES = 100_000
PIECE_BYTES = 100
LAST_READ = len(HALF_LIVES)


class Objects:
    """Objects of one size that are read piece by piece, and how they are ranked."""

    def __init__(self, *, object_bytes: int, share: float = 1.0) -> None:
        self.ranking = Ranking(capacity_bytes=CAPACITY_BYTES)
        self.resident = np.zeros(GROUPS, np.uint64)
        self.order: list[int] = []
        self._object_bytes, self._share = object_bytes, share

    def read(self, *groups: int) -> None:
        """Read objects one after the other, each as a whole."""
        for group in groups:
            if not self.ranking.knows(group):
                self.ranking.meet(group, object_bytes=self._object_bytes)
            here_bytes = int(self._object_bytes * self._share)
            self.resident[group] = here_bytes
            for _ in range(0, here_bytes, PIECE_BYTES):
                if self.ranking.note(group, PIECE_BYTES):
                    self.order = self.ranking.rank(self.resident).tolist()

    def rank_of(self, group: int) -> int:
        """Return the place of a group, the one to give up first being 0."""
        return self.order.index(group)


def test_what_is_read_more_often_is_kept_longer() -> None:
    objects = Objects(object_bytes=20_000)

    objects.read(1, 2, 1, 3, 1, 2, 1, 4, 5)

    assert objects.rank_of(1) > objects.rank_of(2) > objects.rank_of(4)


def test_what_was_read_often_long_ago_gives_way() -> None:
    objects = Objects(object_bytes=20_000)
    objects.read(*[1] * 5)

    for number in range(2, 100):
        objects.read(number, number)

    assert objects.rank_of(1) < objects.rank_of(99)


@pytest.mark.parametrize("share", [1.0, 0.02])
def test_the_notion_that_finds_most_is_followed(share: float) -> None:
    """A few are read again and again; the others are read twice, one after the other."""
    objects = Objects(object_bytes=int(20_000 / share), share=share)
    for number in range(10, 400, 4):
        objects.read(number, number + 1, number + 2, number + 3, 1 + number // 4 % 3)
    assert HALF_LIVES[objects.ranking.expert] >= 4.0

    for number in range(1000, 2000):
        objects.read(number, number + 1, number + 2, number - 2)

    assert objects.ranking.expert == LAST_READ or HALF_LIVES[objects.ranking.expert] == 1.0


@pytest.mark.parametrize("share", [1.0, 0.1])
def test_a_share_of_each_object_is_ranked_as_all_of_it(share: float) -> None:
    objects = Objects(object_bytes=int(20_000 / share), share=share)

    for _ in range(4):
        objects.read(1, 2, 1, 3, 1, 2, 1, 4, 5)

    assert objects.rank_of(1) > objects.rank_of(2) > objects.rank_of(3)
    assert objects.ranking.expert == 0, "all that is read fits, so that all do equally well"
    assert objects.ranking.share == pytest.approx(share, rel=0.02)


def test_what_is_gone_and_was_not_read_for_long_is_forgotten() -> None:
    objects = Objects(object_bytes=20_000)
    objects.read(1)
    objects.resident[1] = 0

    objects.read(*[2, 3] * 500)

    assert not objects.ranking.knows(1)
    assert sorted(objects.order) == [UNKNOWN, 2, 3]
    objects.read(1)
    assert objects.rank_of(1) < objects.rank_of(2)


def test_reading_is_told_from_having_been_read() -> None:
    objects = Objects(object_bytes=20_000)
    objects.read(1, 2)
    assert objects.ranking.is_being_read(2)
    assert not objects.ranking.is_being_read(1)

    objects.ranking.meet(3, object_bytes=20_000)
    objects.ranking.note(3, PIECE_BYTES)

    assert objects.ranking.was_read(3)
    assert not objects.ranking.is_being_read(3)

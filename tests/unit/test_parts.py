"""Parts of one object: given in any order by a sender, taken in theirs by an origin."""

import asyncio
import random

import pytest

from penstock.errors import Cancelled, InvalidRequest
from penstock_node.parts import Parts

SOON_S = 0.01
LATE_S = 30.0


async def all_of(parts: Parts) -> list[bytes]:
    return [part async for part in parts]


@pytest.mark.parametrize("seed", range(20))
async def test_parts_are_taken_in_order_whatever_order_they_come_in(seed: int) -> None:
    rng = random.Random(seed)
    wanted = [rng.randbytes(rng.randint(1, 9)) for _ in range(rng.randint(0, 12))]
    parts = Parts(window=4)
    taking = asyncio.create_task(all_of(parts))

    for first in range(0, len(wanted), 4):
        indexes = list(range(first, min(first + 4, len(wanted))))
        rng.shuffle(indexes)
        for index in indexes:
            parts.give(index, wanted[index])
        for index in indexes:
            assert await parts.taken(index, timeout_s=LATE_S)
    parts.end(parts=len(wanted), size=sum(map(len, wanted)))

    assert await taking == wanted
    assert parts.size == sum(map(len, wanted))


async def test_whoever_gave_a_part_waits_until_it_is_taken() -> None:
    parts = Parts(window=2)
    parts.give(0, b"a")

    assert not await parts.taken(0, timeout_s=SOON_S)
    assert await anext(parts) == b"a"
    assert await parts.taken(0, timeout_s=SOON_S)


async def test_no_more_than_the_window_is_held() -> None:
    parts = Parts(window=2)
    parts.give(0, b"a")
    parts.give(1, b"b")

    with pytest.raises(InvalidRequest, match="does not belong"):
        parts.give(2, b"c")
    await anext(parts)
    parts.give(2, b"c")


async def test_a_part_that_comes_again_is_not_taken_twice() -> None:
    parts = Parts(window=2)
    parts.give(0, b"a")
    parts.give(0, b"other")
    taken = await anext(parts)
    parts.give(0, b"other")
    parts.end(parts=1, size=1)

    assert taken == b"a"
    assert await all_of(parts) == []


async def test_a_part_that_was_never_given_is_not_waited_for() -> None:
    with pytest.raises(InvalidRequest, match="never given"):
        await Parts(window=2).taken(0, timeout_s=LATE_S)


@pytest.mark.parametrize(("count", "size"), [(0, 0), (1, 1)])
async def test_an_end_before_what_was_given_is_refused(count: int, size: int) -> None:
    parts = Parts(window=4)
    parts.give(0, b"a")
    parts.give(1, b"b")

    with pytest.raises(InvalidRequest, match="cannot be all"):
        parts.end(parts=count, size=size)


async def test_the_end_waits_for_parts_that_are_missing() -> None:
    parts = Parts(window=4)
    parts.give(1, b"b")
    parts.end(parts=2, size=2)
    taking = asyncio.create_task(all_of(parts))
    await asyncio.wait([taking], timeout=SOON_S)

    assert not taking.done()
    parts.give(0, b"a")
    assert await taking == [b"a", b"b"]


async def test_an_end_may_be_told_again_but_not_otherwise() -> None:
    parts = Parts(window=4)
    parts.end(parts=2, size=2)
    parts.end(parts=2, size=2)

    with pytest.raises(InvalidRequest):
        parts.end(parts=3, size=2)
    with pytest.raises(InvalidRequest, match="does not belong"):
        parts.give(2, b"c")


async def test_bytes_that_got_lost_end_it_with_an_error() -> None:
    parts = Parts(window=4)
    parts.give(0, b"a")
    parts.end(parts=1, size=2)

    with pytest.raises(InvalidRequest, match="1 bytes came, and 2 were sent"):
        await all_of(parts)


async def test_a_failure_reaches_all_who_wait_and_all_who_come() -> None:
    parts = Parts(window=4)
    parts.give(1, b"b")
    waiting = asyncio.create_task(parts.taken(1, timeout_s=LATE_S))
    taking = asyncio.create_task(all_of(parts))
    await asyncio.wait([waiting, taking], timeout=SOON_S)

    parts.fail(Cancelled("gone"))
    parts.fail(Cancelled("a second reason"))

    for told in (waiting, taking, parts.taken(1, timeout_s=LATE_S)):
        with pytest.raises(Cancelled, match="gone"):
            await told
    with pytest.raises(Cancelled, match="gone"):
        parts.give(0, b"a")
    with pytest.raises(Cancelled, match="gone"):
        parts.end(parts=2, size=2)

"""A map of chunks stays small, whatever there is."""

from penstock.errors import ObjectNotFound
from penstock.object_info import OpenedObject
from penstock.objects import ObjectId
from penstock_node.overview.chunk_map import CHUNKS_MAX, _within_bound

CHUNK = 64 * 1024


def opened(name: str, chunks: int) -> OpenedObject:
    return OpenedObject(
        url=f"penstock://m/{name}",
        volume="m",
        id=ObjectId(f"s3://b/{name}", "v", chunks * CHUNK, CHUNK),
        modified=None,
        ticket="",
        ticket_expires_at=0,
        fresh_for_s=0.0,
        sources=(),
        replicas=1,
    )


def test_objects_are_taken_as_long_as_their_chunks_fit_together() -> None:
    half, rest, one = opened("a", CHUNKS_MAX // 2), opened("b", CHUNKS_MAX // 2), opened("c", 1)

    assert _within_bound([half, rest]) == ([half, rest], False)
    assert _within_bound([half, rest, one]) == ([half, rest], True)
    assert _within_bound([half, opened("d", CHUNKS_MAX), one]) == ([half], True)


def test_one_object_that_is_too_large_is_not_shown_in_part() -> None:
    assert _within_bound([opened("a", CHUNKS_MAX + 1)]) == ([], True)


def test_an_object_that_is_gone_since_it_was_listed_is_left_out() -> None:
    there = opened("a", 1)

    assert _within_bound([ObjectNotFound("gone"), there]) == ([there], False)

"""What S3-FIFO keeps and what it gives up."""

import random

import pytest

from penstock_node.store.eviction import GHOSTS_MAX, Reason, S3Fifo

CAPACITY_BYTES = 1000
CHUNK_BYTES = 10
NOBODY: frozenset[bytes] = frozenset()


def ids(start: int, stop: int) -> list[bytes]:
    return [number.to_bytes(16, "big") for number in range(start, stop)]


def policy_with(chunks: list[bytes], *, reason: Reason) -> S3Fifo:
    policy = S3Fifo(capacity_bytes=CAPACITY_BYTES)
    for chunk_id in chunks:
        policy.insert(chunk_id, CHUNK_BYTES, reason=reason)
    return policy


def read(policy: S3Fifo, chunk_id: bytes) -> bool:
    """Read a chunk through a cache of `CAPACITY_BYTES`: whether it was there."""
    if policy.size_of(chunk_id) is not None:
        policy.touch(chunk_id)
        return True
    missing = policy.used_bytes + CHUNK_BYTES - CAPACITY_BYTES
    policy.victims(max(0, missing), in_use=NOBODY)
    policy.insert(chunk_id, CHUNK_BYTES, reason="read")
    return False


def evicted(policy: S3Fifo, bytes_wanted: int) -> list[bytes]:
    return [victim.chunk_id for victim in policy.victims(bytes_wanted, in_use=NOBODY)]


def test_the_oldest_unproven_chunk_goes_first() -> None:
    policy = policy_with(ids(0, 20), reason="read")

    assert evicted(policy, 2 * CHUNK_BYTES) == ids(0, 2)
    assert policy.used_bytes == 18 * CHUNK_BYTES


def test_victims_cover_what_was_wanted_and_no_chunk_more() -> None:
    policy = policy_with(ids(0, 20), reason="read")

    assert len(evicted(policy, 2 * CHUNK_BYTES + 1)) == 3
    assert evicted(policy, 0) == []
    assert len(evicted(policy, 10 * CAPACITY_BYTES)) == 17
    assert (len(policy), policy.used_bytes) == (0, 0)


def test_a_scan_leaves_proven_chunks_alone() -> None:
    policy = S3Fifo(capacity_bytes=CAPACITY_BYTES)
    hot = ids(0, 50)
    for chunk_id in hot * 3:
        read(policy, chunk_id)

    for chunk_id in ids(1000, 2000):
        read(policy, chunk_id)

    assert all(policy.size_of(chunk_id) is not None for chunk_id in hot)


@pytest.mark.parametrize("reason", ["warmup", "handoff", "repair", "restart"])
def test_chunks_that_were_asked_for_outlive_a_scan_before_their_first_read(reason: Reason) -> None:
    policy = policy_with(ids(0, 50), reason=reason)

    for chunk_id in ids(1000, 2000):
        read(policy, chunk_id)

    assert all(policy.size_of(chunk_id) is not None for chunk_id in ids(0, 50))


def test_a_chunk_that_comes_back_soon_is_no_scan() -> None:
    policy = policy_with(ids(0, 20), reason="read")
    assert evicted(policy, CHUNK_BYTES) == ids(0, 1)

    policy.insert(ids(0, 1)[0], CHUNK_BYTES, reason="read")
    for chunk_id in ids(1000, 2000):
        read(policy, chunk_id)

    assert policy.size_of(ids(0, 1)[0]) is not None
    assert policy.size_of(ids(19, 20)[0]) is None


def test_a_used_chunk_of_the_main_queue_gets_as_many_more_rounds_as_uses() -> None:
    policy = policy_with(ids(0, 4), reason="warmup")
    for chunk_id, uses in zip(ids(0, 4), (2, 0, 1, 9), strict=True):
        for _ in range(uses):
            policy.touch(chunk_id)

    order = [evicted(policy, CHUNK_BYTES)[0] for _ in range(4)]

    assert order == [ids(0, 4)[number] for number in (1, 2, 0, 3)]


def test_chunks_in_use_are_passed_over_and_stay() -> None:
    policy = policy_with(ids(0, 20), reason="read")
    in_use = set(ids(0, 5))

    doomed = policy.victims(10 * CAPACITY_BYTES, in_use=in_use)

    assert [victim.chunk_id for victim in doomed] == ids(5, 20)
    assert {victim.chunk_id for victim in policy.chunks()} == in_use


def test_removing_leaves_no_ghost() -> None:
    policy = policy_with(ids(0, 20), reason="read")

    assert policy.remove(ids(3, 4)[0]) == CHUNK_BYTES
    policy.insert(ids(3, 4)[0], CHUNK_BYTES, reason="read")

    assert evicted(policy, 20 * CHUNK_BYTES)[-1] == ids(3, 4)[0]


def test_ghosts_are_bounded() -> None:
    policy = S3Fifo(capacity_bytes=CAPACITY_BYTES)
    for chunk_id in ids(0, 5000):
        read(policy, chunk_id)

    assert policy._ghosts.used_bytes <= CAPACITY_BYTES
    assert GHOSTS_MAX >= len(policy._ghosts) > 0
    assert len(policy._uses) <= len(policy)


def test_loops_over_models_keep_more_than_a_queue_by_last_use_would() -> None:
    """The pattern of model serving: whole models read in loops, a popular one more often."""
    rng = random.Random(7)
    policy, hits = S3Fifo(capacity_bytes=CAPACITY_BYTES), 0
    last_used: dict[bytes, bool] = {}
    hits_by_last_use = 0
    models = [ids(1000 * number, 1000 * number + 60) for number in range(10)]
    for _ in range(300):
        for chunk_id in rng.choices(models, weights=[1 / rank for rank in range(1, 11)])[0]:
            hits += read(policy, chunk_id)
            hits_by_last_use += last_used.pop(chunk_id, None) is not None
            last_used[chunk_id] = True
            if len(last_used) > CAPACITY_BYTES // CHUNK_BYTES:
                del last_used[next(iter(last_used))]

    assert hits > hits_by_last_use > 0


@pytest.mark.parametrize("seed", range(50))
def test_any_history_accounts_for_every_byte(seed: int) -> None:
    rng = random.Random(seed)
    policy, model, in_use = S3Fifo(capacity_bytes=CAPACITY_BYTES), dict[bytes, int](), set[bytes]()
    reasons: list[Reason] = ["read", "read", "read", "warmup", "handoff", "repair", "restart"]
    for _ in range(400):
        chunk_id = rng.choice(ids(0, 60))
        match rng.choice(("insert", "insert", "touch", "remove", "victims", "use")):
            case "insert" if chunk_id not in model:
                model[chunk_id] = rng.randint(1, 60)
                policy.insert(chunk_id, model[chunk_id], reason=rng.choice(reasons))
            case "touch" if chunk_id in model:
                policy.touch(chunk_id)
            case "remove" if chunk_id in model:
                assert policy.remove(chunk_id) == model.pop(chunk_id)
            case "use":
                in_use = set(rng.sample(ids(0, 60), 5))
            case "victims":
                wanted = rng.randint(0, 200)
                doomed = policy.victims(wanted, in_use=in_use)
                sizes = [model.pop(victim.chunk_id) for victim in doomed]
                assert [victim.size_bytes for victim in doomed] == sizes
                assert not in_use & {victim.chunk_id for victim in doomed}
                assert sum(sizes) >= wanted or set(model) <= in_use
                assert sum(sizes[:-1]) < max(1, wanted)
        assert dict(policy.chunks()) == model, f"replay with seed {seed}"
        assert (len(policy), policy.used_bytes) == (len(model), sum(model.values()))

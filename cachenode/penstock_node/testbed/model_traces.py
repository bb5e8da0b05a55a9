"""Reads of model files by chunk, as model servers make them: for judging what a cache keeps.

Responsible for: traces that a name and a seed fix, over objects read whole by a few at a time.
Not responsible for: caches; who replays a trace decides what a hit is.

    zipf      200 models, the k-th most popular is read in proportion to 1/k
    scans     the same, and one read in ten is of a data set that is read once
    rollouts  60 models: a new version is loaded by many at once, the old one fades

Sizes are log-uniform from 100 to 4,000 chunks, a tenth of what models have.
"""

import heapq
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

READERS = 4
RUN_CHUNKS = 8
"""Read by one before it is another's turn."""
MODEL_CHUNKS = (100, 4_000)
DATA_SET_CHUNKS = (400, 4_000)
NAMES = ("zipf", "scans", "rollouts")

ZIPF_MODELS, ZIPF_READS = 200, 1_200
SCAN_SHARE = 0.1
ROLLOUT_MODELS, ROLLOUT_READS = 60, 1_500
ROLLOUT_EXPONENT = 0.9
ROLLOUT_EVERY = 25
"""Reads from one new version to the next."""
REPLICAS = 8
REPLICA_READS = 3
"""From the start of one replica to the next."""
ROLLBACK_SHARE = 0.2
ROLLBACK_READS = 10
"""After which some new versions turn out bad, and the old one is loaded again."""


@dataclass(frozen=True, slots=True)
class Requests:
    """Whole objects, in the order in which their reading begins, and the chunks of each."""

    objects: list[int]
    chunks: list[int]


def trace(name: str, *, seed: int) -> Iterator[tuple[int, int]]:
    """Yield the object and the chunk of each read: fixed by the name, one of `NAMES`, and seed."""
    rng = random.Random(f"{name} {seed}")  # noqa: S311 (no secret)
    match name:
        case "zipf":
            requests = _popular(rng, scan_share=0.0)
        case "scans":
            requests = _popular(rng, scan_share=SCAN_SHARE)
        case _:
            assert name == "rollouts", f"no trace is named {name!r}"
            requests = _replaced(rng)
    return _interleaved(rng, requests)


def _model_chunks(rng: random.Random) -> int:
    smallest, largest = MODEL_CHUNKS
    return round(math.exp(rng.uniform(math.log(smallest), math.log(largest))))


def _ranks(rng: random.Random, count: int, *, exponent: float, draws: int) -> list[int]:
    """Draw ranks from 0 on, each in proportion to its power."""
    weights = list(accumulate((rank + 1) ** -exponent for rank in range(count)))
    return rng.choices(range(count), cum_weights=weights, k=draws)


def _popular(rng: random.Random, *, scan_share: float) -> Requests:
    chunks = [_model_chunks(rng) for _ in range(ZIPF_MODELS)]
    objects = []
    for rank in _ranks(rng, ZIPF_MODELS, exponent=1.0, draws=ZIPF_READS):
        if rng.random() < scan_share:
            objects.append(len(chunks))
            chunks.append(rng.randint(*DATA_SET_CHUNKS))
        else:
            objects.append(rank)  # Sizes are drawn apart from ranks.
    return Requests(objects, chunks)


def _replaced(rng: random.Random) -> Requests:
    chunks = [_model_chunks(rng) for _ in range(ROLLOUT_MODELS)]
    served = list(range(ROLLOUT_MODELS))
    objects: list[int] = []
    planned: list[tuple[float, int]] = []  # When to load which version, in reads.
    ranks = _ranks(rng, ROLLOUT_MODELS, exponent=ROLLOUT_EXPONENT, draws=ROLLOUT_READS)
    replaced = _ranks(rng, ROLLOUT_MODELS, exponent=ROLLOUT_EXPONENT, draws=ROLLOUT_READS)
    for at, rank in enumerate(ranks):
        if at % ROLLOUT_EVERY == ROLLOUT_EVERY - 1:
            model = replaced[at]
            old, served[model] = served[model], len(chunks)
            chunks.append(chunks[old])
            planned += _loads(rng, at, old=old, new=served[model])
            heapq.heapify(planned)
        while planned and planned[0][0] <= at:
            objects.append(heapq.heappop(planned)[1])
        objects.append(served[rank])
    return Requests(objects, chunks)


def _loads(rng: random.Random, at: int, *, old: int, new: int) -> list[tuple[float, int]]:
    loads = [(at + replica * REPLICA_READS + rng.random(), new) for replica in range(REPLICAS)]
    if rng.random() < ROLLBACK_SHARE:
        loads.append((at + ROLLBACK_READS + rng.random(), old))
    return loads


def _interleaved(rng: random.Random, requests: Requests) -> Iterator[tuple[int, int]]:
    """Read objects from first to last chunk, `READERS` of them at a time."""
    waiting = iter(requests.objects)
    reading = [[number, 0] for number, _ in zip(waiting, range(READERS), strict=False)]
    while reading:
        reader = rng.choice(reading)
        number, begin = reader
        end = min(begin + RUN_CHUNKS, requests.chunks[number])
        for index in range(begin, end):
            yield number, index
        reader[1] = end
        if end == requests.chunks[number]:
            reading.remove(reader)
            reading += [
                [following, 0] for following in [next(waiting, None)] if following is not None
            ]

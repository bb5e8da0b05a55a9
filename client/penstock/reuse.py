"""The sample of reads that nodes keep: asking them for it, and its messages.

Responsible for: one sample of a whole cluster's reads; translating `penstock.v1.Reuse`.
Not responsible for: what follows from it (`penstock_node.planning`).
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from penstock.errors import InvalidRequest, PenstockError
from penstock.rpc import Channels, Method
from penstock.sampled_reads import SampledReads, joined
from penstock.v1 import reuse_pb2

SAMPLE = Method("/penstock.v1.Reuse/Sample", reuse_pb2.SampleRequest, reuse_pb2.SampleResponse)
SAMPLE_TIMEOUT_S = 20.0
READS_MAX = 200_000
"""Of the whole cluster: replaying them at one size takes about a second."""
READS_MIN = 2_000
"""Of one node, however many nodes there are."""
ASKED_AT_ONCE = 32
RING_SHARE_MIN = 0.5
"""Of the ring is enough to tell of all of it: chunks are spread by hash."""
WINDOW_SHARE_MIN = 0.8
"""Of the shortest window that is needed for that: nodes whose windows are as long are taken in."""


def ask_all(
    channels: Channels, addresses: Mapping[str, str]
) -> dict[str, SampledReads | PenstockError]:
    """Ask nodes, by their gRPC addresses, for their samples; return each answer, or the error."""
    reads_max = max(READS_MIN, READS_MAX // max(1, len(addresses)))
    request = reuse_pb2.SampleRequest(reads_max=reads_max)

    def ask(address: str) -> SampledReads | PenstockError:
        try:
            answer = channels.call(address, SAMPLE, request, timeout_s=SAMPLE_TIMEOUT_S)
        except PenstockError as error:
            return error
        try:
            return sample_from_proto(answer)
        except InvalidRequest as error:
            return error

    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        return dict(zip(addresses, pool.map(ask, addresses.values()), strict=True))


def cluster_sample(
    samples: Mapping[str, SampledReads], *, shares: Mapping[str, float]
) -> tuple[SampledReads, float] | None:
    """Return the sample of a cluster, and the share of the ring that it tells of.

    A node that was started lately has seen too little: those that have watched for longest are
    taken, until they have half of the ring, and all that have watched for nearly as long. None
    if those that answered have less.

    Args:
        samples: Each node's.
        shares: Of the ring, of each node, from 0 to 1.
    """
    by_age = sorted(samples, key=lambda node: samples[node].begins_at)
    taken: list[SampledReads] = []
    share = 0.0
    for node in by_age:
        sample = samples[node]
        needed_s = taken[-1].duration_s * WINDOW_SHARE_MIN if taken else 0.0
        if share >= RING_SHARE_MIN and sample.duration_s < needed_s:
            break
        taken.append(sample)
        share += shares.get(node, 0.0)
    if share < RING_SHARE_MIN:
        return None
    begins_at = max(sample.begins_at for sample in taken)
    return joined([sample.since(begins_at) for sample in taken]), min(1.0, share)


def sample_to_proto(sample: SampledReads, *, node: str) -> reuse_pb2.SampleResponse:
    """Return a sample as a message."""
    after_us = np.maximum(0.0, (sample.read_times - sample.begins_at) * 1e6).astype(np.uint64)
    return reuse_pb2.SampleResponse(
        node=node,
        threshold=sample.threshold,
        begins_at=sample.begins_at,
        ends_at=sample.ends_at,
        object_digests=sample.object_digests.tolist(),
        object_sizes=sample.object_sizes.tolist(),
        object_chunk_sizes=sample.object_chunk_sizes.tolist(),
        chunk_objects=sample.chunk_objects.tolist(),
        chunk_indexes=sample.chunk_indexes.tolist(),
        read_chunks=sample.read_chunks.tolist(),
        read_after_us=after_us.tolist(),
        read_bytes=sample.read_bytes.tolist(),
        read_counts=sample.read_counts.tolist(),
        read_kinds=sample.read_kinds.tolist(),
    )


def sample_from_proto(message: reuse_pb2.SampleResponse) -> SampledReads:
    """Return a message's sample.

    Raises:
        InvalidRequest: Its columns do not fit together.
    """
    try:
        return _sample_of(message).checked()
    except OverflowError as error:
        raise InvalidRequest(f"a sample of reads: {error}") from None


def _sample_of(message: reuse_pb2.SampleResponse) -> SampledReads:
    after_s = np.array(message.read_after_us, np.float64) / 1e6
    with np.errstate(invalid="ignore"):  # A beginning that is no number is refused by `checked`.
        read_times = message.begins_at + after_s
    return SampledReads(
        threshold=message.threshold,
        begins_at=message.begins_at,
        ends_at=message.ends_at,
        object_digests=np.array(message.object_digests, np.uint64),
        object_sizes=np.array(message.object_sizes, np.uint64),
        object_chunk_sizes=np.array(message.object_chunk_sizes, np.uint32),
        chunk_objects=np.array(message.chunk_objects, np.uint32),
        chunk_indexes=np.array(message.chunk_indexes, np.uint32),
        read_chunks=np.array(message.read_chunks, np.uint32),
        read_times=read_times,
        read_bytes=np.array(message.read_bytes, np.uint64),
        read_counts=np.array(message.read_counts, np.uint16),
        read_kinds=np.array(message.read_kinds, np.uint8),
    )

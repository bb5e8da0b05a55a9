"""What follows when a chunk could not be brought in: trying again, and giving up.

Responsible for: which errors pass, for how long each is waited for.
Not responsible for: which node is asked then (`routing`).
"""

from penstock.errors import (
    NodeUnavailable,
    NotOwner,
    OriginUnavailable,
    Overloaded,
    PenstockError,
    Retryable,
    TicketExpired,
)
from penstock.warm_lines import WarmChunk

PATIENCE_S = 60.0
"""How long a chunk is tried in vain: longer than a lease, and a node's restart."""
HOME_PATIENCE_S = 15.0
"""The same where a node is to have it that does not answer: no other can act in its stead."""
ORIGIN_TRIES = 3
"""A node has tried for long itself before it says that an origin fails."""
BACKOFF_S = 0.1
BACKOFF_MAX_S = 2.0


def is_hopeless(chunk: WarmChunk, error: PenstockError, *, now: float) -> bool:
    """Count an effort in vain that ended ``now``; tell whether it was the last."""
    if chunk.tries == 0:
        chunk.troubled_at = now
    chunk.tries += 1
    if isinstance(error, OriginUnavailable):
        chunk.refusals += 1
        return chunk.refusals >= ORIGIN_TRIES
    if not isinstance(error, Retryable | NotOwner | TicketExpired):
        return True
    is_lost = chunk.home and isinstance(error, NodeUnavailable)
    return now - chunk.troubled_at > (HOME_PATIENCE_S if is_lost else PATIENCE_S)


def delay_s(chunk: WarmChunk, error: PenstockError) -> float:
    """Return how long to wait until a chunk is asked for again."""
    if isinstance(error, TicketExpired) and chunk.tries == 1:
        return 0.0
    backoff_s = min(BACKOFF_MAX_S, BACKOFF_S * 2.0 ** min(chunk.tries - 1, 10))
    return max(backoff_s, error.retry_after_s) if isinstance(error, Overloaded) else backoff_s

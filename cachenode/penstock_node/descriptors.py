"""How many files and connections the node may have open at once.

Responsible for: asking the kernel for as many as it allows, and saying when that is few.
Not responsible for: what happens when they run out; whoever opens a file knows that.
"""

import resource

import structlog

ENOUGH = 65_536
"""Ten thousand connections, the chunks that they read, and as much again."""

_log = structlog.get_logger(__name__)


def raise_descriptor_limit() -> int:
    """Raise this process's limit as far as it may go; return what it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    is_few = hard != resource.RLIM_INFINITY and hard < ENOUGH
    if is_few:
        _log.warning(
            "few descriptors",
            limit=hard,
            advice=f"raise the hard limit to {ENOUGH} (LimitNOFILE= of systemd, ulimit -Hn): each "
            f"connection and each chunk that is being read takes one",
        )
    return hard

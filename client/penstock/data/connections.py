"""One connection of a process to each cluster that its datasets read from.

Responsible for: making it when it is first needed, in whichever process that is, and closing it
when the process ends.
Not responsible for: what a fork does to a connection (`penstock.cache`).
"""

import os
import threading
from multiprocessing.util import Finalize

from penstock.cache import Cache, connect

_caches: dict[str | None, Cache] = {}
_knows_cluster: set[str | None] = set()
"""Those of whose cluster this process has heard: only then is this machine's node found."""
_lock = threading.Lock()
_closes_in_pid = 0


def cache_of(address: str | None) -> Cache:
    """Return this process's connection to a cluster.

    Args:
        address: As `penstock.connect` takes it.

    Raises:
        InvalidRequest: It is no address.
        ClusterUnavailable: No node answers.
    """
    with _lock:
        cache = _caches[address] = _caches.get(address) or connect(address)
        _close_at_exit()
        if address not in _knows_cluster:
            _ = cache.cluster_view
            _knows_cluster.add(address)
        return cache


def _close_at_exit() -> None:
    """Have them closed at this process's end; a worker's end comes without `atexit`."""
    global _closes_in_pid
    if _closes_in_pid != os.getpid():
        _closes_in_pid = os.getpid()
        Finalize(None, _close_all, exitpriority=1)


def _close_all() -> None:
    _knows_cluster.clear()
    while _caches:
        _caches.popitem()[1].close()


def _after_fork_in_child() -> None:
    """Another thread may have held the lock. The caches themselves begin anew."""
    global _lock
    _lock = threading.Lock()
    _knows_cluster.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)

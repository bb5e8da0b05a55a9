"""Giving a store back what it lost, from what this node knows.

Responsible for: the transactions that bring a wiped store, or one restored from an old backup,
to the newest placement that any node knows, so that no epoch moves and nobody is dropped. Pure.
Not responsible for: members (each node registers anew), deciding that it is needed (`memory`),
carrying it out (`publisher`).

Every transaction holds only while the store's placement is the one it was planned against, so
that of several nodes the one with the highest epoch wins. The placement comes last: until it
is there the store counts as behind, and whoever finds it half restored goes on.
"""

from dataclasses import dataclass

from penstock_node.coordination import records
from penstock_node.coordination.state import ClusterState

_OPERATORS = (records.WEIGHTS, records.VOLUMES, records.PINS)
"""What operators write, and remove."""
KEYS_A_TRANSACTION_MAX = 64
"""etcd takes 128 operations a transaction unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """Arguments of one commit."""

    conditions: dict[str, int]
    puts: dict[str, bytes]
    deletes: tuple[str, ...] = ()


def plan_restoration(stored: ClusterState, known: ClusterState) -> list[Transaction]:
    """Return what to commit, in order, to a store that is behind ``known``.

    A wiped store gets back what is absent; what somebody has written there since stays. A store
    from an old backup has an earlier epoch, and its values of that time yield to ours: settings,
    weights, volumes and pins become as they were at the newer epoch, those removed since included.
    Ticket keys that the backup has and we do not were revoked since, or their time is over: they
    go; one that is newer than all of ours stays, others wrote it after.
    """
    puts = {
        key: entry.value for key, entry in known.entries.items() if _is_lost(key, stored, known)
    }
    deletes = [key for key in stored.entries if has_come_back(key, stored, known)]
    work = [*puts, *deletes]
    batches = (
        work[start : start + KEYS_A_TRANSACTION_MAX]
        for start in range(0, len(work), KEYS_A_TRANSACTION_MAX)
    )
    transactions = [_transaction(batch, puts, stored) for batch in batches]
    return [*transactions, _placement(stored, known)]


def _transaction(keys: list[str], puts: dict[str, bytes], stored: ClusterState) -> Transaction:
    return Transaction(
        conditions={key: stored.mod_revision(key) for key in (records.PLACEMENT, *keys)},
        puts={key: puts[key] for key in keys if key in puts},
        deletes=tuple(key for key in keys if key not in puts),
    )


def _placement(stored: ClusterState, known: ClusterState) -> Transaction:
    key = records.PLACEMENT
    return Transaction({key: stored.mod_revision(key)}, {key: known.entries[key].value})


def _is_lost(key: str, stored: ClusterState, known: ClusterState) -> bool:
    if key == records.PLACEMENT or key.startswith(records.MEMBERS):
        return False
    if key not in stored.entries:
        return _is_ours(key)
    return _yields(key, stored) and stored.entries[key].value != known.entries[key].value


def _is_ours(key: str) -> bool:
    """Tell whether nodes put ``key`` back; leases of others (the catalog's) are theirs."""
    families = (records.NODES, records.TICKET_KEYS, *_OPERATORS)
    return key == records.SETTINGS or key.startswith(families)


def _yields(key: str, stored: ClusterState) -> bool:
    """Tell whether the stored value of ``key`` is of the backup's time."""
    if stored.placement is None:
        return False  # Wiped: what is there was written after.
    if key.startswith(records.NODES):
        # A living node has put its own record, and knows best.
        return key.removeprefix(records.NODES) not in stored.members
    return key == records.SETTINGS or key.startswith(_OPERATORS)


def has_come_back(key: str, stored: ClusterState, known: ClusterState) -> bool:
    """Tell whether a store that is behind has ``key`` only since its backup is so old."""
    if stored.placement is None or key in known.entries:
        return False
    return key.startswith(_OPERATORS) or _is_old_key(key, stored, known)


def _is_old_key(key: str, stored: ClusterState, known: ClusterState) -> bool:
    """Tell whether ``key`` is a ticket key from before the newest that we know."""
    old = stored.ticket_keys.get(key.removeprefix(records.TICKET_KEYS))
    if old is None or not key.startswith(records.TICKET_KEYS):
        return False
    return any(old.created_at < each.created_at for each in known.ticket_keys.values())

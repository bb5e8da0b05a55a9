"""Ticket keys: a new one each day, the old ones kept for as long as tickets live.

Responsible for: which keys to add, retire and prune at a moment, as one transaction that only
one of several nodes can win; likewise when an operator has them changed or revoked. Pure.
Not responsible for: which key signs and verifies (`penstock.ticket`), the cluster's first key
(`publisher` makes it together with the cluster).
"""

from dataclasses import replace

from penstock.errors import Conflict
from penstock.membership.coordinator import ABSENT
from penstock.settings import ClusterSettings
from penstock.ticket import SIGNS_AFTER_S, VERIFIES_AFTER_RETIREMENT_S, TicketKey
from penstock_node.coordination import records
from penstock_node.coordination.clock import Clock
from penstock_node.coordination.restore import Transaction
from penstock_node.coordination.state import ClusterState

PRUNING_MARGIN_S = 3600
"""Clocks of nodes differ; a key is pruned only when no node can need it."""
KEYS_MAX = 48
"""All of them are revoked by one transaction, and etcd takes 128 operations. By themselves keys
are at most 27: one an hour."""
SECRET_BYTES = 32
_ID_RANDOM_BYTES = 8


def new_key(clock: Clock) -> TicketKey:
    """Return a key that nobody else has."""
    return TicketKey(
        id=clock.random_bytes(_ID_RANDOM_BYTES).hex(),
        secret=clock.random_bytes(SECRET_BYTES),
        created_at=clock.wall(),
    )


def put_of(key: TicketKey) -> dict[str, bytes]:
    """Return the write that stores ``key``."""
    return {records.TICKET_KEYS + key.id: records.ticket_key_to_json(key)}


def plan_rotation(state: ClusterState, clock: Clock) -> Transaction | None:
    """Return what is due for the keys of a cluster that has formed, or None.

    The new key and the retirement of the newest are one transaction, on the condition that the
    newest is as seen: of all nodes that find the rotation due, one makes a key.
    """
    keys, now = sorted(state.ticket_keys.values(), key=lambda key: key.created_at), clock.wall()
    if not keys:
        return _replacement(state, clock)
    rotation_s = (state.settings or ClusterSettings()).ticket_key_rotation_s
    if keys[-1].created_at + rotation_s <= now:
        return _succession(state, keys[-1], clock)
    for key in keys[:-1]:
        if key.retired_at is None:
            # Two first keys after a restoration: one of them goes the usual way.
            return _swap(state, key, puts=put_of(replace(key, retired_at=now + SIGNS_AFTER_S)))
        if key.retired_at + VERIFIES_AFTER_RETIREMENT_S + PRUNING_MARGIN_S < now:
            name = records.TICKET_KEYS + key.id
            return Transaction({name: state.mod_revision(name)}, {}, (name,))
    return None


def plan_new_key(state: ClusterState, clock: Clock) -> Transaction:
    """Return what puts another key in the place of the one that signs, without a gap.

    Raises:
        Conflict: There are too many whose tickets are still good.
    """
    if not state.ticket_keys:
        return _replacement(state, clock)
    if len(state.ticket_keys) >= KEYS_MAX:
        raise Conflict(
            f"there are {KEYS_MAX} ticket keys already, whose tickets are good for a day yet; "
            "penstock tickets rotate --revoke ends them all"
        )
    newest = max(state.ticket_keys.values(), key=lambda key: key.created_at)
    return _succession(state, newest, clock)


def plan_revocation(state: ClusterState, clock: Clock) -> Transaction:
    """Return what ends every key at once, and has a new one sign from now on."""
    if not state.ticket_keys:
        return _replacement(state, clock)
    gone = [records.TICKET_KEYS + key_id for key_id in state.ticket_keys]
    conditions = {name: state.mod_revision(name) for name in gone}
    return Transaction(conditions, put_of(new_key(clock)), tuple(gone))


def _succession(state: ClusterState, key: TicketKey, clock: Clock) -> Transaction:
    # The successor signs from then on, and not before: until then every node has seen it.
    retired = replace(key, retired_at=clock.wall() + SIGNS_AFTER_S)
    return _swap(state, key, puts=put_of(retired) | put_of(new_key(clock)))


def _swap(state: ClusterState, key: TicketKey, *, puts: dict[str, bytes]) -> Transaction:
    name = records.TICKET_KEYS + key.id
    return Transaction({name: state.mod_revision(name)}, puts)


def _replacement(state: ClusterState, clock: Clock) -> Transaction:
    """Return a key for a cluster that lost all: under one name, so that only one is made."""
    revision = state.mod_revision(records.PLACEMENT)
    key = replace(new_key(clock), id=f"after-{revision}")
    name = records.TICKET_KEYS + key.id
    return Transaction({records.PLACEMENT: revision, name: ABSENT}, put_of(key))

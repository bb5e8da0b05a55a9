"""Rotation of ticket keys, day by day: no coordinator, a clock set by hand."""

import itertools
from dataclasses import dataclass, field

import pytest

from penstock.errors import Conflict, TicketExpired
from penstock.membership.coordinator import Changes, Entry
from penstock.objects import ObjectId
from penstock.settings import ClusterSettings
from penstock.ticket import RENEWABLE_S, Ticket, TicketKeys
from penstock_node.coordination import keys, records
from penstock_node.coordination.clock import Clock
from penstock_node.coordination.restore import Transaction
from penstock_node.coordination.state import ClusterState

DAY_S = 24 * 3600.0
UID = "ab" * 16


@dataclass
class Store:
    """A store that one or more nodes rotate keys in."""

    now: float = 1_000_000.0
    state: ClusterState = field(default_factory=ClusterState)

    def __post_init__(self) -> None:
        draws = itertools.count(1)
        self.clock = Clock(
            wall=lambda: self.now, random_bytes=lambda size: next(draws).to_bytes(size)
        )

    def commit(self, transaction: Transaction) -> bool:
        """Apply it, if its conditions hold."""
        conditions = transaction.conditions.items()
        if any(self.state.mod_revision(key) != held for key, held in conditions):
            return False
        revision = self.state.revision + 1
        puts = [(key, Entry(value, revision)) for key, value in transaction.puts.items()]
        deletes = [(key, None) for key in transaction.deletes]
        self.state = self.state.apply(Changes((*puts, *deletes), revision))
        return True

    def rotate(self) -> None:
        """Do all that is due."""
        while (transaction := keys.plan_rotation(self.state, self.clock)) is not None:
            assert self.commit(transaction)

    def with_first_key(self) -> "Store":
        self.commit(Transaction({}, keys.put_of(keys.new_key(self.clock))))
        return self

    @property
    def keys(self) -> TicketKeys:
        return self.state.keys


def signed_by(store: Store) -> str:
    key = store.keys.signing_key(now=store.now)
    assert key is not None
    return key.id


def test_nothing_is_due_for_a_day() -> None:
    store = Store().with_first_key()
    store.now += DAY_S - 1

    assert keys.plan_rotation(store.state, store.clock) is None


def test_a_new_key_signs_only_when_all_have_seen_it_and_the_old_one_until_then() -> None:
    store = Store().with_first_key()
    (old,) = store.state.ticket_keys
    store.now += DAY_S
    store.rotate()
    (new,) = store.state.ticket_keys.keys() - {old}

    assert signed_by(store) == old
    store.now += 59
    assert signed_by(store) == old
    store.now += 1
    assert signed_by(store) == new
    assert store.state.ticket_keys[old].retired_at == store.now


def test_of_several_nodes_that_find_it_due_one_makes_a_key() -> None:
    store = Store().with_first_key()
    store.now += DAY_S
    plans = [keys.plan_rotation(store.state, store.clock) for _ in range(3)]

    won = [plan is not None and store.commit(plan) for plan in plans]

    assert won == [True, False, False]
    assert len(store.state.ticket_keys) == 2


def test_over_a_month_every_ticket_can_be_renewed_for_a_day_and_keys_stay_few() -> None:
    store, tickets = Store().with_first_key(), list[tuple[float, str]]()
    for _ in range(30 * 24):
        store.now += 3600.0
        store.rotate()
        subject = ObjectId("s3://models/x", "etag", 1, 65536)
        ticket = Ticket(UID, "models", subject, round(store.now) + 900)
        tickets.append((store.now, store.keys.sign(ticket, now=store.now)))
        for signed_at, token in tickets:
            if signed_at + RENEWABLE_S >= store.now:
                store.keys.verify_for_renewal(token, cluster_uid=UID, now=store.now)
        assert len(store.state.ticket_keys) <= 4


def test_a_cluster_that_lost_all_keys_gets_one_from_whoever_is_first() -> None:
    store = Store()
    plans = [keys.plan_rotation(store.state, store.clock) for _ in range(3)]

    won = [plan is not None and store.commit(plan) for plan in plans]

    assert won == [True, False, False]
    assert len(store.state.ticket_keys) == 1


def test_of_two_first_keys_the_older_is_retired() -> None:
    store = Store().with_first_key()
    store.now += 1
    store.with_first_key()

    store.rotate()

    assert [key.retired_at is None for key in store.state.ticket_keys.values()] == [False, True]


def test_the_setting_says_how_often() -> None:
    store = Store().with_first_key()
    hourly = records.settings_to_json(ClusterSettings(ticket_key_rotation_s=3600.0))
    store.commit(Transaction({}, {records.SETTINGS: hourly}))
    store.now += 3599

    assert keys.plan_rotation(store.state, store.clock) is None
    store.now += 1
    assert keys.plan_rotation(store.state, store.clock) is not None


def a_ticket(store: Store) -> str:
    subject = ObjectId("s3://models/x", "etag", 1, 65536)
    ticket = Ticket(UID, "models", subject, round(store.now) + 900)
    return store.keys.sign(ticket, now=store.now)


def test_a_key_that_an_operator_wants_comes_as_by_itself_and_no_ticket_is_lost() -> None:
    store = Store().with_first_key()
    before, old = a_ticket(store), signed_by(store)

    for _ in range(3):  # The one before does not even sign yet.
        assert store.commit(keys.plan_new_key(store.state, store.clock))
        store.now += 10
    a_ticket(store)
    store.now += 60

    assert signed_by(store) not in (old, "")
    assert store.state.ticket_keys[old].retired_at is not None
    store.keys.verify(before, cluster_uid=UID, now=store.now)


def test_keys_that_operators_want_are_bounded() -> None:
    store = Store().with_first_key()
    for _ in range(keys.KEYS_MAX - 1):
        assert store.commit(keys.plan_new_key(store.state, store.clock))
        store.now += 1

    with pytest.raises(Conflict, match="--revoke"):
        keys.plan_new_key(store.state, store.clock)
    assert store.commit(keys.plan_revocation(store.state, store.clock))
    assert len(store.state.ticket_keys) == 1


def test_a_revoked_key_is_believed_no_longer_and_the_new_one_signs_at_once() -> None:
    store = Store().with_first_key()
    store.now += DAY_S
    store.rotate()
    stolen = a_ticket(store)

    assert store.commit(keys.plan_revocation(store.state, store.clock))

    for verify in (store.keys.verify, store.keys.verify_for_renewal):
        with pytest.raises(TicketExpired, match="is gone"):
            verify(stolen, cluster_uid=UID, now=store.now)
    store.keys.verify(a_ticket(store), cluster_uid=UID, now=store.now)
    assert keys.plan_rotation(store.state, store.clock) is None


def test_a_key_that_comes_while_all_are_revoked_is_revoked_too() -> None:
    store = Store().with_first_key()
    planned = keys.plan_revocation(store.state, store.clock)
    assert store.commit(keys.plan_new_key(store.state, store.clock))

    assert not store.commit(planned)

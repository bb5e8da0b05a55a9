"""What a node believes, and gives back, when the store was wiped or restored from a backup."""

from collections.abc import Mapping

import pytest

from penstock.membership.coordinator import Entry, Listing
from penstock.membership.view import Member
from penstock.placement import PlacedNode, Placement
from penstock.ticket import TicketKey
from penstock_node.coordination import records
from penstock_node.coordination.clock import Clock
from penstock_node.coordination.memory import LINGER_LEASES, Memory, is_behind
from penstock_node.coordination.records import MemberRecord, WeightOverride
from penstock_node.coordination.restore import KEYS_A_TRANSACTION_MAX, plan_restoration
from penstock_node.coordination.state import ClusterState

UID, OTHER_UID = "ab" * 16, "cd" * 16
LEASE_S = 10.0


def placement(epoch: int, uid: str = UID) -> dict[str, bytes]:
    nodes = (PlacedNode("a", "host", "", 100),)
    return {"placement": Placement(uid, epoch, nodes, 4096).to_json()}


def member(node: str) -> dict[str, bytes]:
    record = MemberRecord(Member(node, "host"), machine_id="m", state_dir_hash="h")
    return {f"members/{node}": records.member_to_json(record)}


def weight(node: str, value: int) -> dict[str, bytes]:
    return {f"weights/{node}": records.weight_to_json(WeightOverride(value, "", 0.0))}


def node_record(node: str, capacity: int) -> dict[str, bytes]:
    value = b'{"host": "h", "owned_capacity_bytes": %d}' % capacity
    return {f"nodes/{node}": value}


def state(values: Mapping[str, bytes], *, revision: int = 5, store_id: int = 1) -> ClusterState:
    entries = {key: Entry(value, revision) for key, value in values.items()}
    return ClusterState.from_listing(Listing(entries, revision, store_id))


class Watched:
    """A memory, and a clock that the test moves."""

    def __init__(self, remembered: ClusterState | None = None) -> None:
        self.now = 0.0
        self.memory = Memory(clock=Clock(monotonic=lambda: self.now), remembered=remembered)

    def hears(self, stored: ClusterState) -> ClusterState:
        self.memory.absorb(stored)
        return self.memory.known


# What is believed --------------------------------------------------------------------------


def test_what_the_store_says_is_what_is_known() -> None:
    watched, told = Watched(), state({**placement(3), **member("a")})

    assert watched.hears(told) is told
    assert watched.memory.losses == 0


@pytest.mark.parametrize("stored", [{}, placement(2)])
def test_a_store_that_lost_the_placement_is_behind(stored: dict[str, bytes]) -> None:
    assert is_behind(state(stored), state(placement(3)))


@pytest.mark.parametrize(
    "stored", [placement(3), placement(4), placement(1, OTHER_UID), {"placement": b"of tomorrow"}]
)
def test_a_newer_an_equal_anothers_and_an_unreadable_placement_are_not_behind(
    stored: dict[str, bytes],
) -> None:
    assert not is_behind(state(stored), state(placement(3)))


@pytest.mark.parametrize("lost", [{}, placement(2), {**placement(1), **weight("a", 5)}])
def test_the_placement_and_its_inputs_never_go_backwards(lost: dict[str, bytes]) -> None:
    watched = Watched()
    before = watched.hears(state({**placement(3), **weight("a", 50)}))

    after = watched.hears(state(lost, revision=1))

    assert after.placement == before.placement
    assert after.weights == before.weights


def test_an_unreadable_placement_leaves_the_last_one_in_force_and_the_rest_moves_on() -> None:
    watched = Watched()
    before = watched.hears(state({**placement(3), **weight("a", 50)}))

    after = watched.hears(state({"placement": b"of tomorrow", **weight("a", 60)}, revision=6))

    assert after.placement == before.placement
    assert after.weights["a"].weight == 60


def test_another_clusters_placement_is_believed() -> None:
    watched = Watched()
    watched.hears(state(placement(30)))

    after = watched.hears(state(placement(1, OTHER_UID), store_id=2))

    assert after.placement is not None
    assert after.placement.cluster_uid == OTHER_UID


def test_members_of_a_lost_store_are_shown_until_they_could_have_come_back() -> None:
    watched = Watched()
    watched.hears(state({**placement(3), **member("a"), **member("b")}))

    assert watched.hears(state({}, revision=1)).members.keys() == {"a", "b"}
    assert watched.memory.losses == 1
    restored = {**placement(3), **member("a")}
    assert watched.hears(state(restored, revision=2)).members.keys() == {"a", "b"}

    watched.now += LINGER_LEASES * LEASE_S
    watched.memory.refresh()
    assert watched.memory.known.members.keys() == {"a"}


def test_a_member_that_leaves_a_store_that_is_whole_is_gone_at_once() -> None:
    watched = Watched()
    watched.hears(state({**placement(3), **member("a"), **member("b")}))

    assert watched.hears(state({**placement(3), **member("a")}, revision=6)).members.keys() == {"a"}


def test_members_that_vanish_after_an_interruption_have_time_to_come_back() -> None:
    watched = Watched()
    watched.hears(state({**placement(3), **member("a"), **member("b")}))
    watched.memory.interrupted()
    watched.now += LEASE_S
    watched.memory.interrupted()  # A moment before it is over.

    after = watched.hears(state({**placement(3), **member("c")}, revision=6))
    assert after.members.keys() == {"a", "b", "c"}
    assert watched.memory.losses == 0

    watched.now += LINGER_LEASES * LEASE_S
    watched.memory.refresh()
    assert watched.memory.known.members.keys() == {"c"}


def test_a_member_that_leaves_long_after_an_interruption_is_gone_at_once() -> None:
    watched = Watched()
    watched.hears(state({**placement(3), **member("a"), **member("b")}))
    watched.memory.interrupted()
    watched.now += LINGER_LEASES * LEASE_S

    assert watched.hears(state({**placement(3), **member("a")}, revision=6)).members.keys() == {"a"}


def test_a_remembered_view_counts_until_the_store_speaks() -> None:
    remembered = state({**placement(3), **member("a"), **member("b")})
    watched = Watched(remembered)
    assert watched.memory.known is remembered

    after = watched.hears(state({**placement(4), **member("a")}, revision=9))

    assert after.epoch == 4
    assert after.members.keys() == {"a"}


def test_before_a_cluster_has_formed_only_the_store_counts() -> None:
    watched = Watched()
    watched.hears(state(weight("a", 5)))

    assert watched.hears(state({}, revision=6)).weights == {}


# What is given back ------------------------------------------------------------------------


def restored(stored: ClusterState, known: ClusterState) -> ClusterState:
    """Carry a plan out and return the store's state; every condition must hold."""
    entries, revision = dict(stored.entries), stored.revision
    first_placement = stored.mod_revision("placement")
    for transaction in plan_restoration(stored, known):
        assert transaction.conditions["placement"] == first_placement
        assert len(transaction.conditions) <= KEYS_A_TRANSACTION_MAX + 1
        for key, held in transaction.conditions.items():
            assert (entries[key].mod_revision if key in entries else 0) == held
        revision += 1
        for key, value in transaction.puts.items():
            entries[key] = Entry(value, revision)
        for key in transaction.deletes:
            del entries[key]
    return ClusterState.from_listing(Listing(entries, revision, stored.store_id))


def test_a_wiped_store_gets_everything_back_but_members_and_what_was_written_since() -> None:
    known = state(
        {
            **placement(3),
            **member("a"),
            **weight("a", 50),
            **weight("b", 60),
            **node_record("a", 8),
            "settings": b"{}",
            "volumes/models": b"{}",
            "secret/ticket_keys/k": b"{}",
            "catalog": b"leased by another",
        }
    )
    stored = state(weight("b", 99), revision=2, store_id=2)

    after = restored(stored, known)

    assert after.placement == known.placement
    assert {node: o.weight for node, o in after.weights.items()} == {"a": 50, "b": 99}
    assert after.entries.keys() == known.entries.keys() - {"members/a", "catalog"}
    assert not is_behind(after, known)


def test_the_placement_comes_last() -> None:
    known = state({**placement(3), **weight("a", 50)})

    plan = plan_restoration(state({}), known)

    assert ["placement" in transaction.puts for transaction in plan] == [False, True]


def test_an_old_backups_values_yield_to_those_of_the_newer_epoch() -> None:
    known = state({**placement(9), **weight("a", 50), **node_record("a", 8), "volumes/v": b"{}"})
    backup = state(
        {
            **placement(4),
            **weight("a", 10),
            **weight("gone", 10),
            "volumes/gone": b"{}",
            **node_record("a", 4),
        },
        revision=2,
    )

    after = restored(backup, known)

    assert after.placement == known.placement
    assert {node: o.weight for node, o in after.weights.items()} == {"a": 50}
    assert after.volumes.keys() == {"v"}
    assert after.nodes["a"].owned_capacity_bytes == 8


def ticket_key(key_id: str, created_at: float) -> dict[str, bytes]:
    key = TicketKey(key_id, b"s" * 32, created_at)
    return {f"secret/ticket_keys/{key_id}": records.ticket_key_to_json(key)}


def test_a_revoked_ticket_key_does_not_come_back_with_an_old_backup() -> None:
    known = state({**placement(9), **ticket_key("new", 50.0)})
    later = ticket_key("later", 60.0)
    backup = state({**placement(4), **ticket_key("leaked", 10.0), **later}, revision=2)
    watched = Watched()
    watched.hears(known)

    meanwhile = watched.hears(backup)

    assert meanwhile.ticket_keys.keys() == {"new", "later"}
    assert restored(backup, meanwhile).ticket_keys.keys() == {"new", "later"}


def test_an_operators_change_is_not_undone_while_an_old_backup_is_mended() -> None:
    known = state({**placement(9), **weight("a", 50)})
    backup = state({**placement(4), **weight("gone", 10)}, revision=2)
    watched = Watched()
    watched.hears(known)

    meanwhile = watched.hears(backup)

    assert restored(backup, meanwhile).weights.keys() == {"a"}


def test_the_record_of_a_node_that_is_alive_is_its_own_to_write() -> None:
    known = state({**placement(9), **node_record("a", 8)})
    backup = state({**placement(4), **node_record("a", 4), **member("a")})

    assert restored(backup, known).nodes["a"].owned_capacity_bytes == 4


def test_the_highest_epoch_wins_whoever_comes_first() -> None:
    knows_less = state({**placement(6), **weight("a", 60)})
    knows_more = state({**placement(7), **weight("a", 70)})

    stored = restored(state({}, revision=1), knows_less)
    assert is_behind(stored, knows_more)
    stored = restored(stored, knows_more)

    assert stored.epoch == 7
    assert stored.weights["a"].weight == 70
    assert not is_behind(stored, knows_less)


def test_a_thousand_overrides_fit_into_what_a_transaction_may_hold() -> None:
    overrides: dict[str, bytes] = {}
    for index in range(1000):
        overrides |= weight(f"n{index}", index)

    after = restored(state({}), state({**placement(3), **overrides}))

    assert len(after.weights) == 1000

"""When a new cluster forms."""

import pytest

from penstock_node.coordination.formation import AT_ONCE, Formation, FormationTimes

TIMES = FormationTimes(quiet_s=2.0, longest_s=10.0)


def test_a_cluster_forms_when_no_new_node_came_for_the_quiet_time() -> None:
    formation = Formation(TIMES)

    assert formation.due_at({"a"}, now=100.0) == 102.0
    assert formation.due_at({"a"}, now=101.0) == 102.0
    assert formation.due_at({"a", "b"}, now=101.5) == 103.5


def test_nodes_that_keep_coming_do_not_put_it_off_for_ever() -> None:
    formation, nodes = Formation(TIMES), set[str]()

    for second in range(12):
        nodes.add(f"n{second}")
        due_at = formation.due_at(nodes, now=100.0 + second)

    assert due_at == 110.0


def test_a_node_that_restarts_is_not_new() -> None:
    formation = Formation(TIMES)
    formation.due_at({"a", "b"}, now=100.0)
    formation.due_at({"a"}, now=101.0)

    assert formation.due_at({"a", "b"}, now=101.5) == 102.0


def test_there_is_nothing_to_form_without_nodes() -> None:
    formation = Formation(TIMES)
    formation.due_at({"a"}, now=100.0)

    assert formation.due_at(set(), now=105.0) is None
    assert formation.due_at({"a"}, now=120.0) == 122.0


@pytest.mark.parametrize("now", [0.0, 1e6])
def test_a_coordinator_in_process_waits_for_nobody(now: float) -> None:
    assert Formation(AT_ONCE).due_at({"only"}, now=now) == now

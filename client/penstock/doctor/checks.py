"""All checks, in the order in which their results are read: first what others depend on."""

from collections.abc import Callable, Iterable, Sequence

from penstock.doctor.checks_catalog import check_catalog
from penstock.doctor.checks_cluster import check_asker, check_hot_chunks, check_settings
from penstock.doctor.checks_disks import check_disks, check_limits
from penstock.doctor.checks_etcd import check_etcd
from penstock.doctor.checks_links import check_links, check_ports, check_tickets
from penstock.doctor.checks_nodes import check_clocks, check_nodes, check_placement
from penstock.doctor.checks_origins import check_origins
from penstock.doctor.checks_weights import check_weights
from penstock.doctor.facts import Facts
from penstock.doctor.finding import SEVERITIES, Checked, Finding

Check = Callable[[Facts], Checked]

CHECKS: Sequence[Check] = (
    check_etcd,
    check_nodes,
    check_placement,
    check_clocks,
    check_tickets,
    check_ports,
    check_links,
    check_disks,
    check_limits,
    check_origins,
    check_catalog,
    check_weights,
    check_settings,
    check_hot_chunks,
    check_asker,
)


def judge(facts: Facts) -> list[Checked]:
    """Return what each check finds."""
    return [check(facts) for check in CHECKS]


def worst_first(checked: Iterable[Checked]) -> list[Finding]:
    """Return all findings: problems, then warnings, then advice; within each by place."""
    found = [finding for each in checked for finding in each.findings]
    return sorted(found, key=lambda each: (SEVERITIES.index(each.severity), str(each.place)))

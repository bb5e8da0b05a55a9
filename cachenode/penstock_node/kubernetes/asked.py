"""What a node's configuration asks Kubernetes for, as parts; nothing is asked here."""

from pathlib import Path

from penstock_node.config_sections import KubernetesSection
from penstock_node.kubernetes.connection import Connection
from penstock_node.kubernetes.follower import Follower
from penstock_node.kubernetes.machine import Machines
from penstock_node.kubernetes.upkeep import Upkeep
from penstock_node.kubernetes.wishes import DrainRules, TaintRule


def upkeep_of(section: KubernetesSection, *, state_dir: Path) -> Upkeep:
    """Return what follows the machine that a node runs on.

    Raises:
        InvalidConfiguration: See `Connection`.
    """
    rules = DrainRules(
        section.drain_on_cordon,
        section.drain_within,
        [
            TaintRule.parsed(each.taint, within_s=each.within or section.drain_within)
            for each in section.drain_taints
        ],
    )
    machines = Machines(Connection(kubeconfig=section.kubeconfig), name=section.node_name)
    return Upkeep(Follower(machines), rules, state_dir=state_dir)

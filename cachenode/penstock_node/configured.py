"""What a node's configuration asks for, as parts that a node is put together from.

Responsible for: choosing the coordinator, and translating configuration into what the parts
take. Nothing is started here.
"""

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from penstock.errors import InvalidConfiguration
from penstock.etcd import Etcd, EtcdMember, EtcdTls
from penstock.membership.coordinator import Coordinator
from penstock.membership.standalone import Standalone
from penstock.membership.view import Member
from penstock_node.config import NodeConfig
from penstock_node.config_loaded import LoadedKeys
from penstock_node.coordination import Announcement, ClusterDefaults, Coordination
from penstock_node.coordination.formation import AT_ONCE, FormationTimes
from penstock_node.identity import incarnation, machine_id
from penstock_node.node_file import NodeFile
from penstock_node.origin import SecretSettings
from penstock_node.store.tier import Tier

if TYPE_CHECKING:
    from penstock_node.kubernetes.upkeep import Upkeep


def refuse_what_is_missing(config: LoadedKeys) -> None:
    """Refuse what this version cannot do, rather than ignore it.

    Raises:
        InvalidConfiguration: Bearer tokens are asked for.
    """
    if config.auth is not None:
        raise InvalidConfiguration(
            "[auth]: this version does not check bearer tokens; use [tls] with ca, so that "
            "clients show certificates, and remove [auth]"
        )


def coordinator(config: LoadedKeys) -> Coordinator:
    """Return what the cluster is coordinated through; nothing is sent yet."""
    etcd = config.etcd
    if etcd is None:
        return Standalone(config.state_dir / "standalone.json")
    secure = any(endpoint.startswith("https:") for endpoint in etcd.endpoints)
    return Etcd(
        etcd.endpoints,
        prefix=f"/penstock/v1/{config.cluster}/",
        tls=EtcdTls(ca=etcd.ca, cert=etcd.cert, key=etcd.key) if secure else None,
        username=etcd.username or None,
        password=config.resolve_etcd_password() or None,
    )


async def etcd_members(asked: Coordinator, deadline_s: float) -> Sequence[EtcdMember]:
    """Return what each member of etcd tells of itself; nothing where there is no etcd."""
    return await asked.members(deadline_s=deadline_s) if isinstance(asked, Etcd) else []


def tiers(config: NodeConfig) -> list[Tier]:
    """Return the tiers, not open yet."""
    return [
        Tier(
            section.path,
            section.capacity,
            section.role,
            free_floor_bytes=section.free_floor,
            read_only_path=section.read_only_path,
            is_open=False,
        )
        for section in config.tiers
    ]


def where(config: LoadedKeys) -> str:
    """Return a name of the coordinator for messages."""
    return f"etcd at {', '.join(config.etcd.endpoints)}" if config.etcd else "this process"


def defaults(config: NodeConfig) -> ClusterDefaults:
    """Return what the configuration says of the cluster, for where the cluster has nothing."""
    return ClusterDefaults(
        cluster=config.cluster,
        settings=config.cluster_settings,
        volumes={
            name: json.loads(section.to_volume(name).to_json())
            for name, section in config.volumes.items()
        },
        formation=FormationTimes() if config.etcd else AT_ONCE,
    )


async def upkeep(config: NodeConfig) -> "Upkeep | None":
    """Return what Kubernetes has the node do, as far as it is known now; None without it.

    Raises:
        InvalidConfiguration: The extra is not installed, or this is no pod and no file is named.
    """
    section = config.kubernetes
    if section is None:
        return None
    try:
        from penstock_node.kubernetes.asked import upkeep_of
    except ImportError as error:
        raise InvalidConfiguration(
            f"[kubernetes]: {error.name} is not installed: pip install 'penstock[kubernetes]'"
        ) from error
    made = upkeep_of(section, state_dir=config.state_dir)
    await made.look()
    return made


def announcement(
    config: NodeConfig,
    node_id: str,
    bound: NodeFile,
    capacity_bytes: int,
    upkeep: "Upkeep | None",
) -> Announcement:
    """Return what a node tells the others of itself.

    Args:
        config: The node's.
        node_id: Its id.
        bound: Where it serves.
        capacity_bytes: What its disks can own.
        upkeep: What Kubernetes says of its machine.
    """
    return Announcement(
        member=Member(
            id=node_id,
            host=config.advertise_host,
            zone=config.zone or (upkeep.zone if upkeep else ""),
            grpc_address=bound.grpc_address,
            bulk_address=bound.bulk_address,
            admin_address=bound.admin_address,
            s3_address=bound.s3_address,
            socket=bound.socket,
            incarnation=incarnation(),
        ),
        machine_id=machine_id(config.state_dir),
        state_dir=config.state_dir,
        owned_capacity_bytes=capacity_bytes,
        join_after_s=config.join_after,
        weight=None if config.weight == "auto" else config.weight,
        taken_out=upkeep.taken_out if upkeep and config.owned_capacity_bytes else None,
    )


def catalog_address(config: NodeConfig, coordination: Coordination) -> Callable[[], str]:
    """Return what tells where the catalog answers: ``host:port``, or nothing as yet."""

    def address() -> str:
        registered = coordination.state.catalog
        return config.catalog or (registered.grpc_address if registered else "")

    return address


def secrets(config: LoadedKeys) -> dict[str, SecretSettings]:
    """Return the process's own secrets by name, with their values as they are now.

    Raises:
        InvalidConfiguration: A value is not where it should stand.
    """
    resolved = {name: config.resolve_secret(name) for name in config.secrets}
    return {
        name: SecretSettings(name=name, values=secret.values, hosts=secret.hosts)
        for name, secret in resolved.items()
    }


def address(host: str, port: int) -> str:
    """Return ``host:port``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

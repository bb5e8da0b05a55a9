"""What a node's configuration asks for, as parts that a node is put together from.

Responsible for: choosing the coordinator, and translating configuration into what the parts
take. Nothing is started here.
"""

import contextlib
import json
from collections.abc import Callable, Sequence

from penstock.core import Core, Options
from penstock.credentials import Authorization
from penstock.errors import InvalidConfiguration
from penstock.etcd import Etcd, EtcdMember, EtcdTls
from penstock.membership.coordinator import Coordinator
from penstock.membership.standalone import Standalone
from penstock.membership.view import Member
from penstock.routing import Routing
from penstock.rpc import Channels
from penstock.volumes import Volumes
from penstock_node.access.callers import Callers
from penstock_node.access.gate import Gate
from penstock_node.access.node_tokens import NodeTokens
from penstock_node.access.service_accounts import ServiceAccounts
from penstock_node.access.tokens_file import TokensFile
from penstock_node.config import NodeConfig
from penstock_node.config_auth import KubernetesAuthSection
from penstock_node.config_loaded import LoadedKeys
from penstock_node.coordination import Announcement, ClusterDefaults, Coordination
from penstock_node.coordination.formation import AT_ONCE, FormationTimes
from penstock_node.credentials import ShownToken
from penstock_node.identity import incarnation, machine_id
from penstock_node.node_file import NodeFile
from penstock_node.origin import SecretSettings
from penstock_node.serve.grpc_server import peer_credentials
from penstock_node.store.tier import Tier


def gate(config: LoadedKeys, *, nodes: NodeTokens, volumes: Callable[[], Volumes]) -> Gate:
    """Return what lets callers in; the caller closes it.

    Args:
        config: The process's.
        nodes: Tells the cluster's own processes.
        volumes: Returns the cluster's volumes, as they are now.

    Raises:
        InvalidConfiguration: The tokens file is not in order, or nothing can be written to the
            file of the record.
    """
    auth = config.auth
    if auth is None:
        return Gate(None, volumes=volumes)
    tokens = TokensFile(auth.tokens_file) if auth.tokens_file else None
    accounts = _service_accounts(auth.kubernetes) if auth.kubernetes else None
    callers = Callers(tokens=tokens, nodes=nodes, accounts=accounts)
    return Gate(callers, volumes=volumes, audit_file=auth.audit_file)


def _service_accounts(section: KubernetesAuthSection) -> ServiceAccounts:
    try:
        from penstock_node.kubernetes.connection import Connection
        from penstock_node.kubernetes.reviews import Reviews
    except ImportError as error:
        raise InvalidConfiguration(
            "auth.kubernetes: asking Kubernetes needs pip install 'penstock[kubernetes]'"
        ) from error
    return ServiceAccounts(
        Reviews(Connection(kubeconfig=section.kubeconfig)),
        audience=section.audience,
        grants=section.grants,
    )


def shows_in_plain_text(config: LoadedKeys) -> bool:
    """Tell whether this process may show its token to other machines in plain text.

    Without ``[auth]`` its token opens nothing: it is shown so that ``[auth]`` can be set on one
    process after the other.
    """
    return config.insecure or config.auth is None


def library(
    config: NodeConfig, bound: NodeFile, *, authorization: Authorization, routing: Routing
) -> Core:
    """Return the library by which a node reads from others.

    Args:
        config: The node's.
        bound: Where it serves.
        authorization: Returns what it shows with each call.
        routing: What is known of the cluster.
    """
    options = Options(
        seeds=[bound.grpc_address],
        authorization=authorization,
        credentials=peer_credentials(config.tls) if config.tls else None,
        insecure=shows_in_plain_text(config),
        uses_local_node=False,
    )
    return Core(options, routing=routing)


def channels_to_others(config: LoadedKeys) -> Channels:
    """Return channels to processes that are not of this cluster; the caller closes them.

    Raises:
        InvalidConfiguration: There is no token where it should stand.
    """
    token = config.auth.token if config.auth else None
    return Channels(
        authorization=ShownToken(token) if token else None,
        credentials=peer_credentials(config.tls) if config.tls else None,
        insecure=shows_in_plain_text(config),
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


def catalog_channels(
    config: NodeConfig, own: Channels, *, stack: contextlib.AsyncExitStack
) -> Channels:
    """Return what reaches the catalog; one without etcd does not know the tokens of nodes.

    Args:
        config: The node's.
        own: To the cluster's processes.
        stack: Closes what is made for it.

    Raises:
        InvalidConfiguration: There is no token where it should stand.
    """
    if not (config.catalog and config.auth and config.auth.token):
        return own
    channels = channels_to_others(config)
    stack.callback(channels.close)
    return channels


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


def announcement(
    config: NodeConfig, node_id: str, bound: NodeFile, *, capacity_bytes: int
) -> Announcement:
    """Return what a node tells the others of itself.

    Args:
        config: The node's.
        node_id: Its id.
        bound: Where it serves.
        capacity_bytes: What its disks can own.
    """
    return Announcement(
        member=Member(
            id=node_id,
            host=config.advertise_host,
            zone=config.zone,
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

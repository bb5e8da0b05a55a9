"""What a node's configuration asks for, as parts that a node is put together from.

Responsible for: choosing the coordinator, and translating configuration into what the parts
take. Nothing is started here.
"""

import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.certificates import Certificates
from penstock.core import Core, Options
from penstock.credentials import Authorization, Bearer
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
from penstock_node.config_loaded import LoadedKeys, read_reference
from penstock_node.config_sections import KubernetesAuthSection, SecretReference
from penstock_node.config_values import TlsPort
from penstock_node.coordination import Announcement, ClusterDefaults, Coordination
from penstock_node.coordination.formation import AT_ONCE, FormationTimes
from penstock_node.identity import incarnation, machine_id
from penstock_node.node_file import NodeFile
from penstock_node.origin import SecretSettings
from penstock_node.store.tier import Tier

if TYPE_CHECKING:
    from penstock_node.kubernetes.upkeep import Upkeep


def gate(config: LoadedKeys, *, nodes: NodeTokens | None, volumes: Callable[[], Volumes]) -> Gate:
    """Return what lets callers in; the caller closes it.

    Args:
        config: The process's.
        nodes: Tells the cluster's own processes; None: this process cannot.
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
    bound: NodeFile,
    *,
    credentials: Certificates | None,
    authorization: Authorization,
    insecure: bool,
    routing: Routing,
) -> Core:
    """Return the library by which a node reads from others.

    Args:
        bound: Where it serves.
        credentials: What it shows, and whom it trusts; None: plain text.
        authorization: Returns what it shows with each call.
        insecure: See `shows_in_plain_text`.
        routing: What is known of the cluster.
    """
    options = Options(
        seeds=[bound.grpc_address],
        authorization=authorization,
        credentials=credentials,
        insecure=insecure,
        uses_local_node=False,
    )
    return Core(options, routing=routing)


def shown_token(reference: SecretReference) -> Bearer:
    """Return what shows ``[auth] token``; one in a file is read again when that changes.

    Raises:
        InvalidConfiguration: There is none where it should stand.
    """
    token = read_reference(reference, "auth.token")
    return Bearer(path=Path(reference.file)) if reference.file else Bearer(token)


def channels_to_others(config: LoadedKeys, credentials: Certificates | None) -> Channels:
    """Return channels to processes that are not of this cluster; the caller closes them.

    Args:
        config: The process's.
        credentials: What it shows, and whom it trusts; None: plain text.

    Raises:
        InvalidConfiguration: There is no token where it should stand.
    """
    token = config.auth.token if config.auth else None
    return Channels(
        authorization=shown_token(token) if token else None,
        credentials=credentials,
        insecure=shows_in_plain_text(config),
    )


def certificates(config: LoadedKeys) -> Certificates | None:
    """Return what this process shows to others, and whom of them it trusts; None: plain text.

    Raises:
        InvalidConfiguration: A file of ``[tls]`` is not what it should be.
    """
    tls = config.tls
    return Certificates(ca=tls.ca, cert=tls.cert, key=tls.key, where="[tls]") if tls else None


def asks_for_certificates(config: LoadedKeys) -> bool:
    """Tell whether a caller of gRPC has to show a certificate."""
    return config.tls is not None and config.tls.asks_for_certificates


def tls_ports(config: LoadedKeys, bound: Sequence[TlsPort]) -> tuple[TlsPort, ...]:
    """Return which of the ``bound`` ports speak TLS."""
    tls = config.tls
    return tuple(port for port in bound if port == "grpc" or port in tls.ports) if tls else ()


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
    config: NodeConfig,
    own: Channels,
    credentials: Certificates | None,
    *,
    stack: contextlib.AsyncExitStack,
) -> Channels:
    """Return what reaches the catalog; one without etcd does not know the tokens of nodes.

    Args:
        config: The node's.
        own: To the cluster's processes.
        credentials: What is shown, and who is trusted; None: plain text.
        stack: Closes what is made for it.

    Raises:
        InvalidConfiguration: There is no token where it should stand.
    """
    if not (config.catalog and config.auth and config.auth.token):
        return own
    channels = channels_to_others(config, credentials)
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
            tls_ports=bound.tls_ports,
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

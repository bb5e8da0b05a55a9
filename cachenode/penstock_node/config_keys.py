"""The keys of a node's configuration, and of the catalog's: their types, defaults and bounds.

Responsible for: what each key may be by itself.
Not responsible for: single values (`config_values`), where they come from (`config_sources`), and
whether they fit together (`config_checks`). No value here is ever a secret: secrets are named by
where they stand.
"""

import ipaddress
import re
import socket
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from penstock_node.config_sections import (
    AuthSection,
    EtcdSection,
    KubernetesSection,
    S3KeySection,
    SecretReference,
    SecretSection,
    TierSection,
    TlsSection,
    VolumeSection,
)
from penstock_node.config_values import (
    LOOPBACK_NETWORKS,
    AbsolutePath,
    Address,
    ClusterName,
    Domain,
    Duration,
    Endpoint,
    Host,
    LogFormat,
    LogLevel,
    ParsedNetwork,
    Port,
    S3Auth,
    SettingsTable,
    Size,
    SocketAuth,
    SocketPath,
    Weight,
)
from penstock_node.inflight import BYTES_MAX_DEFAULT

ENVIRONMENT_PREFIX = "PENSTOCK_"
ENVIRONMENT_DELIMITER = "__"


class SharedKeys(BaseSettings):
    """The keys of both processes, `penstock node` and `penstock catalog`."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter=ENVIRONMENT_DELIMITER,
        # Deployments blank a variable where they mean to unset it.
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    cluster: ClusterName = "penstock"
    state_dir: AbsolutePath = Path("/var/lib/penstock")
    listen_host: Host = "127.0.0.1"
    """Where all ports are bound. Off loopback it needs ``[tls]`` with certificates asked for or
    ``[auth]``, or ``insecure``."""
    advertise_host: Host = ""
    """What others dial; by default ``listen_host``, or this machine's name if that is any."""
    advertise_domain: Domain = ""
    """Below which an ``advertise_host`` that is an address has a name: 10.1.2.3 is dialled as
    ``10-1-2-3.advertise_domain``, as a headless service of Kubernetes names its pods. So that a
    certificate for ``*.advertise_domain`` is good for all of them. Empty: the address itself."""
    grpc_port: Port = 7400
    insecure: bool = False
    admin_open: bool = False
    """Metrics, and a node's web page, without a token."""
    admin_hosts: tuple[Host, ...] = ()
    """More names that lead here, a proxy's for example: where nobody is asked who he is, neither at
    the admin port nor at ``s3_port``, a request that came by an unknown one is a web page's that
    pretends to be this machine."""
    log_format: LogFormat = "auto"
    """Of what goes to standard error. auto: ``console``, lines for people, on a terminal; else
    ``json``, an object a line."""
    log_level: LogLevel = "info"
    """What is less is not said."""
    allow_file_roots: tuple[AbsolutePath, ...] = ()
    etcd: EtcdSection | None = None
    """None: a cluster of one."""
    tls: TlsSection | None = None
    auth: AuthSection | None = None
    volumes: dict[str, VolumeSection] = {}
    secrets: dict[str, SecretSection] = {}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Use only what the caller gives: `config_sources` reads the rest and tells it apart."""
        return (init_settings,)

    @model_validator(mode="before")
    @classmethod
    def _advertise(cls, values: dict[str, Any]) -> dict[str, Any]:
        listen_host = values.get("listen_host", cls.model_fields["listen_host"].default)
        if not isinstance(listen_host, str):
            return values
        host = values.get("advertise_host") or reachable_name(listen_host)
        domain = values.get("advertise_domain")
        return {**values, "advertise_host": name_below(domain, host) if domain else host}


class NodeKeys(SharedKeys):
    """Every key of a node's configuration. Made by `NodeConfig`, which adds what follows."""

    bulk_port: Port = 7401
    admin_port: Port = 7402
    s3_port: Port | None = None
    """None: no gateway."""
    socket: SocketPath = "/run/penstock/node.sock"
    """Of the host plane; empty for none."""
    socket_auth: SocketAuth = "directory"
    """Who may use it. directory: whoever may enter the directory that it lies in. token: who shows
    a token besides; needs ``[auth]``."""
    weight: Weight = "auto"
    zone: str = ""
    join_after: Duration = 0.0
    """Seconds during which a new node keeps weight 0."""
    s3_domain: Domain = ""
    """Virtual-host style: ``bucket.s3_domain`` is that bucket. Empty: path style alone, which goes
    always. Such names have to lead here: a wildcard record, ``*.s3_domain``, does that."""
    s3_auth: S3Auth = "anonymous"
    """Of the S3 gateway. anonymous: whoever reaches the port reads. keys: whoever signs with one
    of ``s3_keys``. ignore: whoever asks from ``s3_trusted_networks``, whatever the signature."""
    s3_trusted_networks: tuple[ParsedNetwork, ...] = LOOPBACK_NETWORKS
    s3_keys: dict[str, S3KeySection] = {}
    hub_volumes: tuple[str, ...] = ()
    """Volumes that the hub on ``s3_port`` looks for repositories in, in this order; none named:
    all, by name."""
    otlp_endpoint: Endpoint | None = None
    """Of an OpenTelemetry collector, ``http://host:4318``: what is traced goes there. Needs the
    extra ``otel``."""
    inflight_max: Size = BYTES_MAX_DEFAULT
    """Payload in this process's memory at once, on its way in or out; what is more waits. What is
    put has as much again of its own: a node that nobody puts through never uses it."""
    catalog: Address = ""
    """Where the catalog answers, as ``host:port``, in a cluster without etcd; with it the catalog
    is found there."""
    kubernetes: KubernetesSection | None = None
    """None: nothing is watched."""
    settings: SettingsTable = {}
    tiers: tuple[TierSection, ...] = ()


class CatalogKeys(SharedKeys):
    """Every key of a catalog's configuration. Made by `CatalogConfig`, which adds what follows."""

    state_dir: AbsolutePath = Path("/var/lib/penstock-catalog")
    grpc_port: Port = 7410
    admin_port: Port = 7411
    """For health, metrics, and what object stores tell of changes."""
    events_token: SecretReference | None = None
    """What object stores show that tell of changes: ``Authorization: Bearer TOKEN``. None: only
    what is told from this machine is heard."""
    database: str = Field(default="", repr=False)
    """``postgresql://USER:PASSWORD@HOST/NAME``, or ``sqlite:///PATH``; by default a SQLite file in
    ``state_dir``."""
    mirror_of: Address = ""
    """Where the catalog answers that this one follows, as ``host:port``: then it is read-only.
    Empty: it is no mirror."""


def reachable_name(listen_host: str) -> str:
    """Return what others may dial: ``listen_host``, or this machine's name if that means any."""
    try:
        is_any = ipaddress.ip_address(listen_host).is_unspecified
    except ValueError:
        is_any = not listen_host
    return socket.gethostname() if is_any else listen_host


def name_below(domain: str, host: str) -> str:
    """Return the name that an address has below ``domain``; a name stays as it is."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host
    return f"{re.sub('[.:]', '-', host)}.{domain}"

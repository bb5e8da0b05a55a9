"""The keys of a node's configuration, and of the catalog's: their types, defaults and bounds.

Responsible for: what each key may be by itself.
Not responsible for: single values (`config_values`), where they come from (`config_sources`), and
whether they fit together (`config_checks`). No value here is ever a secret: secrets are named by
where they stand.
"""

import ipaddress
import socket
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from penstock.origin_limits import limits_from
from penstock.volumes import Volume, new_uid
from penstock_node.config_auth import AuthSection
from penstock_node.config_section import SecretReference, Section
from penstock_node.config_values import (
    LOOPBACK_NETWORKS,
    AbsolutePath,
    AccessKey,
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
    Role,
    S3Auth,
    SecretHost,
    SettingsTable,
    Size,
    SizeFromZero,
    SocketAuth,
    SocketPath,
    Weight,
)
from penstock_node.inflight import BYTES_MAX_DEFAULT

ENVIRONMENT_PREFIX = "PENSTOCK_"
ENVIRONMENT_DELIMITER = "__"


class SecretSection(Section):
    """A node's own secret: the store's options that are secret, and whom they may be sent to."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, SecretReference]

    hosts: tuple[SecretHost, ...] = ()
    """``host``, ``host:port``, or ``.domain`` for all below it. None named: only the usual hosts
    of the volume's scheme, never an endpoint of one's own."""

    @property
    def options(self) -> dict[str, SecretReference]:
        """Every key but ``hosts``: an option of the store, and where its value stands."""
        return dict(self.__pydantic_extra__)


class EtcdSection(Section):
    """How to reach etcd. An https endpoint means TLS; ``cert`` and ``key`` go together."""

    endpoints: Annotated[tuple[Endpoint, ...], Field(min_length=1)]
    username: str = ""
    password: SecretReference | None = None
    ca: AbsolutePath | None = None
    cert: AbsolutePath | None = None
    key: AbsolutePath | None = None


class TlsSection(Section):
    """This node's certificate and key; with ``ca`` clients must show one that it signed."""

    cert: AbsolutePath
    key: AbsolutePath
    ca: AbsolutePath | None = None


class S3KeySection(Section):
    """A key that clients of the S3 gateway sign with."""

    access_key_id: AccessKey
    secret_access_key: SecretReference
    volumes: tuple[str, ...] = ()
    """Which it may read; none named: all."""


class TierSection(Section):
    """One directory with a byte budget. ``role`` has no default: no machine owns by accident."""

    path: AbsolutePath
    capacity: Size
    role: Role
    free_floor: SizeFromZero | None = None
    """Bytes that the file system keeps free, whoever fills it; by default 2 % of it, at most
    10 GiB, and nothing for the role ``memory``."""
    read_only_path: AbsolutePath | None = None
    """The same directory through a read-only mount. With it chunks' descriptors are given to any
    reader of this machine: they cannot be opened for writing."""


class OriginSection(Section):
    """One place where files of a catalogued volume lie."""

    url: str
    options: Annotated[dict[str, Any], Field(repr=False)] = {}  # noqa: RUF012 - pydantic copies it
    secret: str = ""

    def to_volume(self, name: str) -> Volume:
        """Return the place as a volume called ``name``; raises as `VolumeSection.to_volume`."""
        return Volume(name, self.url, self.options, self.secret or None)


class VolumeSection(Section):
    """A volume to write into the cluster where it is absent there."""

    url: str = ""
    options: Annotated[dict[str, Any], Field(repr=False)] = {}  # noqa: RUF012 - pydantic copies it
    secret: str = ""
    limits: dict[str, Any] = {}  # noqa: RUF012 - likewise
    """What each node may ask of the origin: ``requests_max`` at once, ``requests_per_s``,
    ``bytes_per_s``; see `penstock.origin_limits`."""
    replicas: int | None = None
    """How many owners keep a chunk; None for the cluster's setting."""
    writable: bool = False
    """Whether `penstock put` may write there."""
    catalogued: bool = False
    """Whether the catalog says which files there are. Then ``origins`` have their bytes."""
    origins: tuple[OriginSection, ...] = ()

    def to_volume(self, name: str) -> Volume:
        """Return the volume called ``name`` that this describes; a catalogued one gets a new uid.

        Raises:
            InvalidRequest: Something of it is wrong; see `Volume`.
        """
        limits = limits_from(self.limits, where=f"volume {name!r}")
        return Volume(
            name,
            self.url,
            self.options,
            self.secret or None,
            replicas=self.replicas,
            limits=limits,
            writable=self.writable,
            uid=new_uid() if self.catalogued else "",
            origins=tuple(origin.to_volume(name) for origin in self.origins),
        )


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
    """Where all ports are bound. Off loopback it needs ``[tls]`` with ``ca`` or ``[auth]``, or
    ``insecure``."""
    advertise_host: Host = ""
    """What others dial; by default ``listen_host``, or this machine's name if that is any."""
    grpc_port: Port = 7400
    insecure: bool = False
    admin_open: bool = False
    """Metrics, and a node's web page, without a token."""
    admin_hosts: tuple[Host, ...] = ()
    """More names that lead to the admin port, a proxy's for example: where no token is asked for, a
    request that came by an unknown one is a web page's that pretends to be this machine."""
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
        if values.get("advertise_host") or not isinstance(listen_host, str):
            return values
        return {**values, "advertise_host": reachable_name(listen_host)}


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

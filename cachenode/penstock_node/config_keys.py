"""The keys of a node's configuration: their types, defaults and bounds.

Responsible for: what each key may be by itself.
Not responsible for: where values come from (`config_sources`), and whether they fit together
(`config_checks`). No value here is ever a secret: secrets are named by where they stand.
"""

import ipaddress
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from penstock.errors import InvalidRequest
from penstock.origin_limits import limits_from
from penstock.placement import check_weight
from penstock.settings import ClusterSettings
from penstock.units import parse_duration, parse_size
from penstock.volumes import Volume
from penstock_node.inflight import BYTES_MAX_DEFAULT

ENVIRONMENT_PREFIX = "PENSTOCK_"
ENVIRONMENT_DELIMITER = "__"
SOCKET_PATH_BYTES_MAX = 107
"""Of a Unix socket's path on Linux, without the zero at its end."""

DOMAIN_CHARACTERS_MAX = 189
"""So that the longest bucket, of 63, and a dot still fit before it."""

LOOPBACK_NETWORKS = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))

Role: TypeAlias = Literal["memory", "local", "owned"]
S3Auth: TypeAlias = Literal["anonymous", "keys", "ignore"]

_CLUSTER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_ACCESS_KEY = re.compile(r"[A-Za-z0-9._-]{3,128}")
_DOMAIN = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*")
_SECRET_HOST = re.compile(r"[A-Za-z0-9_.:\[\]-]{1,255}")
_REFERENCE_FORMS = 'want { env = "NAME" } or { file = "PATH" }'


def _parsed_size(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return parse_size(value)
    except InvalidRequest as error:
        raise ValueError(str(error)) from error


def _parsed_duration(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return parse_duration(value)
    except InvalidRequest as error:
        raise ValueError(str(error)) from error


def _parsed_weight(value: Any) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    if isinstance(value, bool) or not re.fullmatch(r"-?\d+", str(value)):
        raise ValueError('want "auto" or a whole number from 0 to 10000')
    try:
        check_weight(int(value))
    except InvalidRequest as error:
        raise ValueError(str(error)) from error
    return int(value)


def _checked_settings(values: dict[str, Any]) -> dict[str, Any]:
    try:
        ClusterSettings().changed(values)
    except InvalidRequest as error:
        raise ValueError(str(error)) from error
    return values


def _checked_cluster(name: str) -> str:
    if not _CLUSTER_NAME.fullmatch(name):
        raise ValueError("want 1 to 63 letters, digits, dots, dashes, starting with no sign")
    return name


def _checked_host(host: str) -> str:
    if not host or "/" in host or any(c.isspace() for c in host):
        raise ValueError("want an address or a host name, without scheme and port")
    return host


def _checked_domain(domain: str) -> str:
    name = domain.lower()
    is_address = name.rpartition(".")[2].isdigit()
    if name and (is_address or len(name) > DOMAIN_CHARACTERS_MAX or not _DOMAIN.fullmatch(name)):
        raise ValueError(
            "want the name that stands behind the bucket in host names, for example "
            "s3.penstock.internal, without port"
        )
    return name


def _checked_secret_host(host: str) -> str:
    if not _SECRET_HOST.fullmatch(host):
        raise ValueError("want host, host:port, or .domain for all hosts below it")
    return host


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError(f"{str(path)!r}: want an absolute path")
    return path


def _checked_socket(path: str) -> str:
    if path and not path.startswith("/"):
        raise ValueError(f"{path!r}: want an absolute path")
    if len(path.encode()) > SOCKET_PATH_BYTES_MAX:
        raise ValueError(
            f"{len(path.encode())} bytes are too long for a socket's path: "
            f"at most {SOCKET_PATH_BYTES_MAX}"
        )
    return path


def _parsed_network(value: Any) -> Any:
    try:
        return ipaddress.ip_network(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError("want a network such as 10.0.0.0/8 or fd00::/8, or an address") from None


def _checked_access_key(access_key_id: str) -> str:
    if not _ACCESS_KEY.fullmatch(access_key_id):
        raise ValueError("want 3 to 128 letters, digits, dots, dashes and underscores")
    return access_key_id


def _checked_endpoint(endpoint: str) -> str:
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{endpoint!r}: want http://host:port or https://host:port")
    if parts.username or parts.password:
        raise ValueError("no credentials in the url: write username and password beside it")
    return endpoint


Size: TypeAlias = Annotated[int, BeforeValidator(_parsed_size), Field(gt=0)]
SizeFromZero: TypeAlias = Annotated[int, BeforeValidator(_parsed_size), Field(ge=0)]
Duration: TypeAlias = Annotated[float, BeforeValidator(_parsed_duration), Field(ge=0)]
Port: TypeAlias = Annotated[int, Field(ge=0, le=65_535)]
Host: TypeAlias = Annotated[str, AfterValidator(_checked_host)]
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
ParsedNetwork: TypeAlias = Annotated[Network, BeforeValidator(_parsed_network)]
SecretHost: TypeAlias = Annotated[str, AfterValidator(_checked_secret_host)]
AbsolutePath: TypeAlias = Annotated[Path, AfterValidator(_absolute)]
Weight: TypeAlias = Annotated[int | Literal["auto"], BeforeValidator(_parsed_weight)]


class Section(BaseModel):
    """A table of the configuration. It refuses keys that it does not know."""

    # Input values stay out of messages: somebody may have pasted a secret in the wrong place.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class SecretReference(Section):
    """Where a secret value stands: exactly one of an environment variable and a file."""

    env: str = ""
    file: str = ""

    @model_validator(mode="before")
    @classmethod
    def _one_place(cls, value: Any) -> Any:
        if not isinstance(value, Mapping) or len(value) != 1 or not {"env", "file"} & set(value):
            raise ValueError(f"{_REFERENCE_FORMS}; a secret never stands here itself")
        if not all(value.values()):
            raise ValueError(f"{_REFERENCE_FORMS}, and not an empty one")
        return value

    @property
    def place(self) -> str:
        """For people: ``environment variable X`` or ``file X``."""
        return f"environment variable {self.env}" if self.env else f"file {self.file}"


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

    endpoints: Annotated[
        tuple[Annotated[str, AfterValidator(_checked_endpoint)], ...], Field(min_length=1)
    ]
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


class AuthSection(Section):
    """Bearer tokens."""

    tokens_file: AbsolutePath


class S3KeySection(Section):
    """A key that clients of the S3 gateway sign with."""

    access_key_id: Annotated[str, AfterValidator(_checked_access_key)]
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
    """One source of a catalogued volume."""

    url: str
    options: Annotated[dict[str, Any], Field(repr=False)] = {}
    secret: str = ""


class VolumeSection(Section):
    """A volume to write into the cluster where it is absent there."""

    url: str = ""
    options: Annotated[dict[str, Any], Field(repr=False)] = {}
    secret: str = ""
    limits: dict[str, Any] = {}
    """What each node may ask of the origin: ``requests_max`` at once, ``requests_per_s``,
    ``bytes_per_s``; see `penstock.origin_limits`."""
    replicas: int | None = None
    """How many owners keep a chunk; None for the cluster's setting."""
    writable: bool = False
    """Whether `penstock put` may write there."""
    catalogued: bool = False
    origins: tuple[OriginSection, ...] = ()

    def to_volume(self, name: str) -> Volume:
        """Return the volume called ``name`` that this describes.

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
        )


class NodeKeys(BaseSettings):
    """Every key of a node's configuration. Made by `NodeConfig`, which adds what follows."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter=ENVIRONMENT_DELIMITER,
        # Deployments blank a variable where they mean to unset it.
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    cluster: Annotated[str, AfterValidator(_checked_cluster)] = "penstock"
    state_dir: AbsolutePath = Path("/var/lib/penstock")
    listen_host: Host = "127.0.0.1"
    """Where all ports are bound. Off loopback it needs tls, auth, or ``insecure``."""
    advertise_host: Host = ""
    """What others dial; by default ``listen_host``, or this machine's name if that is any."""
    grpc_port: Port = 7400
    bulk_port: Port = 7401
    admin_port: Port = 7402
    s3_port: Port | None = None
    """None: no gateway."""
    socket: Annotated[str, AfterValidator(_checked_socket)] = "/run/penstock/node.sock"
    """Of the host plane; empty for none."""
    weight: Weight = "auto"
    zone: str = ""
    insecure: bool = False
    join_after: Duration = 0.0
    """Seconds during which a new node keeps weight 0."""
    s3_domain: Annotated[str, AfterValidator(_checked_domain)] = ""
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
    admin_open: bool = False
    """Metrics and the web page without a token."""
    inflight_max: Size = BYTES_MAX_DEFAULT
    """Payload in this process's memory at once, on its way in or out; what is more waits. What is
    put has as much again of its own: a node that nobody puts through never uses it."""
    allow_file_roots: tuple[AbsolutePath, ...] = ()
    etcd: EtcdSection | None = None
    """None: a cluster of one."""
    tls: TlsSection | None = None
    auth: AuthSection | None = None
    settings: Annotated[dict[str, Any], AfterValidator(_checked_settings)] = {}
    tiers: tuple[TierSection, ...] = ()
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


def reachable_name(listen_host: str) -> str:
    """Return what others may dial: ``listen_host``, or this machine's name if that means any."""
    try:
        is_any = ipaddress.ip_address(listen_host).is_unspecified
    except ValueError:
        is_any = not listen_host
    return socket.gethostname() if is_any else listen_host


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach ``host``; a name is believed only if localhost."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

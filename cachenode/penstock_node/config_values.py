"""What single values of a configuration may be: sizes, durations, hosts, paths and others.

Responsible for: turning text into values, and refusing what is none, as pydantic's annotated types.
Not responsible for: which keys have them (`config_keys`).
"""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from penstock.errors import InvalidRequest
from penstock.placement import check_weight
from penstock.settings import ClusterSettings
from penstock.units import parse_duration, parse_size

SOCKET_PATH_BYTES_MAX = 107
"""Of a Unix socket's path on Linux, without the zero at its end."""

DOMAIN_CHARACTERS_MAX = 189
"""So that the longest bucket, of 63, and a dot still fit before it."""

LOOPBACK_NETWORKS = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))

Role: TypeAlias = Literal["memory", "local", "owned"]
S3Auth: TypeAlias = Literal["anonymous", "keys", "ignore"]
LogFormat: TypeAlias = Literal["auto", "json", "console"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]

_CLUSTER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_ACCESS_KEY = re.compile(r"[A-Za-z0-9._-]{3,128}")
_DOMAIN = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*")
_TAINT = re.compile(
    r"([A-Za-z0-9.-]{1,253}/)?[A-Za-z0-9][A-Za-z0-9._-]{0,62}(=[A-Za-z0-9._-]{0,63})?"
    r"(:(NoSchedule|PreferNoSchedule|NoExecute))?"
)
_SECRET_HOST = re.compile(r"[A-Za-z0-9_.:\[\]-]{1,255}")


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


def _checked_address(address: str) -> str:
    host, _, port = address.rpartition(":")
    if address and not (host and port.isdigit() and int(port) <= 65_535):
        raise ValueError(f"{address!r}: want host:port")
    return address


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


def _checked_taint(text: str) -> str:
    if not _TAINT.fullmatch(text):
        raise ValueError(f"{text!r}: want key, key=value, key:effect or key=value:effect")
    return text


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
PositiveDuration: TypeAlias = Annotated[float, BeforeValidator(_parsed_duration), Field(gt=0)]
Port: TypeAlias = Annotated[int, Field(ge=0, le=65_535)]
Host: TypeAlias = Annotated[str, AfterValidator(_checked_host)]
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
ParsedNetwork: TypeAlias = Annotated[Network, BeforeValidator(_parsed_network)]
SecretHost: TypeAlias = Annotated[str, AfterValidator(_checked_secret_host)]
AbsolutePath: TypeAlias = Annotated[Path, AfterValidator(_absolute)]
Weight: TypeAlias = Annotated[int | Literal["auto"], BeforeValidator(_parsed_weight)]
ClusterName: TypeAlias = Annotated[str, AfterValidator(_checked_cluster)]
SocketPath: TypeAlias = Annotated[str, AfterValidator(_checked_socket)]
Domain: TypeAlias = Annotated[str, AfterValidator(_checked_domain)]
Address: TypeAlias = Annotated[str, AfterValidator(_checked_address)]
AccessKey: TypeAlias = Annotated[str, AfterValidator(_checked_access_key)]
Endpoint: TypeAlias = Annotated[str, AfterValidator(_checked_endpoint)]
Taint: TypeAlias = Annotated[str, AfterValidator(_checked_taint)]
SettingsTable: TypeAlias = Annotated[dict[str, Any], AfterValidator(_checked_settings)]

"""Who may read through the gateway: the three ways of ``s3_auth``.

Responsible for: letting a request in or refusing it, and which volumes its sender may read.
Not responsible for: how signatures are computed (`sigv4`).
"""

import ipaddress
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Protocol

from penstock_node.config import NodeConfig
from penstock_node.config_values import Network
from penstock_node.serve.own_names import OwnNames
from penstock_node.serve.s3 import sigv4
from penstock_node.serve.s3.addressing import Target
from penstock_node.serve.s3.errors import S3Error, access_denied
from penstock_node.transport.http import HttpRequest


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks."""

    name: str = ""
    """Of the key, for messages."""
    volumes: frozenset[str] | None = None
    """Which may be read; None: all."""

    def may_read(self, volume: str) -> bool:
        """Tell whether the caller may read a volume."""
        return self.volumes is None or volume in self.volumes


class Access(Protocol):
    """One way of telling who may read."""

    def admit(self, request: HttpRequest, target: Target, *, peer: str) -> Caller:
        """Return who sent ``request``.

        Args:
            request: As it came.
            target: What it is about.
            peer: The address that it came from; empty when that is not known.

        Raises:
            S3Error: It is not let in.
        """


class Anyone:
    """``anonymous``: whoever reaches the port reads. Signatures are not looked at."""

    def admit(self, request: HttpRequest, target: Target, *, peer: str) -> Caller:
        """See `Access.admit`."""
        return Caller()


class TrustedNetworks:
    """``ignore``: whoever asks from a trusted network reads. Signatures are not looked at."""

    def __init__(self, networks: Iterable[Network]) -> None:
        self._networks = tuple(networks)

    def admit(self, request: HttpRequest, target: Target, *, peer: str) -> Caller:
        """See `Access.admit`."""
        if not self._trusts(peer):
            raise access_denied(
                f"requests from {peer or 'an unknown address'} are not trusted: add its network "
                'to s3_trusted_networks of this node, or set s3_auth = "keys" and sign'
            )
        return Caller()

    def _trusts(self, peer: str) -> bool:
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._networks)


@dataclass(frozen=True, slots=True)
class Key:
    """What a client signs with."""

    name: str
    access_key_id: str
    secret: str = field(repr=False)
    volumes: frozenset[str] | None = None


class Keys:
    """``keys``: whoever signs with one of the node's keys reads what that key may."""

    def __init__(
        self, keys: Iterable[Key], *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._keys = {key.access_key_id: key for key in keys}
        self._clock = clock

    def admit(self, request: HttpRequest, target: Target, *, peer: str) -> Caller:
        """See `Access.admit`."""
        found = sigv4.presented(target, request.headers)
        if found is None:
            raise access_denied("sign the request with one of the keys in [s3_keys] of this node")
        key = self._keys.get(found.access_key_id)
        if key is None:
            raise S3Error(
                HTTPStatus.FORBIDDEN,
                "InvalidAccessKeyId",
                f"this node has no key {found.access_key_id!r}; add it to its [s3_keys]",
            )
        sigv4.check_time(found, now=self._clock())
        if not sigv4.is_signed_with(
            key.secret, found, method=request.method, target=target, headers=request.headers
        ):
            raise S3Error(
                HTTPStatus.FORBIDDEN,
                "SignatureDoesNotMatch",
                f"not signed with the secret of [s3_keys.{key.name}], or changed on the way",
            )
        sigv4.check_payload(found, request.body)
        return Caller(key.name, key.volumes)


def access_of(config: NodeConfig) -> Access:
    """Return what ``s3_auth`` asks for, with the secrets as they are now.

    Raises:
        InvalidConfiguration: A key's secret is not where it should stand.
    """
    if config.s3_auth == "anonymous":
        return Anyone()
    if config.s3_auth == "ignore":
        return TrustedNetworks(config.s3_trusted_networks)
    return Keys(keys_of(config))


def s3_names(config: NodeConfig) -> OwnNames | None:
    """Return the names that requests may come by; None: any, for they are signed.

    A browser anywhere in a network that is let in can be made to ask, so it is not about loopback.
    """
    if config.s3_auth == "keys":
        return None
    return OwnNames([config.advertise_host, *config.admin_hosts], domain=config.s3_domain)


def keys_of(config: NodeConfig) -> Iterator[Key]:
    """Yield the keys of ``[s3_keys]``, with their secrets as they are now.

    Raises:
        InvalidConfiguration: A key's secret is not where it should stand.
    """
    for name, section in config.s3_keys.items():
        yield Key(
            name=name,
            access_key_id=section.access_key_id,
            secret=config.resolve_s3_secret(name),
            volumes=frozenset(section.volumes) if section.volumes else None,
        )

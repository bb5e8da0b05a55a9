"""Addresses of clusters, as `connect` takes them."""

import asyncio
import os
import re
import threading
from pathlib import Path

from penstock.credentials import bearer_from
from penstock.errors import ClusterUnavailable, InvalidRequest
from penstock.json_text import read_json_object, text_in

UNIX = "unix:"
DEFAULT_SOCKET = "/run/penstock/node.sock"
DEFAULT_ADDRESS = "127.0.0.1:7400"
"""Where no local node has made its socket."""

_HOST_PORT = re.compile(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+):(\d{1,5})")
_ETCD = re.compile(r"etcd://(?P<endpoints>[^/]+)/(?P<cluster>[A-Za-z0-9._-]+)")


def seed_addresses(address: str | None) -> list[str]:
    """Return where to begin: gRPC addresses of nodes, or a local node's socket.

    Args:
        address: ``host:port,…``, ``unix:PATH`` or ``etcd://host:port,…/cluster``; None for
            ``PENSTOCK_ADDRESS``, else this machine's node: its socket, else its usual port.

    Raises:
        InvalidRequest: It is none of these.
        ClusterUnavailable: etcd does not answer, or knows no node of the cluster.
    """
    address = address or os.environ.get("PENSTOCK_ADDRESS") or _this_machine()
    if address.startswith("etcd://"):
        return _members_from_etcd(address)
    if address.startswith(UNIX):
        if not Path(address.removeprefix(UNIX)).is_absolute():
            raise InvalidRequest(f"{address!r}: want unix:/absolute/path/of/node.sock")
        return [address]
    seeds = [part.strip() for part in address.split(",") if part.strip()]
    for seed in seeds:
        match = _HOST_PORT.fullmatch(seed)
        if match is None or int(match[2]) > 65_535:
            raise InvalidRequest(
                f"{seed!r} is not an address; want host:port (a node's gRPC port, 7400 by "
                "default) unix:PATH or etcd://host:port/cluster"
            )
    if not seeds:
        raise InvalidRequest("an empty address; want host:port or etcd://host:port/cluster")
    return seeds


def grpc_addresses(address: str | None, *, token: str | None = None) -> list[str]:
    """As `seed_addresses`; in place of a local node's socket the gRPC address of that node.

    Args:
        address: As for `seed_addresses`.
        token: What is shown to a local node: see `penstock.credentials.bearer_from`.

    Raises:
        InvalidRequest: As `seed_addresses`.
        ClusterUnavailable: Likewise; or the node at the socket does not answer, or is no member.
    """
    seeds = seed_addresses(address)
    return [
        _grpc_address_at(seed.removeprefix(UNIX), token=token) if seed.startswith(UNIX) else seed
        for seed in seeds
    ]


def _grpc_address_at(socket: str, *, token: str | None) -> str:
    """Ask the node at a socket, which takes no operator's calls, where it does take them."""
    from penstock.core import Core, Options

    core = Core(Options(seeds=[UNIX + socket], authorization=bearer_from(token)))
    try:
        members, local = core.nodes.view().members, core.local_node()
    finally:
        core.close()
    member = members.get(local.member.id) if local else None
    if member is None:
        raise ClusterUnavailable(
            f"the node at {socket} is no member of its cluster now; name another as host:port"
        )
    return member.grpc_address


def _this_machine() -> str:
    return UNIX + DEFAULT_SOCKET if Path(DEFAULT_SOCKET).is_socket() else DEFAULT_ADDRESS


def _members_from_etcd(address: str) -> list[str]:
    match = _ETCD.fullmatch(address)
    if match is None:
        raise InvalidRequest(f"{address!r}: want etcd://host:port,host:port/cluster")
    endpoints = [f"http://{part}" for part in match["endpoints"].split(",")]
    found: list[str] = []
    failure: list[BaseException] = []

    def ask() -> None:
        try:
            found.extend(asyncio.run(_ask_etcd(endpoints, match["cluster"])))
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            failure.append(error)

    # In a thread of its own: the caller may be running an event loop.
    thread = threading.Thread(target=ask, name="penstock-etcd")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    if not found:
        raise ClusterUnavailable(
            f"etcd at {match['endpoints']} knows no live node of the cluster "
            f"{match['cluster']!r}; check the cluster's name and that its nodes run"
        )
    return found


async def _ask_etcd(endpoints: list[str], cluster: str) -> list[str]:
    from penstock.etcd import Etcd

    etcd = Etcd(endpoints, prefix=f"/penstock/v1/{cluster}/")
    try:
        listing = await etcd.list("members/")
    finally:
        await etcd.close()
    told = (_grpc_address_in(entry.value) for entry in listing.entries.values())
    return [address for address in told if address]


def _grpc_address_in(value: bytes) -> str:
    """Return what a member's record tells; nothing, where it is none."""
    try:
        return text_in(read_json_object(value), "grpc_address", "")
    except InvalidRequest:
        return ""

"""Whether the keys of a configuration fit together, and the files that they name are there.

Each check yields every problem that it finds. They run only on a configuration whose keys are
all good by themselves, so that a typo does not draw a second complaint.
"""

import os
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

from penstock.credentials import is_loopback
from penstock.errors import InvalidConfiguration, InvalidRequest
from penstock.origin_options import credential_options
from penstock.settings import ClusterSettings
from penstock.units import format_size
from penstock.volumes import Volume
from penstock_node.config_keys import NodeKeys, SharedKeys
from penstock_node.config_sections import VolumeSection
from penstock_node.config_sources import Place, Problem
from penstock_node.config_tokens import read_tokens
from penstock_node.inflight import LANE_SHARES

_PORTS = ("grpc_port", "bulk_port", "admin_port", "s3_port")


def check(keys: NodeKeys) -> list[Problem]:
    """Return every problem of ``keys``; none means that a node may start with them."""
    checks = (_socket_auth, _s3_auth, _inflight, _tiers)
    return [*check_shared(keys), *(problem for find in checks for problem in find(keys))]


def check_shared(keys: SharedKeys) -> list[Problem]:
    """Return every problem of the keys that a node and the catalog have."""
    checks = (_safety, _auth, _ports, _etcd, _files, _volumes)
    return [problem for find in checks for problem in find(keys)]


def _safety(keys: SharedKeys) -> Iterator[Problem]:
    if keys.insecure or is_loopback(keys.listen_host):
        return
    if keys.tls is None:
        lacks = (
            "tokens would go over the network in plain text; add [tls] cert and key"
            if keys.auth
            else "set [tls] cert and key, with ca or [auth] tokens_file"
        )
    elif keys.auth is None and not keys.tls.asks_for_certificates:
        lacks = (
            "[tls] alone lets everybody in; add its ca, or [auth] tokens_file"
            if keys.tls.client_certificates
            else "nobody is asked who he is; take client_certificates = false out of [tls], "
            "or add [auth] tokens_file"
        )
    else:
        return
    yield Problem(
        ("listen_host",),
        f"{keys.listen_host} can be reached from other machines: {lacks}, or insecure = true "
        "(whoever reaches this network may listen)",
    )


def _auth(keys: SharedKeys) -> Iterator[Problem]:
    auth = keys.auth
    if auth is None:
        return
    if auth.tokens_file is None:
        if auth.kubernetes is None:
            text = "nobody could show a token that is known; set tokens_file"
            yield Problem(("auth",), text)
    elif auth.tokens_file.is_file() and os.access(auth.tokens_file, os.R_OK):
        try:
            read_tokens(auth.tokens_file)
        except InvalidConfiguration as error:
            yield Problem(("auth", "tokens_file"), str(error))


def _socket_auth(keys: NodeKeys) -> Iterator[Problem]:
    if keys.socket_auth == "token" and keys.auth is None:
        yield Problem(("socket_auth",), '"token" needs [auth], which says which tokens are known')


def _s3_auth(keys: NodeKeys) -> Iterator[Problem]:
    if keys.s3_port is None:
        return
    if keys.s3_auth == "anonymous" and not (is_loopback(keys.listen_host) or keys.insecure):
        yield Problem(
            ("s3_auth",),
            f"'anonymous' would let anyone read through {keys.listen_host}; "
            'set s3_auth = "keys", or "ignore" with s3_trusted_networks, or insecure = true, or '
            "leave s3_port out",
        )
    if keys.s3_auth == "keys" and not keys.s3_keys:
        yield Problem(
            ("s3_keys",),
            "there is none, so that nobody could read; add [s3_keys.NAME] with access_key_id and "
            'secret_access_key = { env = "NAME" } or { file = "PATH" }',
        )
    names: dict[str, str] = {}
    for name, key in keys.s3_keys.items():
        other = names.setdefault(key.access_key_id, name)
        if other != name:
            yield Problem(
                ("s3_keys", name, "access_key_id"),
                f"[s3_keys.{other}] has the same; give each its own",
            )


def _ports(keys: SharedKeys) -> Iterator[Problem]:
    for first, second in combinations(_PORTS, 2):
        port = getattr(keys, first, None)
        if port and port == getattr(keys, second, None):
            yield Problem((second,), f"{port} is {first} already; give each its own, or 0 for any")


def _inflight(keys: NodeKeys) -> Iterator[Problem]:
    least = LANE_SHARES * ClusterSettings().changed(keys.settings).chunk_size
    if keys.inflight_max < least:
        yield Problem(
            ("inflight_max",),
            f"{format_size(keys.inflight_max)} have no room for one chunk in each direction; "
            f"set at least {format_size(least)}, {LANE_SHARES} times chunk_size",
        )


def _tiers(keys: NodeKeys) -> Iterator[Problem]:
    if not keys.tiers:
        yield Problem(
            ("tiers",),
            "there is none; add [[tiers]] with path, capacity and role, "
            'for example path = "/mnt/nvme0", capacity = "4TB", role = "owned"',
        )
    state_dir = _real(keys.state_dir)
    for index, tier in enumerate(keys.tiers):
        place, path = ("tiers", index, "path"), _real(tier.path)
        if _overlap(path, state_dir):
            yield Problem(place, f"{tier.path} and state_dir {keys.state_dir} must lie apart")
        for other in keys.tiers[:index]:
            if _overlap(path, _real(other.path)):
                yield Problem(place, f"{tier.path} and the tier {other.path} must lie apart")


def _etcd(keys: SharedKeys) -> Iterator[Problem]:
    etcd = keys.etcd
    if etcd is None:
        return
    if bool(etcd.username) != bool(etcd.password):
        yield Problem(("etcd",), "username and password go together; set both or none")
    if bool(etcd.cert) != bool(etcd.key):
        yield Problem(("etcd",), "cert and key go together; set both or none")


def _files(keys: SharedKeys) -> Iterator[Problem]:
    sections = {
        ("tls",): keys.tls,
        ("auth",): keys.auth,
        ("auth", "kubernetes"): keys.auth.kubernetes if keys.auth else None,
        ("etcd",): keys.etcd,
    }
    for place, section in sections.items():
        for name in ("cert", "key", "ca", "tokens_file", "kubeconfig"):
            path = getattr(section, name, None)
            if path is not None:
                yield from _readable((*place, name), path)


def _readable(place: Place, path: Path) -> Iterator[Problem]:
    if not path.is_file():
        yield Problem(place, f"there is no file {path}")
    elif not os.access(path, os.R_OK):
        yield Problem(place, f"{path} cannot be read by this user (uid {os.getuid()})")


def _volumes(keys: SharedKeys) -> Iterator[Problem]:
    for name, section in keys.volumes.items():
        place: Place = ("volumes", name)
        shape = _catalogued_shape(section) if section.catalogued else _passthrough_shape(section)
        if shape:
            yield Problem(place, shape)
        else:
            yield from _volume(keys, place, name, section)


def _passthrough_shape(section: VolumeSection) -> str:
    if section.origins:
        return "origins are of catalogued volumes: set catalogued = true, or url in their place"
    return "" if section.url else 'no url; set it, for example url = "s3://bucket/prefix/"'


def _catalogued_shape(section: VolumeSection) -> str:
    if section.url or section.options or section.secret:
        return "catalogued: its url, options and secret stand in its origins, one by one"
    example = 'origins = [{ url = "s3://bucket/prefix/" }]'
    return "" if section.origins else f"no origins; set them, for example {example}"


def _volume(keys: SharedKeys, place: Place, name: str, section: VolumeSection) -> Iterator[Problem]:
    try:
        volume = section.to_volume(name)
    except InvalidRequest as error:
        yield Problem(place, str(error))
        return
    if not volume.is_catalogued:
        yield from _place(keys, place, volume)
    for index, origin in enumerate(volume.origins):
        yield from _place(keys, (*place, "origins", index), origin)


def _place(keys: SharedKeys, place: Place, volume: Volume) -> Iterator[Problem]:
    if volume.secret:
        yield from _volume_secret(keys, place, volume)
    if volume.kind == "file":
        yield from _file_root(keys, place, volume)


def _volume_secret(keys: SharedKeys, place: Place, volume: Volume) -> Iterator[Problem]:
    assert volume.secret, "called for volumes with a secret"
    secret = keys.secrets.get(volume.secret)
    if secret is None:
        yield Problem((*place, "secret"), missing_secret(keys, volume.secret))
        return
    where = f"a secret for {volume.scheme}:// volumes"
    try:
        credential_options(volume.kind, dict.fromkeys(secret.options, ""), where=where)
    except InvalidRequest as error:
        yield Problem(("secrets", volume.secret), str(error))


def _file_root(keys: SharedKeys, place: Place, volume: Volume) -> Iterator[Problem]:
    path = _real(Path("/", volume.prefix))
    if not any(path.is_relative_to(_real(root)) for root in keys.allow_file_roots):
        yield Problem(
            (*place, "url"), f'{volume.url} lies outside allow_file_roots; add "{path}" there'
        )


def missing_secret(keys: SharedKeys, name: str) -> str:
    """Return what to say of a secret that this node does not have: with the fix."""
    known = ", ".join(keys.secrets) or "none"
    return (
        f"this node has no secret {name!r} (it has: {known}); add [secrets.{name}] with hosts and, "
        'for each option, { env = "NAME" } or { file = "PATH" }'
    )


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)

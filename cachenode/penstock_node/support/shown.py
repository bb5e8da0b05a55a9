"""Which values of a configuration are told to others: those that are named here, and no others.

Responsible for: masking everything whose key is not known to hold no secret: also keys that are
added later, until somebody names them here.
"""

from collections.abc import Mapping
from typing import Any

from penstock.masking import MASK, mask

ANY = "*"
"""In a key: any name, or any place in a list."""


def _keys(text: str) -> frozenset[tuple[str, ...]]:
    return frozenset(tuple(key.split(".")) for key in text.split())


_OPTIONS = (
    "endpoint region default_region base_url account_name redirect_hosts request_payer s3_express "
    "skip_signature unsigned_payload virtual_hosted_style_request imdsv1_fallback use_emulator "
    "use_fabric_endpoint allow_http allow_invalid_certificates http1_only http2_only "
    "http2_keep_alive_while_idle randomize_addresses pool_max_idle_per_host connect_timeout "
    "read_timeout timeout pool_idle_timeout http2_keep_alive_interval http2_keep_alive_timeout"
)
"""Of volumes. A proxy's url, a certificate and what a client calls itself may tell more."""
_PLACE = ("url", "secret", *(f"options.{name}" for name in _OPTIONS.split()))
_VOLUME = (
    *_PLACE,
    *(f"origins.*.{key}" for key in _PLACE),
    "limits.*",
    "replicas",
    "writable",
    "catalogued",
    "uid",
)

SHOWN = _keys(
    "cluster state_dir listen_host advertise_host advertise_domain grpc_port bulk_port admin_port "
    "s3_port socket insecure log_format log_level allow_file_roots.* weight zone join_after "
    "s3_domain s3_auth s3_trusted_networks.* hub_volumes.* admin_open inflight_max catalog "
    "mirror_of settings.* "
    "etcd.endpoints.* etcd.ca etcd.cert etcd.key tls.cert tls.key tls.ca tls.ports.* "
    "tls.client_certificates "
    "auth.tokens_file auth.audit_file auth.kubernetes.audience auth.kubernetes.kubeconfig "
    "auth.kubernetes.grants.*.service_account auth.kubernetes.grants.*.namespace "
    "auth.kubernetes.grants.*.role auth.kubernetes.grants.*.volumes.* socket_auth "
    "tiers.*.path tiers.*.capacity tiers.*.role tiers.*.free_floor tiers.*.read_only_path "
    "secrets.*.hosts.* s3_keys.*.volumes.* " + " ".join(f"volumes.*.{key}" for key in _VOLUME)
)
"""Keys of configurations and of volumes that hold no secret. Files are named, never read."""


def shown(value: Any, *at: str) -> Any:
    """Return JSON values with everything masked that is not in `SHOWN`.

    Args:
        value: As JSON has it.
        at: The keys that lead to it.
    """
    match value:
        case Mapping():
            return {name: shown(each, *at, str(name)) for name, each in value.items()}
        case list() | tuple():
            return [shown(each, *at, str(index)) for index, each in enumerate(value)]
        case None:
            return None
        case str():
            return (mask(value) if value else value) if _is_shown(at) else MASK
        case _:
            return value if _is_shown(at) else MASK


def _is_shown(at: tuple[str, ...]) -> bool:
    return any(
        len(key) == len(at) and all(word in (ANY, name) for word, name in zip(key, at, strict=True))
        for key in SHOWN
    )

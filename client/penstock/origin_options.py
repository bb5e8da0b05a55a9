"""Options of origins: which names there are, and which may stand in a volume.

Responsible for: one canonical name per option, whatever spelling was written; the nearest
known name in an error; telling a store's options from those of its HTTP client; keeping
credentials, and whatever decides where credentials go, out of volumes.
Not responsible for: what an option does (`obstore` documents that), building stores.

Names are checked before `obstore` sees them: depending on its version it panics at one that it
does not know. Options that concern writing alone are left out: origins are only read.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from penstock.errors import InvalidRequest
from penstock.nearest import did_you_mean
from penstock.units import parse_duration

Kind: TypeAlias = Literal["s3", "gcs", "azure", "http", "file", "hf", "catalog"]
OptionValue: TypeAlias = str | int | float | bool

KIND_OF_SCHEME: Mapping[str, Kind] = {
    "s3": "s3",
    "gs": "gcs",
    "az": "azure",
    "abfs": "azure",
    "abfss": "azure",
    "http": "http",
    "https": "http",
    "file": "file",
    "hf": "hf",
}

_PREFIXES: Mapping[Kind, tuple[str, ...]] = {
    "s3": ("aws_",),
    "gcs": ("google_",),
    "azure": ("azure_storage_", "azure_"),
    "http": (),
    "file": (),
    "hf": ("hf_",),
    "catalog": (),
}

_SPELLINGS: Mapping[Kind, Mapping[str, str]] = {
    "s3": {
        "endpoint_url": "endpoint",
        "endpoint_url_s3": "endpoint",
        "endpoint_url_sts": "sts_endpoint",
        "token": "session_token",
        "bucket_name": "bucket",
    },
    "gcs": {
        "service_account_path": "service_account",
        "bucket_name": "bucket",
        "endpoint": "base_url",
    },
    "azure": {
        "access_key": "account_key",
        "master_key": "account_key",
        "sas_token": "sas_key",
        "authority_id": "tenant_id",
        "identity_endpoint": "msi_endpoint",
        "container": "container_name",
    },
    "http": {},
    "file": {},
    "hf": {},
    "catalog": {},
}


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_STORE_OPTIONS: Mapping[Kind, frozenset[str]] = {
    "s3": _names(
        "endpoint region default_region request_payer s3_express skip_signature "
        "unsigned_payload virtual_hosted_style_request imdsv1_fallback"
    ),
    "gcs": _names("base_url skip_signature"),
    "azure": _names("account_name endpoint skip_signature use_emulator use_fabric_endpoint"),
    "http": frozenset(),
    "file": frozenset(),
    "hf": _names("endpoint redirect_hosts"),
    "catalog": frozenset(),
}

_CREDENTIAL_OPTIONS: Mapping[Kind, frozenset[str]] = {
    "s3": _names(
        "access_key_id secret_access_key session_token role_arn role_session_name "
        "sse_customer_key_base64 web_identity_token_file metadata_endpoint sts_endpoint "
        "container_credentials_relative_uri container_credentials_full_uri "
        "container_authorization_token_file"
    ),
    "gcs": _names("service_account service_account_key bearer_token application_credentials"),
    "azure": _names(
        "account_key client_id client_secret tenant_id authority_host sas_key token encryption_key "
        "msi_endpoint msi_resource_id object_id federated_token_file use_azure_cli credential_type "
        "fabric_token_service_url fabric_workload_host fabric_session_token "
        "fabric_cluster_identifier"
    ),
    "http": frozenset({"token"}),
    "file": frozenset(),
    "hf": frozenset({"token"}),
    "catalog": frozenset(),
}

_PLACES = frozenset({"bucket", "container_name"})
"""What the volume's url says already."""

_BOOL_OPTIONS = _names(
    "allow_http allow_invalid_certificates http1_only http2_only http2_keep_alive_while_idle "
    "randomize_addresses skip_signature s3_express unsigned_payload imdsv1_fallback "
    "virtual_hosted_style_request use_emulator use_fabric_endpoint"
)
_DURATION_OPTIONS = _names(
    "connect_timeout read_timeout timeout pool_idle_timeout http2_keep_alive_interval "
    "http2_keep_alive_timeout"
)
_CLIENT_OPTIONS = (
    _names(
        "allow_http allow_invalid_certificates http1_only http2_only http2_keep_alive_while_idle "
        "randomize_addresses pool_max_idle_per_host proxy_url proxy_excludes proxy_ca_certificate "
        "root_certificate user_agent"
    )
    | _DURATION_OPTIONS
)
_HUB_CLIENT_OPTIONS = _names("allow_http connect_timeout read_timeout timeout")
"""Hubs are not read with `obstore`."""
# A header can be a credential: `default_headers` is not offered.
_CLIENT_CREDENTIALS = frozenset({"default_headers", "authorization", "password", "username"})

_TRUE = frozenset({"true", "1", "on", "yes"})
_FALSE = frozenset({"false", "0", "off", "no"})


@dataclass(frozen=True, slots=True)
class OriginOptions:
    """A volume's options as `obstore` takes them: canonical names, values as text."""

    store: Mapping[str, str]
    client: Mapping[str, str]


def canonical_name(kind: Kind, name: str) -> str:
    """Return the one name of an option, for example ``endpoint`` for ``AWS_ENDPOINT_URL``."""
    name = name.strip().lower()
    for prefix in _PREFIXES[kind]:
        if name.startswith(prefix):
            name = name.removeprefix(prefix)
            break
    return _SPELLINGS[kind].get(name, name)


def _known_in_volumes(kind: Kind) -> frozenset[str]:
    if kind == "file":
        return frozenset()
    return _STORE_OPTIONS[kind] | (_HUB_CLIENT_OPTIONS if kind == "hf" else _CLIENT_OPTIONS)


def _unknown(name: str, known: Iterable[str], *, where: str) -> InvalidRequest:
    names = sorted(known)
    if not names:
        return InvalidRequest(f"{where} takes no options, and has {name!r}; remove it")
    return InvalidRequest(f"{where} has no option {name!r}; {did_you_mean(name.lower(), names)}")


def _option_name(kind: Kind, written: str, *, where: str) -> str:
    name = canonical_name(kind, written)
    if name in _CREDENTIAL_OPTIONS[kind] or name in _CLIENT_CREDENTIALS:
        raise InvalidRequest(
            f"{where}: {written!r} is or leads to a credential, and options are readable by all; "
            "put it into [secrets.NAME] of each node's configuration and name that as `secret`"
        )
    if name in _PLACES and kind != "http":
        raise InvalidRequest(f"{where}: {written!r} belongs in the volume's url")
    if name not in _known_in_volumes(kind):
        raise _unknown(written, _known_in_volumes(kind), where=where)
    return name


def _bool_text(name: str, value: OptionValue, *, where: str) -> str:
    text = str(value).lower()
    if text not in _TRUE | _FALSE:
        raise InvalidRequest(f"{where}: {name}={value!r}: want true or false")
    return "true" if text in _TRUE else "false"


def _duration_text(name: str, value: OptionValue, *, where: str) -> str:
    try:
        seconds = parse_duration(str(value))
    except InvalidRequest as error:
        raise InvalidRequest(f"{where}: {name}: {error}") from error
    return f"{max(1, round(seconds * 1000))}ms"


def value_text(name: str, value: OptionValue, *, where: str) -> str:
    """Return an option's value as `obstore` reads it.

    Raises:
        InvalidRequest: It is not of the option's type.
    """
    if not isinstance(value, str | int | float):
        raise InvalidRequest(f"{where}: {name}: want a text, a number, true or false")
    if name == "proxy_url" and "@" in str(value):
        raise InvalidRequest(f"{where}: proxy_url: options are readable by all; no password here")
    if name in _BOOL_OPTIONS:
        return _bool_text(name, value, where=where)
    if name in _DURATION_OPTIONS:
        return _duration_text(name, value, where=where)
    return str(value).lower() if isinstance(value, bool) else str(value)


def sort_options(kind: Kind, options: Mapping[str, OptionValue], *, where: str) -> OriginOptions:
    """Check a volume's options and sort them into the store's and its HTTP client's.

    Args:
        kind: Of the store; see `KIND_OF_SCHEME`.
        options: As written, in any of the spellings that `obstore` accepts.
        where: Whose options they are, for error messages.

    Raises:
        InvalidRequest: A name is unknown (with the nearest known one), twice there, a
            credential, or part of the url; or a value is not of the option's type.
    """
    store: dict[str, str] = {}
    client: dict[str, str] = {}
    for written, value in options.items():
        name = _option_name(kind, written, where=where)
        if name in store or name in client:
            raise InvalidRequest(f"{where}: option {name!r} is there twice, as {written!r} too")
        target = client if name in _CLIENT_OPTIONS else store
        target[name] = value_text(name, value, where=where)
    return OriginOptions(store, client)


def credential_options(kind: Kind, values: Mapping[str, str], *, where: str) -> dict[str, str]:
    """Check the names of a secret's values and return them canonical.

    Raises:
        InvalidRequest: A name is not one of the store's credentials.
    """
    known = _CREDENTIAL_OPTIONS[kind]
    found: dict[str, str] = {}
    for written, value in values.items():
        name = canonical_name(kind, written)
        if name not in known:
            raise _unknown(written, known, where=where)
        found[name] = value
    return found

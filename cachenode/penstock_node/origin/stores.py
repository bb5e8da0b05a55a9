"""Make `obstore` stores of volumes, so that they go where the volume says and nowhere else.

Responsible for: which credentials are used and to which hosts they may be sent, keeping the
process's environment from diverting a volume, and refusing redirects to other hosts.

`obstore` follows redirects to any host and has no switch for it. It has a proxy for all hosts
but those excluded: the volume's own hosts are excluded, and the proxy is a port that nobody can
listen on. So a volume that really needs a proxy names it in its options (``proxy_url``), and
that proxy then decides where requests may go; ``HTTPS_PROXY`` and the like are not looked at.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, cast
from urllib.parse import urlsplit

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, HTTPStore, S3Store

from penstock import hub_urls
from penstock.errors import InvalidConfiguration, InvalidRequest, NotPermitted
from penstock.origin_options import credential_options
from penstock.volumes import Volume
from penstock_node.origin.errors import REDIRECT_TRAP, first_line, panics_as_errors
from penstock_node.origin.interface import OriginLimits, SecretSettings

Store: TypeAlias = S3Store | GCSStore | AzureStore | HTTPStore
Credentials: TypeAlias = Mapping[str, str]

_USUAL_HOST = {
    "s3": "s3.amazonaws.com",
    "gcs": "storage.googleapis.com",
    "hf": urlsplit(hub_urls.USUAL_ENDPOINT).netloc,
}
_USUAL_DOMAINS = {
    "s3": ".amazonaws.com",
    "gcs": ".googleapis.com",
    "azure": ".windows.net,.fabric.microsoft.com,.microsoftonline.com",
}
_METADATA_HOSTS = "169.254.169.254,169.254.170.2,169.254.170.23,metadata.google.internal"
"""Where a machine's own role comes from."""
_DEFAULT_REGION = "us-east-1"
NO_RETRIES: Mapping[str, Any] = {"max_retries": 0}
"""Attempts are counted in one place only, and for reads that is ours."""
_STATIC_KEYS = frozenset({"access_key_id", "secret_access_key", "session_token"})


def origin_host(volume: Volume) -> str:
    """Return the host, with its port if one is named, that a volume's requests go to."""
    if volume.endpoint is not None:
        return urlsplit(volume.endpoint).netloc
    if volume.kind == "http":
        return volume.place
    if volume.kind == "azure":
        account = volume.origin_options.store.get("account_name")
        return volume.place.partition("@")[2] or f"{account}.blob.core.windows.net"
    return _USUAL_HOST.get(volume.kind, "localhost")


def store_path(volume: Volume, path: str) -> str:
    """Return the path of an object within the store that `open_store` returns."""
    return f"{volume.prefix}/{path}" if volume.kind == "http" and volume.prefix else path


def _bare_host(netloc: str) -> str:
    return urlsplit(f"//{netloc}").hostname or netloc


def _is_usual_host(volume: Volume) -> bool:
    if volume.endpoint is not None or volume.kind == "http":
        return False
    return volume.kind != "azure" or origin_host(volume).endswith(".core.windows.net")


def matches(netloc: str, allowed: str) -> bool:
    """Tell whether a host, with its port if it has one, is ``allowed``; see `SecretSettings`."""
    host = _bare_host(netloc)
    return allowed in (netloc, host) or (allowed.startswith(".") and host.endswith(allowed))


def check_secret(volume: Volume, secret: SecretSettings | None) -> None:
    """Refuse to send a secret to a host that the node's operator did not name for it.

    Raises:
        NotPermitted: The volume's secret is not defined here, or not for the volume's host.
    """
    if volume.secret is None:
        return
    if secret is None:
        raise NotPermitted(
            f"volume {volume.name!r} is read with the secret {volume.secret!r}, which this node "
            f"does not define: add [secrets.{volume.secret}] to its configuration"
        )
    host = origin_host(volume)
    permitted = any(matches(host, allowed.lower()) for allowed in secret.hosts)
    if not (permitted or (not secret.hosts and _is_usual_host(volume))):
        raise NotPermitted(
            f"volume {volume.name!r} is at {host}, and the secret {secret.name!r} may not be sent "
            f"there: add {host!r} to hosts of [secrets.{secret.name}] if it should be"
        )


def _redirect_trap(volume: Volume, *, finds_credentials: bool) -> dict[str, str]:
    own = _bare_host(origin_host(volume))
    usual = _USUAL_DOMAINS.get(volume.kind, "") if _is_usual_host(volume) else ""
    excluded = [own, usual, _METADATA_HOSTS if finds_credentials else ""]
    return {
        "proxy_url": f"http://{REDIRECT_TRAP}",
        "proxy_excludes": ",".join(part for part in excluded if part),
    }


def _milliseconds(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"


def _client_options(
    volume: Volume, *, limits: OriginLimits, finds_credentials: bool
) -> dict[str, Any]:
    given = volume.origin_options.client
    defaults = {
        "connect_timeout": _milliseconds(limits.connect_timeout_s),
        "read_timeout": _milliseconds(limits.silence_timeout_s),
        "timeout": _milliseconds(limits.request_timeout_s),
        "pool_max_idle_per_host": str(limits.requests_max),
        "user_agent": "penstock",
    }
    if volume.scheme == "http":
        defaults["allow_http"] = "true"
    if "proxy_url" not in given:
        defaults |= _redirect_trap(volume, finds_credentials=finds_credentials)
    return {**defaults, **given}


def s3_config(volume: Volume) -> dict[str, str]:
    """Return an S3 volume's options, with its endpoint and region, whatever is usual."""
    given = volume.origin_options.store
    region = given.get("region") or os.environ.get("AWS_REGION") or _DEFAULT_REGION
    config = {"virtual_hosted_style_request": "false", "region": region, **given}
    # Said even where it is the usual one: AWS_ENDPOINT_URL of the environment would win else.
    config["endpoint"] = volume.endpoint or f"https://s3.{region}.amazonaws.com"
    if "AWS_ENDPOINT_URL_S3" in os.environ:
        # It wins over `endpoint`, and users are told to set it to Penstock's own gateway.
        config["aws_endpoint_url_s3"] = config["endpoint"]
    return config


def _static_keys(credentials: Credentials) -> Callable[[], Any]:
    # As a provider, so that a session token of the environment is not mixed in.
    keys = {
        "access_key_id": credentials["access_key_id"],
        "secret_access_key": credentials["secret_access_key"],
        "token": credentials.get("session_token"),
        "expires_at": None,
    }
    return lambda: keys


def _s3_store(
    volume: Volume, config: dict[str, Any], credentials: Credentials, common: dict[str, Any]
) -> S3Store:
    if "access_key_id" in credentials:
        common = {**common, "credential_provider": _static_keys(credentials)}
    config |= {name: credentials[name] for name in credentials if name not in _STATIC_KEYS}
    return S3Store(
        volume.place,
        prefix=volume.prefix or None,
        config=cast("Any", {**s3_config(volume), **config}),
        **common,
    )


def _azure_store(volume: Volume, config: dict[str, Any], common: dict[str, Any]) -> AzureStore:
    container, _, host = volume.place.partition("@")
    if host:
        return AzureStore.from_url(volume.url, config=cast("Any", config), **common)
    return AzureStore(container, prefix=volume.prefix or None, config=cast("Any", config), **common)


def _http_store(volume: Volume, credentials: Credentials, common: dict[str, Any]) -> HTTPStore:
    if "token" in credentials:
        headers = {"authorization": f"Bearer {credentials['token']}"}
        common["client_options"]["default_headers"] = headers
    # Without the prefix, which it would percent-decode: `store_path` brings it.
    return HTTPStore(f"{volume.scheme}://{volume.place}/", **common)


def _make(
    volume: Volume, config: dict[str, Any], credentials: Credentials, common: dict[str, Any]
) -> Store:
    if volume.kind == "s3":
        return _s3_store(volume, config, credentials, common)
    if volume.kind == "gcs":
        config |= credentials
        return GCSStore(
            volume.place, prefix=volume.prefix or None, config=cast("Any", config), **common
        )
    if volume.kind == "azure":
        return _azure_store(volume, {**config, **credentials}, common)
    assert volume.kind == "http", f"a {volume.scheme} volume has no object store"
    return _http_store(volume, credentials, common)


def credentials_of(volume: Volume, secret: SecretSettings | None) -> Credentials:
    """Return a secret's values by the options of the volume's store, if it has one.

    Raises:
        InvalidConfiguration: They do not suit the store.
    """
    if volume.secret is None or secret is None:
        return {}
    where = f"[secrets.{secret.name}] for a {volume.scheme} volume"
    try:
        found = credential_options(volume.kind, secret.values, where=where)
    except InvalidRequest as error:
        raise InvalidConfiguration(str(error)) from error
    if ("access_key_id" in found) != ("secret_access_key" in found):
        raise InvalidConfiguration(f"{where}: access_key_id and secret_access_key go together")
    return found


def is_anonymous(volume: Volume, credentials: Credentials) -> bool:
    """Whether a volume with these ``credentials`` is read without any; see `open_store`."""
    return not credentials and not _is_usual_host(volume)


def open_store(
    volume: Volume,
    secret: SecretSettings | None,
    *,
    limits: OriginLimits,
    retries: Mapping[str, Any] = NO_RETRIES,
) -> Store:
    """Return the store of a volume. Nothing is sent yet.

    Without a secret, a volume at its scheme's usual host is read with the credentials that the
    machine itself has (its role, its environment); a volume at any other host is read without
    credentials, so that whoever may add volumes cannot send them anywhere.

    Raises:
        NotPermitted: The secret is not defined here, or may not be sent to the volume's host.
        InvalidConfiguration: The secret's values do not suit the store.
        InvalidRequest: `obstore` cannot work with the options.
    """
    check_secret(volume, secret)
    credentials = credentials_of(volume, secret)
    anonymous = is_anonymous(volume, credentials)
    common: dict[str, Any] = {
        "client_options": _client_options(
            volume,
            limits=limits,
            finds_credentials=not anonymous and "access_key_id" not in credentials,
        ),
        "retry_config": dict(retries),
    }
    config: dict[str, Any] = dict(volume.origin_options.store)
    if anonymous:
        config.setdefault("skip_signature", "true")
    try:
        with panics_as_errors(volume):
            return _make(volume, config, credentials, common)
    except (BaseError, ValueError, TypeError) as error:
        # Their texts may quote the values of secrets.
        cause = "" if credentials else f": {first_line(error)}"
        raise InvalidRequest(
            f"volume {volume.name!r}: obstore refuses its options"
            + (f" or the secret {volume.secret!r}" if credentials else "")
            + cause
        ) from None

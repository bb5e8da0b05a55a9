"""A whole configuration from one directory and some volumes: `penstock node --dir`.

Responsible for: where state and cache lie, how large the cache may grow, and taking credentials
and the endpoint for S3 from the environment variables that AWS's own tools use.
Not responsible for: checking the result (`config`).
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from penstock.errors import InvalidConfiguration
from penstock_node.atomic_file import write_atomically
from penstock_node.config_sources import Layer, Place

ENVIRONMENT_SECRET = "environment"  # noqa: S105 - the name of a secret, not its value.
FREE_SHARE = 0.9
"""Of the file system's free bytes; the rest is for footers, state and other people's files."""
CAPACITY_FILE = "capacity_bytes"

_SECRET_VARIABLES = {
    "access_key_id": "AWS_ACCESS_KEY_ID",
    "secret_access_key": "AWS_SECRET_ACCESS_KEY",
    "session_token": "AWS_SESSION_TOKEN",
}
_REGION_DEFAULT = "us-east-1"


def directory_layer(
    directory: Path, volumes: Sequence[str], *, capacity: str | int | None
) -> Layer:
    """Return the values of a standalone node below ``directory``; ``volumes`` are ``name=url``.

    Raises:
        InvalidConfiguration: A volume is not ``name=url``, or the directory cannot be used.
    """
    urls = _urls(volumes)
    secrets = _environment_secrets()
    values: dict[str, Any] = {
        "state_dir": str(directory / "state"),
        "tiers": [
            {
                "path": str(directory / "cache"),
                "capacity": capacity or _remembered_capacity(directory / "state"),
                "role": "owned",
            }
        ],
        "volumes": {name: _volume(url, has_secret=bool(secrets)) for name, url in urls.items()},
        "secrets": secrets,
        "allow_file_roots": [_file_path(url) for url in urls.values() if _is(url, "file")],
    }
    return Layer(values, _where)


def _where(place: Place) -> str:
    flags = {"volumes": "flag --volume", "allow_file_roots": "flag --volume"}
    if place[0] == "secrets":
        return "environment variables AWS_…"
    return flags.get(str(place[0]), "flag --dir")


def _urls(volumes: Sequence[str]) -> dict[str, str]:
    urls: dict[str, str] = {}
    for volume in volumes:
        name, separator, url = volume.partition("=")
        if not (name and separator and url):
            raise InvalidConfiguration(
                f"--volume {volume!r}: want name=url, for example models=s3://bucket/"
            )
        if name in urls:
            raise InvalidConfiguration(f"--volume {name!r} is given twice; each needs its own name")
        urls[name] = url
    return urls


def _volume(url: str, *, has_secret: bool) -> dict[str, Any]:
    if not _is(url, "s3"):
        return {"url": url}
    volume: dict[str, Any] = {"url": url, "options": _s3_options()}
    return volume | ({"secret": ENVIRONMENT_SECRET} if has_secret else {})


def _s3_options() -> dict[str, Any]:
    options: dict[str, Any] = {"region": _region()}
    endpoint = _endpoint()
    if endpoint:
        options["endpoint"] = endpoint
    if endpoint.startswith("http://"):
        options["allow_http"] = True
    return options


def _environment_secrets() -> dict[str, Any]:
    present: Mapping[str, Any] = {
        option: {"env": variable}
        for option, variable in _SECRET_VARIABLES.items()
        if os.environ.get(variable)
    }
    if not {"access_key_id", "secret_access_key"} <= present.keys():
        return {}
    return {ENVIRONMENT_SECRET: {**present, "hosts": _s3_hosts()}}


def _s3_hosts() -> list[str]:
    """Return where the keys may go; none named means AWS's own hosts."""
    endpoint = _endpoint()
    return [urlsplit(endpoint).netloc] if endpoint else []


def _endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def _region() -> str:
    named = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return named or _REGION_DEFAULT


def _is(url: str, scheme: str) -> bool:
    return url.lower().startswith(f"{scheme}://")


def _file_path(url: str) -> str:
    return url.partition("://")[2]  # Literal, as all urls of volumes are.


def _remembered_capacity(state_dir: Path) -> int:
    """Return the capacity decided at the first start here, in bytes; decide it now if this is it.

    What is free shrinks as the cache fills: decided anew, each restart would shrink the cache
    and change the node's weight, and so move chunks.
    """
    path = state_dir / CAPACITY_FILE
    try:
        if path.exists():
            return int(path.read_text())
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        capacity = int(shutil.disk_usage(state_dir).free * FREE_SHARE)
        write_atomically(path, f"{capacity}\n".encode())
        return capacity
    except ValueError as error:
        raise InvalidConfiguration(
            f"{path} does not hold a number of bytes; remove it, or use --capacity"
        ) from error
    except OSError as error:
        raise InvalidConfiguration(
            f"--dir {state_dir.parent}: cannot be used: {error.strerror}; give a directory that "
            "this user may write"
        ) from error

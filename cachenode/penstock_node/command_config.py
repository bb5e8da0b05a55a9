"""`penstock config check`: whether a node would start with a configuration file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from penstock.cli.connection import Json
from penstock.cli.output import note, say, say_json, verb
from penstock.errors import InvalidConfiguration
from penstock.units import format_size
from penstock_node.config import NodeConfig

config = typer.Typer(no_args_is_help=True, help="Check a node's configuration file.")


@config.callback()
def _group() -> None:
    """Check a node's configuration file."""  # With a callback one verb stays a verb.


@config.command()
@verb
def check(
    file: Annotated[Path, typer.Argument(help="TOML, as for penstock node --config.")],
    *,
    as_json: Json = False,
) -> None:
    """Check a file, with the environment over it, as a node would; starts nothing."""
    found = NodeConfig.load(file)
    warnings = list(_absent_secrets(found))
    if as_json:
        say_json({"file": str(file), **_summary(found), "warnings": warnings})
    else:
        for name, value in _summary(found).items():
            say(f"{name:10} {_for_people(value)}")
        say(f"{file} is good")
    for warning in warnings:
        note(warning)


def _absent_secrets(found: NodeConfig) -> Iterator[str]:
    """Yield what the node would miss; here it may be absent, where the node runs it may not."""
    for name in found.secrets:
        try:
            found.resolve_secret(name)
        except InvalidConfiguration as error:
            yield str(error)


def _summary(found: NodeConfig) -> dict[str, Any]:
    return {
        "cluster": found.cluster,
        "listen": f"{found.listen_host}:{found.grpc_port}",
        "state_dir": str(found.state_dir),
        "etcd": list(found.etcd.endpoints) if found.etcd else None,
        "tiers": [
            {"path": str(tier.path), "role": tier.role, "capacity_bytes": tier.capacity}
            for tier in found.tiers
        ],
        "volumes": {name: volume.whereabouts for name, volume in found.cluster_volumes.items()},
    }


def _for_people(value: Any) -> str:
    match value:
        case None:
            return "none: a cluster of one"
        case dict():
            return ", ".join(f"{name} = {url}" for name, url in value.items()) or "none"
        case list():
            return ", ".join(_for_people_item(item) for item in value)
        case _:
            return str(value)


def _for_people_item(item: Any) -> str:
    if isinstance(item, dict):
        return f"{item['path']} ({item['role']}, {format_size(item['capacity_bytes'])})"
    return str(item)

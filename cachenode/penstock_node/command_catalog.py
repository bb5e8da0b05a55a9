"""`penstock catalog`: run the catalog until it is told to stop."""

import asyncio
import gc
import signal
from pathlib import Path
from typing import Annotated, Any

import typer

from penstock_node.catalog_server.process import Catalog
from penstock_node.config_catalog import CatalogConfig
from penstock_node.log_lines import LogLines
from penstock_node.logs import configure_logs
from penstock_node.tasks import until_stopped

_MADE_BETWEEN_COLLECTIONS = 100_000
"""Of a listing there are tuples by the million at a time, and no cycles among them: looking for
those again and again, as Python does by default, is a sixth of an import."""


def catalog(
    config: Annotated[
        Path | None, typer.Option(help="Configuration file (TOML).", dir_okay=False)
    ] = None,
    state_dir: Annotated[
        Path | None, typer.Option(help="Where it keeps its database, unless it has another.")
    ] = None,
    database: Annotated[
        str | None, typer.Option(help="postgresql://USER:PASSWORD@HOST/NAME or sqlite:///PATH.")
    ] = None,
    listen_host: Annotated[str | None, typer.Option(help="Address to bind.")] = None,
    grpc_port: Annotated[int | None, typer.Option(help="0 for any free one.")] = None,
    admin_port: Annotated[int | None, typer.Option(help="0 for any free one.")] = None,
    insecure: Annotated[
        bool | None, typer.Option("--insecure", help="Plain text off loopback.")
    ] = None,
) -> None:
    """Run the catalog until SIGTERM or SIGINT: which files catalogued volumes have."""
    flags: dict[str, Any] = {
        "state_dir": state_dir.resolve() if state_dir else None,
        "database": database,
        "listen_host": listen_host,
        "grpc_port": grpc_port,
        "admin_port": admin_port,
        "insecure": insecure,
    }
    loaded = CatalogConfig.load(config, flags=flags)
    lines = configure_logs(level=loaded.log_level, log_format=loaded.log_format)
    asyncio.run(_run(loaded, lines))


async def _run(config: CatalogConfig, lines: LogLines) -> None:
    gc.freeze()
    gc.set_threshold(_MADE_BETWEEN_COLLECTIONS)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Catalog(config, lines=lines) as running:
        await until_stopped(stop, running.failed())

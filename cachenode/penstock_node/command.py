"""`penstock node`: run a cache node until it is told to stop."""

import asyncio
import gc
import signal
from pathlib import Path
from typing import Annotated, Any

import typer

from penstock.errors import InvalidConfiguration
from penstock_node.allocation import keep_freed_memory
from penstock_node.config import NodeConfig
from penstock_node.descriptors import raise_descriptor_limit
from penstock_node.log_lines import LogLines
from penstock_node.logs import configure_logs
from penstock_node.node import Node
from penstock_node.tasks import until_stopped


def node(
    config: Annotated[
        Path | None, typer.Option(help="Configuration file (TOML).", dir_okay=False)
    ] = None,
    directory: Annotated[
        Path | None,
        typer.Option("--dir", help="Run a whole standalone node below this directory."),
    ] = None,
    volume: Annotated[
        list[str] | None,
        typer.Option(help="With --dir: name=url, e.g. models=s3://bucket/. May be repeated."),
    ] = None,
    capacity: Annotated[
        str | None, typer.Option(help="With --dir: of the cache, e.g. 500GB; else 90 % of free.")
    ] = None,
    listen_host: Annotated[str | None, typer.Option(help="Address to bind.")] = None,
    grpc_port: Annotated[int | None, typer.Option(help="0 for any free one.")] = None,
    bulk_port: Annotated[int | None, typer.Option(help="0 for any free one.")] = None,
    admin_port: Annotated[int | None, typer.Option(help="0 for any free one.")] = None,
    insecure: Annotated[
        bool | None, typer.Option("--insecure", help="Plain text off loopback.")
    ] = None,
) -> None:
    """Run a cache node until SIGTERM or SIGINT; a restart keeps its place and its cache."""
    flags: dict[str, Any] = {
        "listen_host": listen_host,
        "grpc_port": grpc_port,
        "bulk_port": bulk_port,
        "admin_port": admin_port,
        "insecure": insecure,
    }
    gc.freeze()  # Modules stay: no pause while they are looked through for garbage, ever.
    keep_freed_memory()
    if directory is not None and config is not None:
        raise InvalidConfiguration("--config and --dir: give one of them")
    loaded = (
        NodeConfig.for_directory(directory, volume or [], capacity=capacity, **flags)
        if directory is not None
        else NodeConfig.load(config, flags=flags)
    )
    lines = configure_logs(level=loaded.log_level, log_format=loaded.log_format)
    raise_descriptor_limit()
    asyncio.run(_run(loaded, lines))


async def _run(config: NodeConfig, lines: LogLines) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    starting = asyncio.create_task(_until_stopped(config, lines, stop))
    stopping = asyncio.create_task(stop.wait())
    # A node that is told to stop while it waits for its cluster stops waiting.
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    await starting


async def _until_stopped(config: NodeConfig, lines: LogLines, stop: asyncio.Event) -> None:
    async with Node(config, lines=lines) as node:
        await until_stopped(stop, node.failed())

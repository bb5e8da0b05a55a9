"""Telling the others what this node can own: its automatic weight follows."""

import asyncio
from typing import Never

import structlog

from penstock_node.coordination import Coordination
from penstock_node.store.store import Store

LOOK_S = 0.5
"""Between looks whether a disk was lost or is back."""

_log = structlog.get_logger(__name__)


async def tell_capacity(store: Store, coordination: Coordination) -> Never:
    """Tell what the disks that work can own, whenever it changes, for ever."""
    told = store.owned_capacity_bytes
    while True:
        await asyncio.sleep(LOOK_S)
        now = store.owned_capacity_bytes
        if now != told:
            _log.warning("the owned capacity changes", before=told, now=now)
            coordination.announce(owned_capacity_bytes=now)
            told = now

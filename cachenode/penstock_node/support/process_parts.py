"""The parts that every process tells: what it runs on, its configuration, its log, its threads.

Not responsible for: what only a node knows (`node_parts`).
"""

import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from penstock_node.config_keys import SharedKeys
from penstock_node.log_lines import LINES_MAX, LogLines
from penstock_node.support import machine
from penstock_node.support.parts import Makers
from penstock_node.support.shown import shown
from penstock_node.support.stacks import task_stacks, thread_stacks

LOG = "log.jsonl"


def here(registry: CollectorRegistry) -> dict[str, Callable[[], str]]:
    """Return what makes the parts that are made on the event loop."""
    return {
        "metrics.txt": lambda: generate_latest(registry).decode(),
        "tasks.txt": task_stacks,
    }


def elsewhere(config: SharedKeys, lines: LogLines, disks: Iterable[Path]) -> Makers:
    """Return what makes the others; those that ask disks come last, as they may hang."""
    return {
        "facts.json": lambda: as_json(machine.facts()),
        "limits.json": lambda: as_json(machine.limits()),
        "configuration.json": partial(configuration, config),
        LOG: lambda: joined(lines.newest(LINES_MAX)),
        "troubles.jsonl": lambda: joined(lines.troubles()),
        "threads.txt": thread_stacks,
        "disks.json": lambda: as_json(machine.disks(disks)),
    }


def configuration(config: SharedKeys) -> str:
    """Return the configuration in force, with everything masked that may be a secret."""
    return as_json(shown(config.model_dump(mode="json")))


def as_json(value: Any) -> str:
    """Return a value as JSON for people."""
    return json.dumps(value, indent=1, default=str) + "\n"


def joined(lines: Iterable[str]) -> str:
    """Return lines as a text."""
    return "".join(f"{line}\n" for line in lines)

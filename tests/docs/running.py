"""A page, run from its first block to its last.

Responsible for: doing with each block what the vocabulary of `pages` says, and saying with page and
line what does not hold.
Not responsible for: shells (`sessions`), and what the page is run against (`fleet`).
"""

import configparser
import json
import shlex
import tempfile
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self

from penstock_node.testbed.cluster import to_toml
from penstock_node.testbed.processes import PartFailed
from tests.docs.machines import HOME, Fleet
from tests.docs.pages import COMMANDS, OUTPUT, Block, BrokenPage
from tests.docs.printed import first_missing
from tests.docs.sessions import TIMED_OUT, Outcome, Shell

_OUTPUT_CHARACTERS = 4000
_READ_YAML = ["python3", "-c", "import sys, yaml; yaml.safe_load(sys.stdin)"]
_LEAST_CONFIGURATION = {
    "tiers": [{"path": "/mnt/nvme0/penstock", "capacity": "1TB", "role": "owned"}]
}


@dataclass(slots=True)
class Counts:
    """What of a page was done, by kind."""

    done: Counter[str] = field(default_factory=Counter)
    not_run: dict[str, str] = field(default_factory=dict)
    """Blocks that no machine here can run, by their first line, and why."""


class PageRun:
    """One page on a fleet. As a context manager it ends all that the page starts."""

    def __init__(
        self,
        fleet: Fleet,
        *,
        page: str,
        at: str,
        directory: str = HOME,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start nothing yet.

        Args:
            fleet: Its machines.
            page: The page's name.
            at: The machine whose shell blocks are run in that name none.
            directory: Where its shells begin, and its files lie.
            environment: Variables that its shells begin with, on top of the machines' own.
        """
        self._fleet, self._page, self._at = fleet, page, at
        self._directory = directory
        self._environment = dict(environment or {})
        self._shells: dict[str, Shell] = {}
        self.counts = Counts()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for shell in self._shells.values():
            shell.close()

    def run(self, blocks: Sequence[Block]) -> Counts:
        """Run blocks in their order.

        Raises:
            BrokenPage: One does not do what the page says; the rest was not run.
        """
        for block in blocks:
            self._do(block)
        return self.counts

    def _do(self, block: Block) -> None:
        use = block.use
        if use.not_run:
            self.counts.not_run[block.first_line] = use.not_run
            return
        if block.language == OUTPUT and not use.file:
            self.counts.done["picture"] += 1
            return
        names = use.machines or (self._at,)
        if unknown := [name for name in names if name not in self._fleet.machines]:
            raise self._broken(block.line, f"there is no machine {unknown[0]!r}")
        # As an engineer does it who has a window for each.
        with ThreadPoolExecutor(len(names)) as threads:
            self.counts.done.update(set(threads.map(partial(self._do_at, block), names)))

    def _do_at(self, block: Block, name: str) -> str:
        """Return what was done with it: written, run or checked."""
        try:
            if block.use.file:
                self._fleet[name].write(
                    str(PurePosixPath(self._directory, block.use.file)), block.text
                )
                return "written"
            if block.language in COMMANDS:
                self._run(block, self._shell(name))
                return "run"
            self._check(block, name)
            return "checked"
        except PartFailed as failed:
            raise self._broken(block.line, str(failed)) from failed

    def _shell(self, name: str) -> Shell:
        if name not in self._shells:
            exchange = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._fleet.exchange))
            shell = Shell(self._fleet[name], exchange, page=self._page, env=self._environment)
            shell.bash(f"cd {shlex.quote(self._directory)}\n", line=1)
            self._shells[name] = shell
        return self._shells[name]

    def _run(self, block: Block, shell: Shell) -> None:
        if block.use.serves:
            output = shell.serve(block.text, block.use.serves, line=block.line)
        else:
            if block.language == "python":
                outcome = shell.python(block.text, line=block.line)
            else:
                outcome = shell.bash(block.text, line=block.line, fails=block.use.fails)
            self._judge(block, outcome)
            output = outcome.output
        missing = first_missing(block.printed, output)
        if missing is not None:
            text = f"this was not printed: {missing}\nbut:\n{output[-_OUTPUT_CHARACTERS:]}"
            raise self._broken(block.printed_line, text)

    def _judge(self, block: Block, outcome: Outcome) -> None:
        if bool(outcome.status) == block.use.fails:
            return
        if block.use.fails:
            raise self._broken(block.line, "this should have failed, and did not")
        ended = "did not end" if outcome.status == TIMED_OUT else f"ended with {outcome.status}"
        output = outcome.output[-_OUTPUT_CHARACTERS:]
        raise self._broken(outcome.line or block.line, f"this {ended}:\n{output}")

    def _check(self, block: Block, name: str) -> None:
        try:
            if block.language == "toml":
                self._check_configuration(tomllib.loads(block.text), name)
            elif block.language == "json":
                json.loads(block.text)
            elif block.language == "yaml":
                self._fleet[name].run(_READ_YAML, stdin=block.text)
            else:
                configparser.ConfigParser(strict=False).read_string(block.text)
        except (ValueError, configparser.Error) as error:
            raise self._broken(block.line, f"this is no {block.language}: {error}") from error

    def _check_configuration(self, part: Mapping[str, Any], name: str) -> None:
        file = f"{HOME}/.part-of-node.toml"
        self._fleet[name].write(file, to_toml({**_LEAST_CONFIGURATION, **part}))
        self._fleet[name].run(["penstock", "config", "check", file])

    def _broken(self, line: int, text: str) -> BrokenPage:
        return BrokenPage(self._page, line, text)

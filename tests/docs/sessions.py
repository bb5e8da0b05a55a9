"""The shells in which a page's blocks are run: a bash and a Python for each machine.

Responsible for: giving a block's lines the numbers that they have on the page, ending where a
command fails, servers that go on, and leaving no process behind.
Not responsible for: which blocks are run, and what they should print (`running`).
"""

import contextlib
import json
import os
import select
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock_node.testbed.processes import PartFailed
from tests.docs.machines import Child, Machine, end_all_of

BLOCK_TIMEOUT_S = 50.0
TIMED_OUT = 124
"""The status of what did not end in time, as `timeout` has it."""
GONE = 125
"""The status of a shell that went without a word."""
_DRIVER = Path(__file__).with_name("python_blocks.py")
_STRICT = "set -eE -o pipefail\n"
# The line that failed, by the number that it has on the page.
_TRAPS = """\
trap 'failed_at=$LINENO' ERR
trap 'echo "$? ${failed_at:-0}" >&%d' EXIT
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a block."""

    status: int
    output: str
    line: int = 0
    """Of the command that failed; 0 where that is not known."""


class Shell:
    """A page's shell on one machine."""

    def __init__(
        self, machine: Machine, exchange: Path, *, page: str, env: Mapping[str, str]
    ) -> None:
        """Start it.

        Args:
            machine: Where.
            exchange: A directory of its own that the machine sees under the same path.
            page: What lines are named by.
            env: Variables that it begins with, on top of the machine's.
        """
        self._machine, self._exchange, self._page = machine, exchange, page
        self._out = exchange / "out"
        self._sources = 0
        self._children: list[Child] = []
        self._python: Child | None = None
        self._answers, self._tell = os.pipe()
        self._bash = self._start(
            ["bash", "--noprofile", "--norc"],
            env={**machine.environment, **env},
            pass_fds=(self._tell,),
        )
        self._say(_STRICT + _TRAPS % self._tell)

    def _start(
        self,
        words: list[str],
        *,
        env: Mapping[str, str],
        log: Path | None = None,
        pass_fds: tuple[int, ...] = (),
    ) -> Child:
        with contextlib.ExitStack() as stack:
            output = stack.enter_context(log.open("wb")) if log else subprocess.PIPE
            child = self._machine.start(
                words, stdin=subprocess.PIPE, stdout=output, env=env, pass_fds=pass_fds
            )
        self._children.append(child)
        return child

    def _say(self, text: str) -> None:
        assert self._bash.stdin is not None
        self._bash.stdin.write(text.encode())
        self._bash.stdin.flush()

    def _source(self, text: str, line: int) -> Path:
        """Write a block to a file where each line has the number that it has on the page."""
        self._sources += 1
        source = self._exchange / str(self._sources) / self._page
        source.parent.mkdir(parents=True)
        source.write_text("\n" * (line - 1) + text)
        return source

    def bash(self, text: str, *, line: int, fails: bool = False) -> Outcome:
        """Run a block. It ends where a command fails, and the shell with it, but if it may fail."""
        self._out.write_text("")
        run = f"source {shlex.quote(str(self._source(text, line)))} </dev/null >{self._out} 2>&1"
        may_fail = f"set +e; {run}; echo $? 0 >&{self._tell}; {_STRICT}"
        self._say(may_fail if fails else f"{run}; echo 0 0 >&{self._tell}\n")
        status, at = self._answer(self._answers).split()
        return Outcome(int(status), self._printed(), int(at))

    def _printed(self) -> str:
        return self._out.read_text(errors="replace")

    def _answer(self, descriptor: int) -> str:
        readable, _, _ = select.select([descriptor], [], [], BLOCK_TIMEOUT_S)
        if not readable:
            return f"{TIMED_OUT} 0"
        return os.read(descriptor, 100).decode() or f"{GONE} 0"

    def _state(self) -> tuple[dict[str, str], str]:
        """Return the shell's environment and its directory."""
        told = self._exchange / "environment"
        self._say(f'(env -0; printf %s "$PWD") >{told}; echo 0 0 >&{self._tell}\n')
        self._answer(self._answers)
        *variables, directory = told.read_text().split("\0")
        return dict(each.split("=", 1) for each in variables), directory

    def python(self, text: str, *, line: int) -> Outcome:
        """Run a block in the page's Python, with the shell's environment and directory."""
        environment, directory = self._state()
        self._out.write_text("")
        if self._python is None:
            self._python = self._start(["python3", str(_DRIVER)], env=environment)
        job = {"page": self._page, "line": line, "text": text, "output": str(self._out)}
        job |= {"environment": environment, "directory": directory}
        child = self._python
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(json.dumps(job).encode() + b"\n")
        child.stdin.flush()
        status, at = self._answer(child.stdout.fileno()).split()
        return Outcome(int(status), self._printed(), int(at))

    def serve(self, text: str, url: str, *, line: int) -> str:
        """Start a block in a shell of its own; return what it has printed when ``url`` answers.

        Raises:
            PartFailed: It does not in time, or the block ended.
        """
        environment, directory = self._state()
        source, log = self._source(text, line), self._exchange / f"{line}.log"
        script = f"{_STRICT}cd {shlex.quote(directory)}; source {shlex.quote(str(source))}"
        server = self._start(["bash", "-c", script], log=log, env=environment)
        try:
            self._machine.wait_answers(url, server=server)
        except PartFailed as failed:
            raise PartFailed(f"{failed}:\n{log.read_text()}") from None
        return log.read_text()

    def close(self) -> None:
        """End the shell, and all that was started by it."""
        for child in self._children:
            end_all_of(child)
        os.close(self._answers)
        os.close(self._tell)

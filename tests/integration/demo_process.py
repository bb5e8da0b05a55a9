"""A demo as a process that a person starts: what it said, and what it left.

Responsible for: starting one with its output in pipes, waiting for its end, finding what it left.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

DEMO_TIMEOUT_S = 200
"""Two at once on a small machine that does other things too; alone it takes 25 s."""
INTERRUPT_DEADLINE_S = 60
OF_REGIONS = Path(__file__).with_name("demo_of_regions.py")
# A shell's background jobs ignore interrupts, and so would a demo that they start.
COMMAND = ["env", "--default-signal=INT", sys.executable, "-m", "penstock", "demo"]


@dataclass(frozen=True)
class Finished:
    """A demo that has ended."""

    home: Path
    """Where it made its directory."""
    status: int
    output: str
    errors: str
    figures_file: Path | None = None
    """Where its figures are, if not in its output."""

    @property
    def logs(self) -> str:
        """What the nodes said, if a claim was not kept."""
        return "\n".join(path.read_text() for path in sorted(self.home.glob("*-logs/*.log")))

    @property
    def figures(self) -> Any:
        assert self.status == 0, f"{self.errors}\n{self.logs}"
        return json.loads(self.figures_file.read_text() if self.figures_file else self.output)


def start(home: Path, *options: str) -> subprocess.Popen[str]:
    home.mkdir()
    return _started([*COMMAND, "--dir", str(home), *options])


def start_of_regions(home: Path, figures_file: Path) -> subprocess.Popen[str]:
    """Start one of two regions, whose tables are its output, and its figures in a file."""
    home.mkdir()
    return _started([sys.executable, str(OF_REGIONS), str(home), str(figures_file)])


def _started(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # gRPC's own words, of a machine that is busy, are no error of the demo's.
        env={
            **{name: value for name, value in os.environ.items() if name != "COLUMNS"},
            "GRPC_VERBOSITY": "NONE",
        },
    )


def finish(home: Path, demo: subprocess.Popen[str], figures_file: Path | None = None) -> Finished:
    output, errors = demo.communicate(timeout=DEMO_TIMEOUT_S)
    return Finished(home, demo.returncode, output, errors, figures_file)


def processes_naming(directory: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if any(str(directory) in word for word in process.cmdline()):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found

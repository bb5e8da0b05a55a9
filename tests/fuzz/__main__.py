"""Explore targets for long, one after another, and print what came of each.

    python -m tests.fuzz [NAME …] [--inputs N] [--seconds S] [--keep] [--log FILE]

By default all targets, a million inputs each. What was found on the way is kept in ``.fuzz``, and
begun from again; ``--keep`` has the few inputs that reach something new copied into the corpus
that is committed. An input that is not taken as it should be stays in ``.fuzz/NAME/findings``.
Needs atheris, which has wheels for Linux on x86-64.
"""

import argparse
import re
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.keep import corpus_of, keep
from tests.fuzz.target import AnyTarget
from tests.fuzz.targets import TARGETS

WORK = Path(".fuzz")
INPUTS = 1_000_000
INPUT_TIMEOUT_S = 5
"""Longest that one input may take, on a machine that does other things too."""
MEMORY_MIB_MAX = 1024
_DONE = re.compile(r"Done (\d+) in (\d+) second|stat::number_of_executed_units:\s*(\d+)")
_PEAK = re.compile(r"stat::peak_rss_mb:\s*(\d+)")
_COVERED = re.compile(r"cov: (\d+) ft: (\d+)")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one target."""

    name: str
    inputs: int
    seconds: float
    processor_s: float
    peak_mib: int
    findings: int
    kept: int

    def __str__(self) -> str:
        return (
            f"| {self.name} | {self.inputs:,} | {self.processor_s:,.0f} | {self.peak_mib} | "
            f"{self.findings} | {self.kept} |"
        )


TITLES = (
    "| target | inputs | processor s | peak MiB | findings | inputs kept |\n"
    "|---|--:|--:|--:|--:|--:|"
)


def explore(target: AnyTarget, *, inputs: int, seconds: int, log: Path) -> Outcome:
    """Explore one target until it has had enough, or is not as it should be."""
    work = WORK / target.name
    found, corpus = work / "findings", work / "corpus"
    found.mkdir(parents=True, exist_ok=True)
    corpus.mkdir(exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    words = work / "words"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words if len(word) < 64))
    begun, used = time.monotonic(), _children_s()
    with log.open("a") as file:
        subprocess.run(
            [
                *(sys.executable, "-m", "tests.fuzz.explore", target.name),
                ",".join(target.modules.split()),
                *(f"-runs={inputs}", f"-max_total_time={seconds}", f"-max_len={target.bytes_max}"),
                *(f"-timeout={INPUT_TIMEOUT_S}", f"-rss_limit_mb={MEMORY_MIB_MAX}"),
                *(f"-artifact_prefix={found}/", "-print_final_stats=1"),
                *([f"-dict={words}"] if words.stat().st_size else []),
                *("-len_control=20", str(corpus), str(corpus_of(target))),
            ],
            check=False,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    text = log.read_text(errors="replace").rpartition("INFO: Running with")[2]
    done = [int(next(filter(None, groups))) for groups in _DONE.findall(text)]
    peaks = [int(peak) for peak in _PEAK.findall(text)]
    return Outcome(
        target.name,
        max(done, default=0),
        time.monotonic() - begun,
        _children_s() - used,
        max(peaks, default=0),
        len(list(found.iterdir())),
        len(list(corpus_of(target).iterdir())),
    )


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _escaped(word: bytes) -> str:
    return "".join(
        chr(octet) if 32 <= octet < 127 and octet not in b'"\\' else f"\\x{octet:02x}"
        for octet in word
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments say; 1: something was found."""
    parser = argparse.ArgumentParser(prog="tests.fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--inputs", type=int, default=INPUTS)
    parser.add_argument("--seconds", type=int, default=0, help="at most so long each; 0: no bound")
    parser.add_argument("--keep", action="store_true", help="renew the corpus that is committed")
    parser.add_argument("--log", type=Path, default=WORK / "log", help="what libFuzzer says")
    chosen = parser.parse_args(arguments)
    unknown = set(chosen.names) - set(TARGETS)
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    WORK.mkdir(exist_ok=True)
    print(TITLES, flush=True)
    findings = 0
    for name in chosen.names or TARGETS:
        target = TARGETS[name]
        outcome = explore(target, inputs=chosen.inputs, seconds=chosen.seconds, log=chosen.log)
        if chosen.keep:
            keep(target, WORK / name / "corpus")
        print(outcome, flush=True)
        findings += outcome.findings
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())

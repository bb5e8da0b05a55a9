"""Work a real cluster for minutes, with faults, and tell what grew.

    python -m penstock_node.testbed.soak [--minutes 10] [--seed N] [--json FILE] [--plot FILE]

Responsible for: the command. It ends with 1 if a byte was wrong, an error went with no fault, a
log has a trouble, a disk took more than its budget, or something grew; with 130 when interrupted,
after it has told what it saw until then.
"""

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from penstock_node.testbed.benchmark import listed, machine
from penstock_node.testbed.soak import report
from penstock_node.testbed.soak.faults import Event, Faults
from penstock_node.testbed.soak.judgement import Verdict, judge
from penstock_node.testbed.soak.place import Place
from penstock_node.testbed.soak.tally import Done, told
from penstock_node.testbed.soak.watch import Seen, Watch

SEEDS = 10_000
INTERRUPTED = 130
WIDTH = 132
"""Of the table where it is no terminal that shows it."""
_PROGRESS = Console(stderr=True)


class Soak:
    """One soak, in a directory that is removed at the end."""

    def __init__(self, directory: Path, *, seed: int, minutes: float) -> None:
        self.directory, self.seed, self._seconds = directory, seed, 60.0 * minutes
        self.began = self.ended = time.time()
        self.is_interrupted = False
        self._stop = threading.Event()
        self.seen = Seen()
        self.events: list[Event] = []

    def run(self) -> Verdict:
        """Work, and judge."""
        with Place(self.directory, seed=self.seed) as place:
            faults = Faults(place, seed=self.seed, stop=self._stop)
            self.events = faults.events
            self.began = time.time()
            with _PROGRESS.status("begins") as status:

                def show(seen: Seen) -> None:
                    elapsed = time.time() - self.began
                    status.update(
                        report.progress(seen, self._counts(), elapsed_s=elapsed, now=faults.now)
                    )

                with Watch(place, on_look=show) as watch:
                    self.seen = watch.seen
                    timer = threading.Timer(self._seconds, self._stop.set)
                    timer.start()
                    try:
                        faults.run()
                    except KeyboardInterrupt:
                        self.is_interrupted = True
                    finally:
                        timer.cancel()
                    self.ended = time.time()
            for client in place.clients.values():
                client.stop()
            done, logs = self._done(), place.logs()
        return judge(self.seen, done, faults.events, logs, began=self.began, ended=self.ended)

    def _done(self) -> dict[str, Done]:
        files = (file for file in self.directory.glob("*.json") if file.name != "live.json")
        return {file.stem: told(file) for file in files}

    def _counts(self) -> tuple[int, int, int]:
        done = self._done().values()
        return (
            sum(sum(each.works.values()) for each in done),
            sum(each.read_bytes for each in done),
            sum(len(each.wrong) for each in done),
        )

    def read_bytes(self) -> int:
        """Return how many bytes were read and compared."""
        return self._counts()[1]

    def works(self) -> dict[str, int]:
        """Return how often each piece of work was done."""
        found: dict[str, int] = {}
        for each in self._done().values():
            for name, count in each.works.items():
                found[name] = found.get(name, 0) + count
        return dict(sorted(found.items()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make soak ARGS=…", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long; by default 10")
    parser.add_argument("--seed", type=int, help="of all that chance decides; by default a new one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw memory there, as SVG")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="copy all logs there")
    return parser.parse_args()


def main() -> int:
    """Run the command; return its exit status."""
    options = _arguments()
    seed = random.SystemRandom().randrange(SEEDS) if options.seed is None else options.seed
    _PROGRESS.print(f"seed {seed}, {options.minutes:g} minutes", highlight=False)
    on = machine()
    with tempfile.TemporaryDirectory(prefix="penstock-soak-") as name:
        soak = Soak(Path(name), seed=seed, minutes=options.minutes)
        verdict = soak.run()
        works = soak.works()
        if options.logs:
            _copy_logs(Path(name), options.logs)
        read = soak.read_bytes()
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(report.table(verdict))
    console.print(listed(works), highlight=False)
    console.print(f"compared {read / 1e9:.2f} GB; {listed(on)}", highlight=False)
    for line in report.sentences(verdict):
        console.print(line, highlight=False, markup=False)
    if options.json:
        inputs = {
            "seed": seed,
            "machine": on,
            "works": works,
            "read_bytes": read,
            "events": [asdict(event) for event in soak.events],
        }
        options.json.write_text(json.dumps(report.as_json(verdict, soak.seen, inputs)) + "\n")
    if options.plot:
        options.plot.write_text(
            report.as_svg(soak.seen, verdict, began=soak.began, ended=soak.ended)
        )
    again = f"python -m penstock_node.testbed.soak --seed {seed} --minutes {options.minutes:g}"
    console.print("well" if verdict.is_well else f"not well; again: {again}", highlight=False)
    return INTERRUPTED if soak.is_interrupted else int(not verdict.is_well)


def _copy_logs(directory: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for log in directory.rglob("*.log"):
        name = "-".join(log.relative_to(directory).parts)
        (target / name).write_bytes(log.read_bytes())


if __name__ == "__main__":
    sys.exit(main())

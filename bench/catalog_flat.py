"""Import ten million keys of one directory, which a made lister tells: rate and memory.

    python bench/catalog_flat.py [--quick] [--json FILE]

A bucket whose keys all lie under one prefix cannot be shared out by directories. The lister stands
at the store's edge, in this process: it makes a page of names when it is asked, so that what is
measured is the import alone, into SQLite. A second import, which finds nothing new, follows.
``--quick`` tells 20,000.
"""

import asyncio
import bisect
import resource
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from penstock_node.catalog.database import Database
from penstock_node.catalog.files import Files
from penstock_node.catalog.importing import Import
from penstock_node.origin import ListedObject, ListPage, Origin
from penstock_node.testbed.benchmark import Inputs, Measure, run_benchmark

URL = "s3://made/"
KEYS, KEYS_QUICK = 10_000_000, 20_000
THREADS = 8


def path_of(number: int) -> str:
    """Return one of the keys."""
    return f"flat/{number:09}"


@dataclass(frozen=True)
class MadeLister:
    """A bucket of so many keys."""

    keys: int

    async def list(self, prefix: str, *, after: str = "", limit: int) -> ListPage:
        """Return the keys behind one, by name."""
        first = bisect.bisect_right(range(self.keys), after, key=path_of)
        last = min(self.keys, first + limit)
        objects = tuple(
            ListedObject(path_of(number), 1, 7, f'"{number}"') for number in range(first, last)
        )
        await asyncio.sleep(0)
        return ListPage(objects, objects[-1].path if objects and last < self.keys else "")


def run_import(files: Files, keys: int, threads: ThreadPoolExecutor) -> tuple[int, int, float]:
    """Import all; return how many were new, how many as they were, and the seconds."""
    lister, lake = cast("Origin", MadeLister(keys)), files.volume("lake")
    work = Import(lake, lister, url=URL, prefix="", to="", threads=threads, prunes=True)
    begun = time.perf_counter()
    report = asyncio.run(work.run())
    return report.added, report.unchanged, time.perf_counter() - begun


def memory_bytes() -> int:
    """Return the most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(is_quick: bool) -> tuple[Inputs, list[Measure]]:
    """Import, and import again."""
    keys = KEYS_QUICK if is_quick else KEYS
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        database = Database(f"sqlite:///{Path(name)}/catalog.db")
        database.upgrade()
        with ThreadPoolExecutor(THREADS) as threads:
            added, _, first_s = run_import(Files(database), keys, threads)
            _, unchanged, again_s = run_import(Files(database), keys, threads)
        database.close()
    return {"keys": keys}, [
        Measure("keys that came", added, bound="=", target=keys),
        Measure("keys that were as before", unchanged, bound="=", target=keys),
        Measure("first import", keys / first_s, "keys/s"),
        Measure("second import", keys / again_s, "keys/s"),
        Measure("memory at most", memory_bytes() / 1e6, "MB", bound="≤", target=300.0),
    ]


if __name__ == "__main__":
    run_benchmark("Ten million keys of one directory", measure)

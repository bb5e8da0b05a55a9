"""Chunk-sized memory is reused: seen in the pages that the kernel has to bring."""

import subprocess
import sys

PROGRAM = """
import resource
from penstock_node.allocation import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    chunks = [bytes(b"x") * (8 << 20) for _ in range(4)]
    del chunks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

{tell}
faults()
print(sum(faults() for _ in range(5)))
"""
PAGES = 5 * 4 * (8 << 20) // 4096


HOLES = """
import asyncio
from pathlib import Path
from penstock_node import allocation

allocation.keep_freed_memory()
pieces = [bytes(64 << 10) for _ in range(1024)]
del pieces[:-1]  # The last one keeps the heap from shrinking.

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

before = resident()
allocation.GIVEN_BACK_EVERY_S = 0.001

async def until_given_back():
    giving_back = asyncio.create_task(allocation.give_back_for_ever())
    async with asyncio.timeout(30):
        while before - resident() < 32 << 20:
            await asyncio.sleep(0.01)
    giving_back.cancel()

asyncio.run(until_given_back())
"""
"""64 MiB are free below a piece that is in use."""


def page_faults(tell: str) -> int:
    program = PROGRAM.format(tell=tell)
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    return int(done.stdout)


def test_freed_memory_is_kept_for_the_next_chunk() -> None:
    assert page_faults("assert keep_freed_memory()") < PAGES // 10


def test_pages_that_lie_free_between_others_are_given_back_now_and_then() -> None:
    subprocess.run([sys.executable, "-c", HOLES], check=True, capture_output=True, timeout=60)

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


def page_faults(tell: str) -> int:
    program = PROGRAM.format(tell=tell)
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    return int(done.stdout)


def test_freed_memory_is_kept_for_the_next_chunk() -> None:
    assert page_faults("assert keep_freed_memory()") < PAGES // 10

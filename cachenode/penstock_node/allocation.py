"""How the node's memory is allocated: chunk-sized pieces come and go all the time.

Responsible for: keeping freed memory for the next chunk. The C library's defaults give it back to
the kernel, which then clears and maps it anew for every answer: half of the processor time of
serving 4 MiB chunks over gRPC was that.
Each arena of the C library keeps what its threads have freed, and it makes eight of them for each
processor: on a large machine hundreds, each with free memory of its own. So there are few.
Not responsible for: bounding what is in flight; the parts that hold chunks do that.
"""

import ctypes

# From glibc's malloc.h; they are part of its binary interface.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

ARENAS_MAX = 4
"""Who allocates holds Python's lock for most of the time anyway."""
KEPT_BYTES_MAX = 256 * 1024 * 1024
"""Free memory beyond this is given back."""
PIECE_BYTES_MAX = 32 * 1024 * 1024
"""Larger ones are mapped by themselves and given back at once; glibc allows no more."""


def keep_freed_memory() -> bool:
    """Make this process reuse chunk-sized memory; return whether the C library can be told."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # Another C library, with ways of its own.
        return False
    kept = mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES_MAX)
    kept = kept and mallopt(_M_ARENA_MAX, ARENAS_MAX)
    return bool(kept and mallopt(_M_MMAP_THRESHOLD, PIECE_BYTES_MAX))

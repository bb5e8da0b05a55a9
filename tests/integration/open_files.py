"""What this process has open, for tests that nothing of it is left."""

import contextlib
from collections import Counter
from pathlib import Path


def open_files() -> Counter[str]:
    """Return how often each path is open, and how many there are of sockets and other kinds.

    What one such answer has more than one before it was opened since. What earlier tests left may
    be closed meanwhile, so that the numbers themselves are not to be compared.
    """
    links = []
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # The listing's own.
            links.append(str(each.readlink()))
    return Counter(link if link.startswith("/") else link.partition(":")[0] for link in links)

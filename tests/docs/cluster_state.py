"""What a page may change of the cluster and has to put back, as JSON; and makes the cache cold.

Run on a machine, as a program: each line that it is given it answers with one. One process does
what would be five commands after each page.
"""

import json
import sys
from collections.abc import Sequence
from typing import Any

from penstock import operator
from penstock.errors import ObjectNotFound


def state(urls: Sequence[str]) -> dict[str, Any]:
    """Return the state; evict what lies below urls."""
    with operator.connect() as connection:
        for url in urls:
            try:
                connection.evict([url])
            except ObjectNotFound:  # Nothing lies there now.
                continue
        nodes = connection.status().nodes
        return {
            "nodes": [[node.id, node.state, node.weight, node.weight_source] for node in nodes],
            "settings": connection.settings(),
            "volumes": [volume.name for volume in connection.volumes()],
            "pins": [pin.url for pin in connection.pins().pins],
        }


def main() -> None:
    """Answer with the state; urls are arguments."""
    for _ in sys.stdin:
        print(json.dumps(state(sys.argv[1:])), flush=True)


if __name__ == "__main__":
    main()

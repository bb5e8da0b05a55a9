"""What a page may change of the cluster and has to put back, as JSON; and makes the cache cold.

Run on a machine, as a program: one process for what would be five commands.
"""

import json
import sys

from penstock import operator
from penstock.errors import ObjectNotFound


def main() -> None:
    """Print the state; evict what lies below the urls that are named."""
    with operator.connect() as connection:
        for url in sys.argv[1:]:
            try:
                connection.evict([url])
            except ObjectNotFound:  # Nothing lies there now.
                continue
        nodes = connection.status().nodes
        state = {
            "nodes": [[node.id, node.state, node.weight, node.weight_source] for node in nodes],
            "settings": connection.settings(),
            "volumes": [volume.name for volume in connection.volumes()],
            "pins": [pin.url for pin in connection.pins().pins],
        }
    json.dump(state, sys.stdout)


if __name__ == "__main__":
    main()

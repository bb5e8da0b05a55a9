"""`penstock demo --mirror`, which also leaves its figures in a file: one demo says both.

python demo_of_regions.py PARENT FIGURES
"""

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from penstock_node.demo.command import run
from penstock_node.demo.stage import Stage


def main() -> None:
    parent, file = map(Path, sys.argv[1:])

    def tell(figures: dict[str, Any]) -> None:
        file.write_text(json.dumps(figures))

    stage = Stage(output=Console(), progress=Console(stderr=True), is_silent=False)
    run(parent, stage, keep=False, mirror=True, tell=tell)


if __name__ == "__main__":
    main()

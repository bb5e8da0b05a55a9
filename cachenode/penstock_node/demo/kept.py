"""A demo that was kept: what to paste, and how to stop it.

Responsible for: the file in the demo's directory that says which processes are its own, lines
for a shell that work as they stand, and ending it all.
Not responsible for: telling processes apart (`own_processes`).
"""

import json
import shlex
import shutil
import sys
import sysconfig
from dataclasses import asdict, dataclass
from pathlib import Path

from penstock.errors import InvalidRequest
from penstock_node.demo.own_processes import Recorded, end
from penstock_node.demo.scene import OBJECT_KEY, VOLUME, Scene

RECORD_FILE = "penstock-demo.json"


def write_record(scene: Scene) -> None:
    """Write down the processes of ``scene`` as they run now."""
    record = {
        "processes": [asdict(Recorded.of(process.pid)) for process in scene.processes],
        "sockets": [str(path) for path in scene.s3.sockets],
    }
    (scene.directory / RECORD_FILE).write_text(json.dumps(record))


def stop_kept(directory: Path) -> int:
    """End the demo that was kept in ``directory``, delete the directory, return how many ended.

    Raises:
        InvalidRequest: No demo was kept there.
        PartFailed: A process cannot be ended.
    """
    directory = directory.resolve()
    try:
        record = json.loads((directory / RECORD_FILE).read_text())
        processes = [Recorded(**told) for told in record["processes"]]
    except (OSError, ValueError, KeyError, TypeError):
        raise InvalidRequest(
            f"{directory} is not the directory of a demo that was kept; "
            "penstock demo --keep prints the right line"
        ) from None
    alive = [found for told in processes if (found := told.find(directory))]
    end(alive)
    for socket in record["sockets"]:
        Path(socket).unlink(missing_ok=True)
    shutil.rmtree(directory)
    return len(alive)


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines for a shell, and what they are for."""

    purpose: str
    lines: tuple[str, ...]


def lines_to_paste(scene: Scene) -> list[Lines]:
    """Return what to paste into a shell; all of it works as it stands, in this order."""
    node, url = scene.cluster.running[0], scene.url
    weight = f"penstock weight set {node.id}=200"
    return [
        Lines("first", (*_path_line(), f"export PENSTOCK_ADDRESS={scene.address}")),
        Lines("look", ("penstock status", f"penstock ls penstock://{VOLUME}/")),
        Lines("one object", (f"penstock stat {url}", f"penstock locate {url}")),
        Lines("read it", (f"penstock read {url} | sha256sum",)),
        Lines("by any S3 client", _s3_lines(scene)),
        Lines("change a weight", (f"{weight} --dry-run", weight)),
        Lines("what a node counts", (_fetch_line(f"http://{node.file.admin_address}/metrics"),)),
        Lines("stop it all", (f"penstock demo --stop {shlex.quote(str(scene.directory))}",)),
    ]


def _s3_lines(scene: Scene) -> tuple[str, ...]:
    """Return what lists and reads the bucket through a node: an S3 client's own requests."""
    bucket = f"http://{scene.cluster.running[0].file.s3_address}/{VOLUME}"
    read = _fetch_line(f"{bucket}/{OBJECT_KEY}")
    return (_fetch_line(f"{bucket}?list-type=2"), f"{read} | sha256sum")


def _path_line() -> list[str]:
    """Return what puts our command on the path, unless it is there."""
    scripts = Path(sysconfig.get_path("scripts"))
    found = shutil.which("penstock")
    if found is not None and Path(found).parent == scripts:
        return []
    return [f"export PATH={shlex.quote(str(scripts))}:$PATH"]


def _fetch_line(url: str) -> str:
    if shutil.which("curl"):
        return shlex.join(["curl", "--silent", url])
    fetch = (
        "import shutil, sys, urllib.request as r; "
        f"shutil.copyfileobj(r.urlopen({url!r}), sys.stdout.buffer)"
    )
    return shlex.join([sys.executable, "-c", fetch])

"""The committed protobuf stubs are what `make proto` makes of `proto/`."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "client/penstock/v1"


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


@pytest.mark.timeout(180)  # The first run on a machine installs the generators.
def test_the_committed_stubs_are_current(tmp_path: Path) -> None:
    subprocess.run([ROOT / "tools/proto.sh", tmp_path], check=True)

    generated, committed = contents(tmp_path / "penstock/v1"), contents(COMMITTED)

    stale = {name for name in generated | committed if generated.get(name) != committed.get(name)}
    assert len(generated) > len(list((ROOT / "proto/penstock/v1").iterdir()))
    assert not stale, "run `make proto` and commit what it writes"

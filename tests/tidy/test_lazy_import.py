"""What `import penstock` costs the programs that live in one image with us."""

import subprocess
import sys

HEAVY = ("grpc", "numpy", "obstore", "typer", "rich", "pydantic", "google.protobuf", "asyncio")
PROBE = f"import sys, penstock; print(*(name for name in {HEAVY!r} if name in sys.modules))"


def loaded_by(statement: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", statement], check=True, capture_output=True, text=True
    )
    return done.stdout.split()


def test_importing_penstock_loads_nothing_heavy() -> None:
    assert loaded_by(PROBE) == []


def test_the_probe_would_see_a_heavy_import() -> None:
    assert loaded_by("import numpy; " + PROBE) == ["numpy"]

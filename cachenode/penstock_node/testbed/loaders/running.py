"""Loaders as processes: started at one moment, waited for, their lines read."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from penstock_node.testbed.peers import PeerAbsent

LOADER = "penstock_node.testbed.loaders.load"
ABSENT = 3
LOAD_TIMEOUT_S = 600.0
FIXES = {
    "runai": "absent: pip install runai-model-streamer runai-model-streamer-s3",
    "s3fs": "absent: pip install s3fs",
}
VLLM_ENVIRONMENT = {
    "VLLM_TARGET_DEVICE": "cpu",
    "HF_HUB_OFFLINE": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}
"""Of processes with vLLM, where its kernels are not built."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to load a model: what `LOADER` calls it, and what it needs."""

    kind: str
    spec: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)


def runai(endpoint: str, urls: Sequence[str]) -> Way:
    """Return Run:ai's streamer on objects of an S3 server, without credentials."""
    environment = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "RUNAI_STREAMER_S3_UNSIGNED": "1",
        "RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING": "0",
    }
    return Way("runai", {"s3_urls": list(urls)}, environment)


def load(way: Way, *, loaders: int = 1) -> list[dict[str, Any]]:
    """Let processes load at one moment; return their lines.

    Raises:
        PeerAbsent: They lack a package.
    """
    command = [sys.executable, "-m", LOADER, way.kind, json.dumps(way.spec)]
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(_started(command, way.environment)) for _ in range(loaders)]
        return [_told(way.kind, each) for each in running]


@contextlib.contextmanager
def _started(
    command: Sequence[str], environment: Mapping[str, str]
) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a loader; it is gone in the end."""
    loader = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
    )
    with loader:
        try:
            yield loader
        finally:
            loader.kill()


def _told(kind: str, loader: "subprocess.Popen[bytes]") -> dict[str, Any]:
    out, errors = loader.communicate(timeout=LOAD_TIMEOUT_S)
    if loader.returncode == ABSENT:
        raise PeerAbsent(FIXES.get(kind, errors.decode()))
    assert loader.returncode == 0, errors.decode()
    told: dict[str, Any] = json.loads(out)
    return told

"""The machine that asks: what its own way to the cluster is like."""

import os
import socket
import time
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

from penstock.address import DEFAULT_SOCKET, UNIX
from penstock.doctor.facts import Asker

ANSWER_S = 1.0


def look_around() -> Asker:
    """Return what can be said of this machine, and of the socket where its node would have it."""
    address = os.environ.get("PENSTOCK_ADDRESS", "")
    path = address.removeprefix(UNIX) if address.startswith(UNIX) else DEFAULT_SOCKET
    asker = Asker(version=version("penstock"), now=time.time())
    try:
        is_there = Path(path).is_socket()
    except OSError as error:  # Its directory may not be looked into.
        return _with_socket(asker, path, str(error))
    return _with_socket(asker, path, _failure(path)) if is_there else asker


def _with_socket(asker: Asker, path: str, failure: str) -> Asker:
    return Asker(asker.version, asker.now, path, failure)


def _failure(path: str) -> str:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as tried:
        tried.settimeout(ANSWER_S)
        try:
            tried.connect(path)
        except OSError as error:
            return error.strerror or str(error)
    return ""


def port_failure(address: str) -> str:
    """Return why nothing can be connected to at ``host:port``; empty: something can."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_S).close()
    except (OSError, ValueError) as error:
        return str(error)
    return ""

"""Binding ports, so that addresses are known before anyone is told."""

import socket
from collections.abc import Sequence

from penstock.errors import InvalidConfiguration


def bind(host: str, ports: Sequence[int], *, key: str) -> socket.socket:
    """Return a socket bound to the first of ``ports`` that is free; 0 is any.

    Args:
        host: Of this machine.
        ports: In order of preference.
        key: Of the configuration, for the message.

    Raises:
        InvalidConfiguration: None is free.
    """
    failure: OSError | None = None
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in ports:
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, port))
        except OSError as error:
            bound.close()
            failure = error
        else:
            return bound
    raise InvalidConfiguration(
        f"{key} {ports[-1]} on {host} cannot be bound: {failure}; choose another, or 0 for any"
    ) from failure

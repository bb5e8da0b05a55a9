"""Which names a request may come by, where nobody is asked who he is."""

import socket

import pytest

from penstock.errors import NotPermitted
from penstock_node.serve.own_names import OwnNames

NAMES = OwnNames(["gpu-17.internal", "Proxy.Example."], domain="s3.example")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:7402",
        "10.0.0.7",
        "[::1]:7402",
        "[fe80::1]",
        "localhost",
        "LOCALHOST:7402",
        "localhost.",
        "gpu-17.internal:7402",
        "proxy.example",
        "s3.example",
        "models.s3.example:7403",
        socket.gethostname(),
        "",
    ],
)
def test_addresses_and_names_of_this_machine_are_its_own(host: str) -> None:
    NAMES.check(host)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:7402",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evils3.example",
        "1.2.3.4.5",
        "[evil]:80",
        "gpu-17.internal@evil.example",
        "localhost evil.example",
        ".",
        "x" * 5000,
    ],
)
def test_a_name_that_leads_here_by_somebody_elses_doing_is_refused(host: str) -> None:
    with pytest.raises(NotPermitted, match="admin_hosts") as refused:
        NAMES.check(host)

    assert len(str(refused.value)) < 400

"""Certificates of a cluster under test: files that are replaced as an operator's tools do it.

Responsible for: one set of files that nodes and clients share.
Not responsible for: who notices (`penstock.certificates`).
"""

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import penstock
from penstock_node.testbed.certificates import Authority

ALL_PORTS = ("grpc", "bulk", "s3", "admin")


class TlsFiles:
    """What nodes and clients have: ``ca``, ``cert`` and ``key`` in one directory."""

    def __init__(self, directory: Path) -> None:
        """Make an authority and what it signs, in a directory that is made too."""
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.ca, self.cert, self.key = (directory / f"{n}.pem" for n in ("ca", "cert", "key"))
        self._made = 0
        self.authority = self.new_authority()
        self.show(self.authority)
        self.trust(self.authority)

    def new_authority(self) -> Authority:
        """Return another one, that nobody knows."""
        self._made += 1
        made = Authority(self.directory / f"authority{self._made}")
        made.directory.mkdir()
        made.create()
        return made

    def show(self, authority: Authority, *, days: int = 1) -> None:
        """Have everybody show a new certificate of ``authority``."""
        self._made += 1
        cert, key = authority.issue(f"c{self._made}", days=days)
        # As tools do that replace such files, and in either order for a moment they do not fit.
        replace(self.cert, cert.read_bytes())
        replace(self.key, key.read_bytes())

    def trust(self, *authorities: Authority) -> None:
        """Have everybody trust these."""
        replace(self.ca, b"".join(authority.ca.read_bytes() for authority in authorities))

    def config(self, *ports: str) -> Mapping[str, Any]:
        """Return the table ``[tls]`` of a node."""
        files = {"ca": str(self.ca), "cert": str(self.cert), "key": str(self.key)}
        return {**files, "ports": list(ports)} if ports else files

    @property
    def tls(self) -> penstock.Tls:
        """What a client shows and trusts."""
        return penstock.Tls(self.ca, self.cert, self.key)

    @property
    def context(self) -> ssl.SSLContext:
        """What a program that is none of ours trusts, as the files are now."""
        return ssl.create_default_context(cafile=str(self.ca))


def replace(path: Path, data: bytes) -> None:
    """Put ``data`` in the place of a file, at once."""
    new = path.with_suffix(".new")
    new.write_bytes(data)
    new.replace(path)

"""Certificates for gRPC, as a user names them."""

import os
from dataclasses import dataclass
from pathlib import Path

import grpc

from penstock.errors import InvalidConfiguration


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificates for gRPC, as paths of PEM files."""

    ca: Path | None = None
    """Who signs the nodes' certificates; None for those that this system trusts."""
    cert: Path | None = None
    """Who this client is, where nodes want to know; with ``key``."""
    key: Path | None = None

    @classmethod
    def from_environment(cls) -> "Tls | None":
        """Return what ``PENSTOCK_CA``, ``…_CERT`` and ``…_KEY`` name; None without any."""
        paths = {
            name: Path(value)
            for name in ("ca", "cert", "key")
            if (value := os.environ.get(f"PENSTOCK_{name.upper()}"))
        }
        return cls(**paths) if paths else None

    def credentials(self) -> object:
        """Return gRPC's credentials.

        Raises:
            InvalidConfiguration: A file cannot be read.
        """
        try:
            return grpc.ssl_channel_credentials(
                root_certificates=self.ca.read_bytes() if self.ca else None,
                private_key=self.key.read_bytes() if self.key else None,
                certificate_chain=self.cert.read_bytes() if self.cert else None,
            )
        except OSError as error:
            raise InvalidConfiguration(f"cannot read a certificate: {error}") from error

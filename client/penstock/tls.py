"""Certificates, as a user names them."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.certificates import Certificates


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificates, as paths of PEM files. They are read again when they change."""

    ca: Path | None = None
    """Who signs the nodes' certificates. None: gRPC trusts the roots that come with it, and not
    this system's, so that an authority of one's own has to be named."""
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

    def credentials(self) -> "Certificates":
        """Read the files.

        Raises:
            InvalidConfiguration: One cannot be read, or they are not what they should be.
        """
        # ssl is loaded only for those who speak TLS.
        from penstock.certificates import Certificates

        return Certificates(ca=self.ca, cert=self.cert, key=self.key)

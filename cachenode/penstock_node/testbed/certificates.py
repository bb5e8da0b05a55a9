"""Certificates for tests: an authority that signs for 127.0.0.1, by the program ``openssl``."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

_TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority whose files lie in one directory, which must be there."""

    directory: Path

    @property
    def ca(self) -> Path:
        """Its own certificate, which others trust."""
        return self.directory / "ca.pem"

    def create(self) -> None:
        """Make its key and certificate, good for a day."""
        _openssl(
            "req", "-x509", *self._new_key("ca"), "-subj", "/CN=test CA", "-days", "1",
            "-out", self.ca,
        )  # fmt: skip

    def issue(self, name: str, *, days: int = 1) -> tuple[Path, Path]:
        """Return a certificate for 127.0.0.1, and its key; of less than 0 ``days`` it is over."""
        request, cert = self.directory / f"{name}.csr", self.directory / f"{name}.pem"
        names = self.directory / "names"
        names.write_text("subjectAltName=IP:127.0.0.1\n")
        _openssl("req", *self._new_key(name), "-subj", f"/CN={name}", "-out", request)
        _openssl(
            "x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self.directory / "ca.key",
            "-CAcreateserial", "-days", str(days), "-extfile", names, "-out", cert,
        )  # fmt: skip
        return cert, self.directory / f"{name}.key"

    def _new_key(self, name: str) -> list[str]:
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        return [*curve, "-nodes", "-keyout", str(self.directory / f"{name}.key")]


def _openssl(*words: str | Path) -> None:
    command = ["openssl", *(str(word) for word in words)]
    subprocess.run(command, check=True, capture_output=True, timeout=_TIMEOUT_S)

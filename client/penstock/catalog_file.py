"""One version of a file of a catalogued volume, as the catalog tells it to everyone."""

from typing import NamedTuple


class CatalogFile(NamedTuple):
    """One version of a file."""

    path: str
    """Within the volume."""
    version: str
    """What chunks are named by; another content has another one."""
    size: int
    """In bytes."""
    modified_us: int
    """Microseconds since 1970, UTC; 0: not known."""
    source_url: str
    """Where its bytes are."""
    source_version: str
    """What that origin calls the version."""


class CatalogChange(NamedTuple):
    """What became of a file: a version that came, or that it went."""

    seq: int
    """Greater than that of every change that was committed before; there are no gaps."""
    volume: str
    """The volume's name."""
    volume_uid: str
    """What the catalog calls the volume, whatever its name; mirrors have the same."""
    file: CatalogFile
    """Of one that was removed only the path says something."""
    is_removed: bool
    committed_us: int
    """Microseconds since 1970, UTC."""

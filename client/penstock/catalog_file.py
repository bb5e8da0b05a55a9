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


class FileCopy(NamedTuple):
    """The bytes of one version of a file, at another place than its source."""

    url: str
    version: str
    """What that store calls it."""


class LocatedFile(NamedTuple):
    """A version of a file, and all places where its bytes can be read."""

    file: CatalogFile
    copies: tuple[FileCopy, ...] = ()
    """Nearer than its source, the nearest first."""
    is_mirrored: bool = False
    """Whether a mirror tells it: there may be more copies soon."""


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

"""Which files of a tree are wanted: patterns as `huggingface_hub` has them.

``*`` matches across slashes, ``folder/`` means everything in it, letter case counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeAlias

Patterns: TypeAlias = str | Sequence[str] | None
"""One pattern, several, or none at all."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Some files of a tree, by their paths below its prefix."""

    allowed: tuple[str, ...] | None = None
    """A file matches one of these; None: any file."""
    ignored: tuple[str, ...] = ()
    """And none of these."""

    @classmethod
    def of(cls, allow: Patterns, ignore: Patterns) -> "Selection":
        """Return what ``allow_patterns`` and ``ignore_patterns`` select."""
        return cls(None if allow is None else _listed(allow), _listed(ignore or ()))

    def __contains__(self, path: str) -> bool:
        """Whether the file is selected."""
        if self.allowed is not None and not _matches(path, self.allowed):
            return False
        return not _matches(path, self.ignored)


def _listed(patterns: str | Sequence[str]) -> tuple[str, ...]:
    several = (patterns,) if isinstance(patterns, str) else patterns
    return tuple(f"{one}*" if one.endswith("/") else one for one in several)


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)

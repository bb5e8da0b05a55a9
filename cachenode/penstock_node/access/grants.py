"""What a caller may do: a role, and the volumes that it is limited to.

Responsible for: the order of roles, grants, and whose call this is.
Not responsible for: how callers are known (`callers`), what asks for which role (`methods`).
"""

from contextvars import ContextVar
from dataclasses import dataclass
from enum import IntEnum

from penstock.errors import NotPermitted
from penstock.volumes import URL_SCHEME

NAMED_MAX = 5
"""Volumes that a refusal names."""


class Role(IntEnum):
    """Each may do what those before it may."""

    READER = 1
    WRITER = 2
    NODE = 3
    """Of the cluster's own processes: no token of the tokens file has it."""
    OPERATOR = 4

    def __str__(self) -> str:
        return self.name.lower()


ROLES = {str(role): role for role in (Role.READER, Role.WRITER, Role.OPERATOR)}
"""Those that a token may be given."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What somebody may do who has shown a credential."""

    name: str
    """Who it is, for the log."""
    role: Role
    volumes: frozenset[str] = frozenset()
    """None named: all."""

    @property
    def is_limited(self) -> bool:
        """Whether it is good for some volumes alone."""
        return bool(self.volumes)

    def sees(self, volume: str) -> bool:
        """Tell whether it is good for a volume."""
        return not self.volumes or volume in self.volumes

    def check_volume(self, volume: str) -> None:
        """Refuse a volume that it is not good for.

        Raises:
            NotPermitted: With those that it is good for.
        """
        if not self.sees(volume):
            raise self.refusal(f"the volume {volume!r}")

    def refusal(self, of: str) -> NotPermitted:
        """Return why something is refused that is not of its volumes."""
        known = sorted(self.volumes)
        more = f" and {len(known) - NAMED_MAX} more" if len(known) > NAMED_MAX else ""
        return NotPermitted(
            f"{self.name} may not use {of}: its token is limited to "
            f"{', '.join(known[:NAMED_MAX])}{more}"
        )


CALLER: ContextVar[Grant | None] = ContextVar("caller", default=None)
"""Whose call this is; None: nobody is asked who he is, or it is the process's own work."""


def check_volume(volume: str) -> None:
    """Refuse a volume that this call's caller may not use; raises as `Grant.check_volume`."""
    caller = CALLER.get()
    if caller is not None:
        caller.check_volume(volume)


def limited_caller() -> Grant | None:
    """Return this call's caller if it is limited to some volumes."""
    caller = CALLER.get()
    return caller if caller is not None and caller.is_limited else None


def volume_in(url: str) -> str:
    """Return the volume's name in a url ``penstock://volume/…``; "" if it is none."""
    scheme, _, rest = url.partition("://")
    return rest.partition("/")[0] if scheme.lower() == URL_SCHEME else ""

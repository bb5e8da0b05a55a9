"""Files that cannot be brought into a mirror's region, and are passed by so that others come.

Responsible for: which errors are one file's own matter, how many files are passed by, and when they
are tried again. Not responsible for: trying (`bringing_volume`).
"""

import time
from collections.abc import Callable, Iterable, Mapping

import structlog

from penstock.errors import (
    Cancelled,
    Conflict,
    InvalidConfiguration,
    NoSpace,
    PenstockError,
    Retryable,
    Unauthenticated,
)

PASSED_MAX = 100
"""Files of a volume. Where more fail, it is hardly a matter of each: nothing else is begun."""
AGAIN_S = 60.0
"""Between two tries of all that were passed by."""

_OF_ALL = (Retryable, NoSpace, Conflict, Cancelled, Unauthenticated, InvalidConfiguration)

_log = structlog.get_logger(__name__)


def is_of_one_file(error: PenstockError) -> bool:
    """Whether another file may come though this error met one."""
    return not isinstance(error, _OF_ALL)


class PassedBy:
    """The files of one volume that were passed by. On one event loop."""

    def __init__(self, volume: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with none; ``clock`` is monotonic, in seconds."""
        self._volume, self._clock, self._again_at = volume, clock, 0.0
        self._reasons: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._reasons)

    @property
    def trouble(self) -> str:
        """What to tell of them; empty: there are none."""
        for path, reason in self._reasons.items():
            return (
                f"files that do not come, and are tried again each minute: {len(self)}; "
                f"the first is {path}: {reason}"
            )
        return ""

    def due(self) -> list[str]:
        """Return the paths that are to be tried again now."""
        return list(self._reasons) if self._clock() >= self._again_at else []

    def take(self, tried: Iterable[str], failed: Mapping[str, PenstockError]) -> None:
        """Take in what has become of some paths.

        Raises:
            PenstockError: One of ``failed``: there are too many.
        """
        tried = set(tried)
        reasons = {path: why for path, why in self._reasons.items() if path not in tried}
        reasons |= {path: str(error) for path, error in failed.items()}
        if len(reasons) > PASSED_MAX and failed:
            raise next(iter(failed.values()))
        for path in failed.keys() - self._reasons.keys():
            _log.warning("a file is passed by", volume=self._volume, path=path, error=reasons[path])
        if failed:
            self._again_at = self._clock() + AGAIN_S
        self._reasons = reasons

"""A record of what writers and operators did, or were refused.

Responsible for: one line for each such call, in the log and if wanted in a file of its own. Of
refusals, which anybody can cause, those alike are left out after the first of a minute.
Not responsible for: which calls are noted (`methods`), how lines come to the file (`audit_file`).
"""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import structlog

from penstock.masking import mask
from penstock_node.access.audit_file import AuditFile
from penstock_node.log_limits import RepeatLimit

EVENT = "audit"
REFUSED = "refused"
"""How the outcome of a call begins that was not let through."""
NAMES_MAX = 10
"""Of what a call concerns, in one line."""
NAME_CHARACTERS_MAX = 200
OUTCOME_CHARACTERS_MAX = 500
LOOKED_AT_CHARACTERS_MAX = 8_192
"""Of a text, for what is to be masked in it: no url that is let in has as many."""

_log = structlog.get_logger(__name__)


class Audit:
    """Writes lines. Thread-safe."""

    def __init__(self, path: Path | None = None) -> None:
        """Begin; `close` ends it.

        Args:
            path: A file that lines are appended to besides the log.

        Raises:
            InvalidConfiguration: It cannot be written.
        """
        self._file = AuditFile(path) if path is not None else None
        self._limit = RepeatLimit()

    def note(
        self, *, who: str, role: str, peer: str, method: str, about: Iterable[str], outcome: str
    ) -> None:
        """Write a line.

        Args:
            who: Whose call it was.
            role: That he has; "" where nobody is asked who he is.
            peer: From where, as gRPC or the socket tells it.
            method: ``Service.Method``.
            about: Names of what it concerns.
            outcome: ``done``, ``failed: …`` or ``refused: …``.
        """
        is_refused = outcome.startswith(REFUSED)
        verdict = self._limit.judge(who, method) if is_refused else None
        if verdict is not None and not verdict.is_said:
            return
        line: dict[str, object] = {
            "who": who,
            "role": role,
            "peer": peer,
            "method": method,
            "about": _bounded(about),
            "outcome": _masked(outcome, OUTCOME_CHARACTERS_MAX),
        }
        if verdict is not None:
            line["left_out"] = verdict.left_out
        write = _log.warning if is_refused else _log.info
        write(EVENT, **line)
        if self._file is not None:
            now = datetime.now(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00")
            self._file.write(json.dumps({"timestamp": f"{now}Z", "event": EVENT, **line}))

    def close(self) -> None:
        """Write what is on its way, for some seconds at most. Blocks."""
        if self._file is not None:
            self._file.close()


def _bounded(names: Iterable[str]) -> list[str]:
    kept: list[str] = []
    for count, name in enumerate(names):
        if count == NAMES_MAX:
            kept.append("…")
            break
        kept.append(_masked(name, NAME_CHARACTERS_MAX))
    return kept


def _masked(text: str, characters_max: int) -> str:
    """Return the beginning of a text, masked before it is cut: half a password is one too.

    People paste presigned urls, and urls with passwords, into whatever takes a url.
    """
    return mask(text[:LOOKED_AT_CHARACTERS_MAX])[:characters_max]

"""The tokens file as it is now: read again when it changes, without a restart.

Responsible for: seeing changes, and keeping what was good while the file is not.
Not responsible for: what stands in it (`config_tokens`).

The file's state is looked at, and not events of its directory: Kubernetes mounts a secret by
exchanging a link far above it.
"""

import asyncio
from pathlib import Path

import structlog

from penstock.errors import InvalidConfiguration
from penstock_node.config_tokens import Token, Tokens, read_file, read_tokens, tokens_in

LOOK_S = 0.5
"""Between looks whether the file has changed: so long is a revoked token still good."""

_log = structlog.get_logger(__name__)


class TokensFile:
    """The tokens of one file. Thread-safe; read on the event loop's behalf by `run`."""

    def __init__(self, path: Path) -> None:
        """Read it.

        Raises:
            InvalidConfiguration: It cannot be read, or something in it is wrong.
        """
        self._path = path
        self._seen = _state(path)
        self._tokens = read_tokens(path)
        self._refusal = ""
        """Why what the file says does not count."""

    @property
    def is_good(self) -> bool:
        """Whether the file was in order when it was last read."""
        return not self._refusal

    def get(self, digest: bytes) -> Token | None:
        """Return the token with this SHA-256."""
        return self._tokens.get(digest)

    async def run(self) -> None:
        """Look at the file for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Read the file if it has changed. Blocks."""
        seen = _state(self._path)
        if seen == self._seen:
            return
        self._seen = ()
        try:
            data = read_file(self._path)
            # Only now: what could not be read, for want of descriptors or of a server that
            # answers, is read at the next look, or who was revoked meanwhile is let in for good.
            self._seen = seen
            tokens = tokens_in(data, path=self._path)
        except InvalidConfiguration as error:
            self._refuse(str(error))
            return
        _tell(self._tokens, tokens)
        self._tokens, self._refusal = tokens, ""

    def _refuse(self, reason: str) -> None:
        if reason != self._refusal:
            _log.error("the tokens file is refused: what it said before counts", error=reason)
        self._refusal = reason


def _state(path: Path) -> tuple[int, ...]:
    """Return what is different when the file was written or replaced."""
    try:
        found = path.stat()
    except OSError as error:
        return (error.errno or -1,)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _tell(before: Tokens, now: Tokens) -> None:
    names, names_before = {each.name for each in now.values()}, {e.name for e in before.values()}
    _log.info(
        "the tokens file was read again",
        tokens=len(now),
        added=sorted(names - names_before)[:10],
        removed=sorted(names_before - names)[:10],
    )

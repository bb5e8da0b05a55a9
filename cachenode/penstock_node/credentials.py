"""What this process shows to others that do not understand a node's own token.

Responsible for: reading the configured token again when it may have changed.
Not responsible for: tokens among the processes of one cluster (`access.node_tokens`).
"""

import time
from collections.abc import Callable

from penstock_node.config_loaded import read_reference
from penstock_node.config_section import SecretReference

BELIEVED_S = 5.0
"""How long what was read is not read again."""


class ShownToken:
    """Gives the header that shows the token ``[auth] token``. Thread-safe."""

    def __init__(
        self, reference: SecretReference, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Read it.

        Raises:
            InvalidConfiguration: There is no value where it should stand.
        """
        self._reference, self._monotonic = reference, monotonic
        self._read = (self._now(), monotonic())

    def _now(self) -> str:
        return f"Bearer {read_reference(self._reference, 'auth.token')}"

    def __call__(self) -> str:
        """Return the header's value; raises as when it was made."""
        shown, read_at = self._read
        now = self._monotonic()
        if now - read_at >= BELIEVED_S:
            shown = self._now()
            self._read = (shown, now)
        return shown

"""The bearer token that a client shows: where it comes from, and to whom it may be sent.

Responsible for: a token as it is given, or in a file that is read again when it changes; and
refusing to send one where others on the way could read it.
Not responsible for: carrying it (`rpc`, `bulk_calls`, `host_connection`), certificates (`tls`).
A token is in no `repr` and in no message.
"""

import contextlib
import ipaddress
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeAlias

from penstock.errors import InvalidConfiguration

TOKEN_VARIABLE = "PENSTOCK_TOKEN"  # noqa: S105 - a name
TOKEN_FILE_VARIABLE = "PENSTOCK_TOKEN_FILE"  # noqa: S105
INSECURE_VARIABLE = "PENSTOCK_INSECURE"
TOKEN_CHARACTERS_MAX = 7_000
"""gRPC takes headers of 8 KiB. Tokens of Kubernetes have about 1,000."""

Authorization: TypeAlias = Callable[[], str]
"""Gives the value of the header ``authorization`` for one call; "" to send none."""

_SCHEME = "Bearer "
_TRUE = ("1", "true", "yes", "on")


class Bearer:
    """A token as it is now. Thread-safe; as an `Authorization`, the header that shows it."""

    def __init__(self, token: str = "", *, path: Path | None = None) -> None:
        """Take a token, or the file that has it.

        Raises:
            InvalidConfiguration: It is no token, or there is none in the file.
        """
        self._path, self._lock = path, threading.Lock()
        self._seen: tuple[int, ...] = ()
        self._token = token if path is None else ""
        if path is None:
            check_token(token, where="the token")
        else:
            self._read(path)

    def __repr__(self) -> str:
        return f"<Bearer of {self._path or 'a token'}>"

    def __call__(self) -> str:
        """Return the header's value."""
        return _SCHEME + self.token()

    def token(self) -> str:
        """Return the token: from its file, if that has changed since.

        A file that cannot be read at this moment, or has no token, changes nothing: it is being
        replaced, and the token before is good for a while yet.
        """
        path = self._path
        if path is not None and _state_of(path) not in ((), self._seen):
            # What is wrong is said when the token before is refused, by who refuses it.
            with contextlib.suppress(InvalidConfiguration):
                self._read(path)
        return self._token

    def _read(self, path: Path) -> None:
        with self._lock:
            # Looked at before it is read: what is written meanwhile is seen the next time.
            state = _state_of(path)
            try:
                with path.open(encoding="ascii") as file:
                    token = file.read(TOKEN_CHARACTERS_MAX + 2).strip()
            except (OSError, UnicodeDecodeError) as error:
                why = error.strerror if isinstance(error, OSError) else "it is no text"
                raise InvalidConfiguration(
                    f"no token can be read from {path}: {why}; correct {TOKEN_FILE_VARIABLE}"
                ) from None
            check_token(token, where=f"what {path} has")
            self._token, self._seen = token, state


def bearer_from(token: str | None) -> Bearer | None:
    """Return what shows ``token``, or the environment's; None where there is none.

    The environment has it as ``PENSTOCK_TOKEN``, else in the file ``PENSTOCK_TOKEN_FILE``.

    Raises:
        InvalidConfiguration: It is no token, or the file has none.
    """
    if token := token or os.environ.get(TOKEN_VARIABLE):
        return Bearer(token)
    path = os.environ.get(TOKEN_FILE_VARIABLE)
    return Bearer(path=Path(path)) if path else None


def authorization_for(
    addresses: Iterable[str], *, token: str | None, insecure: bool, is_encrypted: bool
) -> Bearer | None:
    """Return what to show to nodes: see `bearer_from`.

    Args:
        addresses: Of those that are called first.
        token: As it was given.
        insecure: See `check_private`.
        is_encrypted: Whether TLS is spoken with them.

    Raises:
        InvalidConfiguration: As `bearer_from`; or one of them would be shown it in plain text.
    """
    bearer = bearer_from(token)
    if bearer is not None and not is_encrypted:
        for address in addresses:
            check_private(address, insecure=insecure)
    return bearer


def token_of(authorization: Authorization | None) -> str:
    """Return the token alone, for who has no header; empty: none."""
    return authorization().removeprefix(_SCHEME) if authorization is not None else ""


def insecure_from(insecure: bool | None) -> bool:
    """Return ``insecure``, or what ``PENSTOCK_INSECURE`` says where it is None."""
    if insecure is not None:
        return insecure
    return os.environ.get(INSECURE_VARIABLE, "").lower() in _TRUE


def check_token(token: str, *, where: str) -> None:
    """Refuse what cannot be sent as a token; the message does not show it.

    Raises:
        InvalidConfiguration: ``where`` says what it is.
    """
    if not token:
        raise InvalidConfiguration(f"{where} is empty: want a token")
    if len(token) > TOKEN_CHARACTERS_MAX:
        raise InvalidConfiguration(
            f"{where} is no token: it has more than {TOKEN_CHARACTERS_MAX} characters"
        )
    if not all("!" <= character <= "~" for character in token):
        raise InvalidConfiguration(
            f"{where} is no token: it has spaces, or characters that are not ASCII"
        )


def check_private(address: str, *, insecure: bool) -> None:
    """Refuse to send a token in plain text to another machine.

    Args:
        address: ``host:port`` of who is called without TLS.
        insecure: Somebody said that it may be.

    Raises:
        InvalidConfiguration: With what to set.
    """
    if not insecure and not is_loopback(address.rpartition(":")[0].strip("[]")):
        raise InvalidConfiguration(
            f"a token would go to {address} in plain text, for others on the way to read: set "
            "PENSTOCK_CA (and tls in the nodes' configuration), or connect(tls=…); or, on a "
            f"network that nobody else is on, {INSECURE_VARIABLE}=1, or connect(insecure=True)"
        )


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach ``host``; a name is believed only if localhost."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _state_of(path: Path) -> tuple[int, ...]:
    """Return what changes with a file, also where a link comes to lead to another; (): nothing."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

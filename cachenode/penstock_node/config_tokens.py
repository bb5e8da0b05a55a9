"""The tokens file: who may do what, known by the hashes of their tokens.

Responsible for: reading the file, and saying all that is wrong with it.
Not responsible for: when it is read (`access.tokens_file`), what a role may do (`access.methods`).

The file holds no secret: whoever reads it cannot make a token from a hash. No error shows a value.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from penstock.errors import InvalidConfiguration
from penstock_node.config_sections import Section
from penstock_node.config_sources import problems_of
from penstock_node.config_values import TokenRole

FILE_BYTES_MAX = 4 * 1024 * 1024
TOKENS_MAX = 10_000

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def _checked_digest(value: str) -> str:
    if not _DIGEST.fullmatch(value.lower()):
        raise ValueError(
            "want 64 hexadecimal digits, the SHA-256 of the token, and not the token itself"
        )
    return value.lower()


def _checked_moment(value: Any) -> Any:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ValueError("want a moment with its time zone, for example 2027-01-01T00:00:00Z")
    return value


Digest: TypeAlias = Annotated[str, AfterValidator(_checked_digest)]
Moment: TypeAlias = Annotated[datetime, BeforeValidator(_checked_moment)]


class TokenSection(Section):
    """One token."""

    sha256: Digest
    role: TokenRole
    volumes: tuple[str, ...] = ()
    """Which it is good for; none named: all."""
    expires: Moment | None = None
    """Since when it is good for nothing; None: never."""


class TokensSection(Section):
    """The whole file."""

    tokens: dict[str, TokenSection] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Token:
    """A token that is known."""

    name: str
    role: TokenRole
    volumes: frozenset[str]
    expires_at: float | None
    """In seconds since 1970; None: it never does."""


Tokens: TypeAlias = Mapping[bytes, Token]
"""By the SHA-256 of each."""


def read_tokens(path: Path) -> Tokens:
    """Return the tokens in a file.

    Raises:
        InvalidConfiguration: It cannot be read, or a line for each thing that is wrong with it.
    """
    return tokens_in(read_file(path), path=path)


def read_file(path: Path) -> bytes:
    """Return what is in a file, whatever that is: `tokens_in` looks at it.

    Raises:
        InvalidConfiguration: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise InvalidConfiguration(f"{path}: cannot be read: {error.strerror}") from error


def tokens_in(data: bytes, *, path: Path) -> Tokens:
    """Return the tokens in what is in a file.

    Args:
        data: What is there.
        path: Where, for errors.

    Raises:
        InvalidConfiguration: A line for each thing that is wrong with it.
    """
    if len(data) > FILE_BYTES_MAX:
        raise InvalidConfiguration(f"{path}: more than {FILE_BYTES_MAX} bytes")
    try:
        values = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        # Also of a number of thousands of digits, and of deep nesting: for those the standard
        # library has no error of its own.
        raise InvalidConfiguration(f"{path}: not TOML: {error}") from error
    return _tokens(path, values)


def _tokens(path: Path, values: Mapping[str, Any]) -> Tokens:
    try:
        told = TokensSection.model_validate(values).tokens
    except ValidationError as error:
        lines = [
            f"{path}: {'.'.join(map(str, problem.place))}: {problem.message}"
            for problem in problems_of(error, TokensSection)
        ]
        raise InvalidConfiguration("\n".join(dict.fromkeys(lines))) from None
    if len(told) > TOKENS_MAX:
        raise InvalidConfiguration(f"{path}: {len(told)} tokens: at most {TOKENS_MAX}")
    found: dict[bytes, Token] = {}
    for name, section in told.items():
        if not _NAME.fullmatch(name):
            raise InvalidConfiguration(
                f"{path}: tokens.{name[:80]}: want 1 to 63 letters, digits and . _ @ -"
            )
        digest = bytes.fromhex(section.sha256)
        if digest in found:
            raise InvalidConfiguration(
                f"{path}: tokens.{name}: the same token as {found[digest].name}; make one for each"
            )
        expires_at = section.expires.timestamp() if section.expires else None
        found[digest] = Token(name, section.role, frozenset(section.volumes), expires_at)
    return MappingProxyType(found)

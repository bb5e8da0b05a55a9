"""Secrets that tests look for, in every form in which somebody may have written them."""

import base64
import urllib.parse
from collections.abc import Mapping


def forms_of(secret: str | bytes) -> set[bytes]:
    """Return what a secret may look like where somebody has encoded it."""
    raw = secret.encode() if isinstance(secret, str) else secret
    # Of base64 the middle, whatever stands before and after it.
    shifted = [base64.b64encode(b"x" * at + raw)[4 * at // 3 + 2 : -4] for at in range(3)]
    url_safe = [form.replace(b"+", b"-").replace(b"/", b"_") for form in shifted]
    quoted = urllib.parse.quote_from_bytes(raw).encode()
    return {raw, raw.hex().encode(), quoted, *shifted, *url_safe}


def found_in(data: bytes, secrets: Mapping[str, str | bytes]) -> list[str]:
    """Return which secrets are in some bytes."""
    return [name for name, secret in secrets.items() if any(f in data for f in forms_of(secret))]

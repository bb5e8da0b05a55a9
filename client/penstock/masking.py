"""Texts without what opens doors: for logs and whatever is handed on to others.

Nothing of ours puts a secret into a text. This is for what others write: a library's message with
a url that carries a password, or a signature.
"""

import re

MASK = "***"

_USER = re.compile(r"(?<=://)[^\s/@:]*:[^\s/@]+@")
_WORDS = (
    r"(?:x-amz-[a-z-]+|[a-z_]*signature|sig|[a-z_-]*token|[a-z_]*password|passwd|sas_key|"
    r"account_key|[a-z_]*secret_access_key|client_secret|access_?key_?id|awsaccesskeyid|credential)"
)
_VALUE = re.compile(
    rf"\b({_WORDS}['\"]?\s*[=:]\s*['\"]?)(?!null\b|none\b)[^\s'\"&,;(){{}}\[\]]+", re.IGNORECASE
)
"""Not of tables, and not where there is none: JSON stays JSON."""
_SHOWN = re.compile(
    r"\b((?:bearer|basic|penstock)\s+)(?=\S*[0-9=])[A-Za-z0-9._~+/=-]{12,}", re.IGNORECASE
)


_TOKEN = re.compile(r"\bpst_[A-Za-z0-9_-]{16,}")
"""Of `penstock token new`, wherever one stands."""


def mask(text: str) -> str:
    """Return ``text`` with passwords in urls, signatures, tokens and keys masked."""
    text = _TOKEN.sub(MASK, text)
    text = _SHOWN.sub(rf"\1{MASK}", text)
    text = _USER.sub(f"{MASK}@", text)
    return _VALUE.sub(rf"\1{MASK}", text)

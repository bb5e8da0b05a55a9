"""Texts without what opens doors: for logs and whatever is handed on to others.

Nothing of ours puts a secret into a text. This is for what others write: a library's message with
a url that carries a password, or a signature.
"""

import re

MASK = "***"

_USER = re.compile(r"(?<=://)[^\s/@:]*:[^\s/@]+@")
# What stands before such a word is kept, and not looked at: else a long text that is made of
# beginnings would be looked at from each of them to its end.
_WORDS = (
    r"(?:\bx-amz-[a-z-]{1,64}|signature|\bsig|token|password|\bpasswd|\bsas_key|\baccount_key|"
    r"secret_access_key|\bclient_secret|\baccess_?key_?id|\bawsaccesskeyid|\bcredential)"
)
_VALUE = re.compile(
    rf"({_WORDS}['\"]?\s*[=:]\s*['\"]?)(?!null\b|none\b)[^\s'\"&,;(){{}}\[\]]+", re.IGNORECASE
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

"""Whether a program printed what the page shows of it, figures aside.

Responsible for: comparing lines word by word. A word that begins with a letter has to be there;
one with a digit is a figure, and any word may stand for it, with any unit behind. ``…`` within a
word stands for any characters; a line of ``…`` alone for any lines. Rules of tables and empty
lines do not count. What is shown may be a part of what is printed.
"""

import re
from collections.abc import Sequence

ELLIPSIS = "…"
_RULES = re.compile(r"[\s─━═╌|+=-]*")
_UNITS = ("B", "kB", "MB", "GB", "TB", "KiB", "MiB", "GiB", "TiB", "ms", "s", "min", "h")
_UNIT = rf"(?:{'|'.join(_UNITS)})(?:/s)?[.,:;)]*(?!\S)"


def first_missing(shown: str, printed: str) -> str | None:
    """Return the first line of ``shown`` that is not in ``printed`` where it should be."""
    lines = [line for line in printed.splitlines() if not _RULES.fullmatch(line)]
    for part in _parts(shown):
        wanted = [(line, re.compile(_pattern(line))) for line in part]
        matched = [_matching(wanted, lines[at:]) for at in range(len(lines) + 1)]
        best = max(matched)
        if best < len(part):
            return part[best].strip()
        lines = lines[matched.index(best) + best :]
    return None


def _parts(shown: str) -> list[list[str]]:
    """Return the lines between those of ``…``, which follow each other."""
    parts: list[list[str]] = [[]]
    for line in shown.splitlines():
        if line.strip() == ELLIPSIS:
            parts.append([])
        elif not _RULES.fullmatch(line):
            parts[-1].append(line)
    return parts


def _matching(wanted: Sequence[tuple[str, re.Pattern[str]]], lines: Sequence[str]) -> int:
    """Return how many lines are as wanted, from the first on."""
    pairs = zip(wanted, lines, strict=False)
    same = [bool(pattern.search(line)) for (_, pattern), line in pairs]
    return same.index(False) if False in same else len(same)


def _pattern(line: str) -> str:
    """Return what a line has to look like."""
    words = re.sub(rf"(?<!\S)(\S*\d\S*) {_UNIT}", r"\1", line).split()
    return r"\s+".join(map(_of_word, words))


def _of_word(word: str) -> str:
    if re.search(r"\d", word) and not word[0].isalpha():
        return rf"\S+(?: {_UNIT})?"
    return r"\S*".join(map(re.escape, word.split(ELLIPSIS)))

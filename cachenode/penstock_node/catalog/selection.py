"""Which files of a place are meant: globs over their paths.

Responsible for: what a glob says, each made into one regular expression.
Not responsible for: what becomes of files that are not meant (`importing`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from penstock.errors import InvalidRequest

GLOBS_MAX = 64
"""Of each kind."""
GLOB_CHARACTERS_MAX = 1_024

_TOKEN = re.compile(
    r"(?P<directories>(?:(?<=/)|^)\*\*/)|(?P<all>\*\*+)|(?P<some>\*)|(?P<one>\?)"
    r"|\[(?P<no>[!^]?)(?P<set>\]?[^\]/]*)\]|(?P<other>.)",
    re.DOTALL,
)
_LEADS = {"directories": "(?:.*?/)??", "all": ".*?"}
_SPECIAL_IN_SET = re.compile(r"([\\\[\]^&~|]|-(?=-))")


class Selection:
    """Files by their paths. A path is meant if a glob includes it and none excludes it.

    ``*`` and ``?`` stand for characters within a segment, ``[a-f]`` and ``[!a-f]`` for one of
    them, ``**`` for anything, over segments. A glob without a slash tells of the file's name, at
    any depth, as for rsync and in ``.gitignore``: ``*.json`` is every such file, ``/*.json``
    those at the top. No other glob needs a slash at its beginning.
    """

    def __init__(self, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> None:
        """Understand the globs.

        Args:
            include: Of what is meant; none: everything.
            exclude: Of what is not, whatever ``include`` says.

        Raises:
            InvalidRequest: One is empty, too long or no glob, or they are too many.
        """
        self.include, self.exclude = tuple(include), tuple(exclude)
        self._include, self._exclude = _one_of(self.include), _one_of(self.exclude)

    def __repr__(self) -> str:
        return f"<Selection include={list(self.include)} exclude={list(self.exclude)}>"

    @property
    def covers_all(self) -> bool:
        """Whether every file is meant."""
        return self._include is None and self._exclude is None

    def covers(self, path: str) -> bool:
        """Whether the file at ``path``, below what is imported, is meant."""
        if self._exclude is not None and self._exclude.fullmatch(path):
            return False
        return self._include is None or self._include.fullmatch(path) is not None


def _one_of(globs: tuple[str, ...]) -> re.Pattern[str] | None:
    if len(globs) > GLOBS_MAX:
        raise InvalidRequest(
            f"{len(globs)} globs: want {GLOBS_MAX} at most; write fewer that say more, or import "
            "in several steps"
        )
    patterns = [_pattern(glob) for glob in globs]
    return re.compile("|".join(f"(?:{each})" for each in patterns), re.DOTALL) if globs else None


def _pattern(glob: str) -> str:
    if not 0 < len(glob) <= GLOB_CHARACTERS_MAX:
        raise InvalidRequest(
            f"a glob has 1 to {GLOB_CHARACTERS_MAX} characters, this one {len(glob)}: write '**' "
            "for all files"
        )
    if glob.endswith("/"):
        raise InvalidRequest(f"glob {glob!r} names no files: write {glob + '**'!r} for all in it")
    parts = [_Part(_LEADS["directories"] if "/" not in glob else "", [""])]
    for token in _TOKEN.finditer(glob.removeprefix("/")):
        match token.lastgroup:
            case "directories" | "all" as kind:
                parts.append(_Part(_LEADS[kind], [""]))
            case "some":
                parts[-1].pieces.append("")
            case _:
                parts[-1].pieces[-1] += _meaning(token, glob)
    try:
        # Each but the last is found where it first is, and not looked for again: behind it
        # anything may stand. Else a glob of many stars would take for ever.
        before = "".join(f"(?>{part})" for part in parts[:-1])
        return re.compile(before + str(parts[-1])).pattern
    except re.error as error:
        raise InvalidRequest(f"glob {glob!r}: {error.msg}; write [a-f], the lesser first") from None


@dataclass(frozen=True, slots=True)
class _Part:
    """What stands between two ``**`` of a glob."""

    lead: str
    """Stands for what the first ``**`` does."""
    pieces: list[str]
    """What stands between two ``*``."""

    def __str__(self) -> str:
        first, *others = self.pieces
        found = [f"(?>[^/]*?{piece})" for piece in others[:-1]]
        found += [f"[^/]*?{piece}" for piece in others[-1:]]
        return self.lead + first + "".join(found)


def _meaning(token: re.Match[str], glob: str) -> str:
    if token["one"]:
        return "[^/]"
    if token["other"] == "[":
        raise InvalidRequest(f"glob {glob!r}: a '[' is not closed; write [[] for the character")
    if token["other"]:
        return re.escape(token["other"])
    if not token["set"]:
        raise InvalidRequest(f"glob {glob!r}: [] names no character; write [[] for a bracket")
    characters = _SPECIAL_IN_SET.sub(r"\\\1", token["set"])
    return f"(?:(?!/)[{'^' if token['no'] else ''}{characters}])"

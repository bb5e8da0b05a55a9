"""A page of the documentation as the blocks that stand on it, and how each is to be used.

Responsible for: finding fenced blocks, and the vocabulary that says what a test does with them.
Not responsible for: running them (`sessions`).

A block's language says what it is:

    bash       commands, run in the order of the page in one shell, which ends at the first failure
    console    the same with what they print: commands begin with ``$ ``, output follows
    python     run in one Python process a page, by what the page has imported so far
    toml       a part of a node's configuration: checked as ``penstock config check`` does
    yaml, ini, json    read by a parser of that language
    text       just below bash, console or python: what that prints (`printed`); elsewhere a
               picture, of which nothing is run

A comment on the line above says more, ``<!-- run: WORDS -->``, with several divided by ``;``:

    on gpu-18, gpu-19    on these machines, one after another; else on the page's first
    file PATH            is not run but written to that file: scripts and configurations
    serves URL           runs on, until the page ends; goes on when the URL answers
    fails                the last command has to fail

``<!-- not run: REASON -->`` is a block that no machine of the tests can run. `test_guide` lists
them all, with what stands for each.
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

COMMANDS = ("bash", "console", "python")
DATA = ("toml", "yaml", "ini", "json")
OUTPUT = "text"
LANGUAGES = (*COMMANDS, *DATA, OUTPUT)
PROMPT = "$ "

_FENCE = re.compile(r"(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<info>.*)")
_COMMENT = re.compile(r"\s*<!-- (?P<kind>run|not run): (?P<words>.*?) -->\s*")
_DANGLING = "a comment that says how to run stands above no block"
_MENTIONS = re.compile(r"<!--\s*(not )?run\b")


class BrokenPage(Exception):
    """Something of a page does not hold; the message begins with its name and the line."""

    def __init__(self, page: str, line: int, text: str) -> None:
        super().__init__(f"{page}:{line}: {text}")


@dataclass(frozen=True, slots=True)
class Use:
    """What a comment says of the block below it."""

    machines: tuple[str, ...] = ()
    file: str = ""
    serves: str = ""
    fails: bool = False
    not_run: str = ""
    """Why it cannot be; empty where it is run."""


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block."""

    line: int
    """Of its first line of text, from 1."""
    language: str
    text: str = field(repr=False)
    use: Use = Use()
    printed: str = field(default="", repr=False)
    """What the page shows of its output."""
    printed_line: int = 0

    @property
    def first_line(self) -> str:
        """Its first line, to name it by."""
        return self.text.partition("\n")[0].strip()


def read_page(path: Path, *, name: str) -> list[Block]:
    """Return the blocks of a page.

    Raises:
        BrokenPage: It uses what is not in the vocabulary.
    """
    return list(_with_output(_blocks(path.read_text().splitlines(), name), name))


def _blocks(lines: list[str], page: str) -> Iterator[tuple[Block, int]]:
    """Yield each block, and the line of its closing fence."""
    comment, numbered = None, iter(enumerate(lines, start=1))
    for number, line in numbered:
        opened = _FENCE.fullmatch(line)
        if opened is None:
            if comment and line.strip():
                raise BrokenPage(page, number, _DANGLING)
            comment = _read_comment(line, page, number) or comment
            continue
        inside = list(itertools.takewhile(partial(_is_inside, opened), numbered))
        end = number + len(inside) + 1
        if end > len(lines):
            raise BrokenPage(page, number, "this block has no end")
        language = opened["info"].strip()
        _check_language(language, comment, page, number)
        text = "\n".join(line.removeprefix(opened["indent"]) for _, line in inside) + "\n"
        yield Block(number + 1, language, text, comment or Use()), end
        comment = None
    if comment is not None:
        raise BrokenPage(page, len(lines), _DANGLING)


def _is_inside(opened: re.Match[str], numbered: tuple[int, str]) -> bool:
    """Whether a line is none that closes a block."""
    text = numbered[1].strip()
    return not text.startswith(opened["fence"]) or bool(text.strip(opened["fence"][0]))


def _check_language(language: str, comment: Use | None, page: str, line: int) -> None:
    if language.startswith("{") and comment is None:
        return  # A directive of Sphinx: the build checks those.
    if language not in LANGUAGES:
        raise BrokenPage(page, line, f"{language!r} is none of {', '.join(LANGUAGES)}")
    if comment is None:
        return
    if comment.serves and language != "bash":
        raise BrokenPage(page, line, "only bash serves")
    if language == OUTPUT and not comment.file:
        raise BrokenPage(page, line, "what is printed is not run")


def _read_comment(line: str, page: str, number: int) -> Use | None:
    found = _COMMENT.fullmatch(line)
    if found is None:
        if _MENTIONS.search(line):
            raise BrokenPage(page, number, "want <!-- run: … --> alone on a line")
        return None
    if found["kind"] == "not run":
        return Use(not_run=found["words"])
    return _use(found["words"], page, number)


def _use(words: str, page: str, number: int) -> Use:
    told: dict[str, object] = {}
    for part in words.split(";"):
        verb, _, rest = part.strip().partition(" ")
        match verb, rest.strip():
            case "on", rest if rest:
                told["machines"] = tuple(name.strip() for name in rest.split(","))
            case "file" | "serves" as key, rest if rest:
                told[key] = rest
            case "fails", "":
                told["fails"] = True
            case _:
                raise BrokenPage(page, number, f"{part.strip()!r} is not in the vocabulary")
    return Use(**told)  # type: ignore[arg-type]  # each key has its type above


def _with_output(blocks: Iterator[tuple[Block, int]], page: str) -> Iterator[Block]:
    """Give what is printed to the commands above it, and take a console's apart."""
    waiting, ended = None, 0
    for block, end in blocks:
        is_output = block.language == OUTPUT and not block.use.file
        # The fence of one, at most an empty line, the fence of the other.
        if is_output and waiting and not waiting.printed and block.line - ended <= 3:
            yield _printing(waiting, block.text, block.line)
            waiting = None
            continue
        if waiting:
            yield waiting
        if is_output and re.search(r"^(\$|penstock) ", block.text, re.MULTILINE):
            raise BrokenPage(page, block.line, "these look like commands: write bash or console")
        waiting, ended = _of_console(block) if block.language == "console" else block, end
    if waiting:
        yield waiting


def _printing(block: Block, printed: str, line: int) -> Block:
    return Block(block.line, block.language, block.text, block.use, printed, line)


def _of_console(block: Block) -> Block:
    lines = block.text.splitlines()
    # What is not a command leaves its line empty, so that lines keep their numbers.
    commands = [line.removeprefix(PROMPT) if line.startswith(PROMPT) else "" for line in lines]
    printed = "\n".join(line for line in lines if not line.startswith(PROMPT))
    return Block(block.line, "bash", "\n".join(commands) + "\n", block.use, printed, block.line)

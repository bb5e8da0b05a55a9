"""Our docstrings, as reStructuredText and napoleon have to be told what they say.

Responsible for: examples, which stand indented below a line, as code; attributes, whose first
words napoleon would take for a type where a colon follows.
"""

import re
from typing import Any

from sphinx.application import Sphinx

_INDENTED = re.compile(r" {4,}\S")
_SECTION = re.compile(r"\s*(Args|Returns|Raises|Yields|Attributes):")


def mark_examples(
    _app: Sphinx, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]
) -> None:
    """Write ``::`` above each indented paragraph that follows one that is not."""
    marked: list[str] = []
    for line in lines:
        above = next((each for each in reversed(marked) if each.strip()), "")
        begins = _INDENTED.match(line) and above and not marked[-1].strip()
        is_told = above.startswith(" ") or above.endswith("::") or _SECTION.match(above)
        if begins and not is_told:
            marked += ["::", ""]
        marked.append(line)
    lines[:] = marked


_ATTRIBUTES = ("attribute", "data", "property")
_kept: dict[str, list[str]] = {}


def keep_attribute(
    _app: Sphinx, what: str, name: str, _object: Any, _options: Any, lines: list[str]
) -> None:
    """Remember what an attribute's docstring says."""
    if what in _ATTRIBUTES and not any(map(_SECTION.match, lines)):
        _kept[name] = list(lines)


def restore_attribute(
    _app: Sphinx, _what: str, name: str, _object: Any, _options: Any, lines: list[str]
) -> None:
    """Write it down again."""
    lines[:] = _kept.pop(name, lines)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register it: around napoleon, which has 500."""
    for handle, priority in (
        (mark_examples, 400),
        (keep_attribute, 450),
        (restore_attribute, 550),
    ):
        app.connect("autodoc-process-docstring", handle, priority=priority)
    return {"parallel_read_safe": True}

"""Rules of the house that neither ruff nor mypy checks; `CONTRIBUTING.md` gives them in words."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
GENERATED = ROOT / "client/penstock/v1"
MODULE_LINES_MAX = 400
TEST_LINES_MAX = 700  # A list of cases about one noun is read case by case.
FUNCTION_LINES_MAX = 60
VAGUE_NAMES = {"util", "utils", "helper", "helpers", "manager", "common", "misc"}
UNFINISHED = re.compile("TO" + "DO|FIX" + "ME|XX" + "X|NotImplemented" + "Error")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def python_files(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in found if GENERATED not in path.parents]


LIBRARY = python_files("client", "cachenode")
EVERYTHING = LIBRARY + python_files("tests", "bench", "tools")


@functools.cache
def trees() -> dict[Path, ast.Module]:
    """Return what each file says: seconds, which only the process that looks at it spends."""
    return {path: ast.parse(path.read_text()) for path in EVERYTHING}


def lines_max(path: Path) -> int:
    return TEST_LINES_MAX if (ROOT / "tests") in path.parents else MODULE_LINES_MAX


def functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def body_lines(function: Function) -> int:
    """Lines from the first statement after the docstring to the last."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    if not body:
        return 0
    assert function.end_lineno is not None
    return function.end_lineno - body[0].lineno + 1


def public_definitions(tree: ast.Module) -> Iterator[ast.ClassDef | Function]:
    """Public classes and functions of a module, and the public methods of those classes."""
    for node in tree.body:
        if not isinstance(node, ast.ClassDef | Function) or node.name.startswith("_"):
            continue
        yield node
        if isinstance(node, ast.ClassDef):
            methods = (part for part in node.body if isinstance(part, Function))
            yield from (method for method in methods if not method.name.startswith("_"))


def is_override(definition: ast.ClassDef | Function) -> bool:
    """Whether its docstring stands where it overrides: `@override` says so, `@overload` too."""
    names = {ast.unparse(decorator).rpartition(".")[2] for decorator in definition.decorator_list}
    return bool(names & {"override", "overload", "setter"})


def where(path: Path, line: int = 1) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def test_the_sources_were_found() -> None:
    assert len(LIBRARY) >= 20
    assert Path(__file__) in EVERYTHING


def test_a_module_fits_on_a_few_screens() -> None:
    lines = {path: len(path.read_text().splitlines()) for path in EVERYTHING}

    long = [f"{where(path)}: {n} lines" for path, n in lines.items() if n > lines_max(path)]

    assert not long, "split these by noun"


def test_a_function_fits_on_one_screen() -> None:
    long = [
        f"{where(path, function.lineno)} {function.name}: {body_lines(function)} lines"
        for path, tree in trees().items()
        for function in functions(tree)
        if body_lines(function) > FUNCTION_LINES_MAX
    ]

    assert not long


def test_a_module_says_what_it_is_for() -> None:
    silent = [where(path) for path, tree in trees().items() if not ast.get_docstring(tree)]

    assert not silent, "begin these with a docstring"


def test_whatever_is_public_is_documented() -> None:
    silent = [
        f"{where(path, definition.lineno)} {definition.name}"
        for path in LIBRARY
        for definition in public_definitions(trees()[path])
        if not ast.get_docstring(definition) and not is_override(definition)
    ]

    assert not silent


def test_the_library_prints_nothing() -> None:
    prints = [
        where(path, node.lineno)
        for path in LIBRARY
        for node in ast.walk(trees()[path])
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
    ]

    assert not prints, "a verb writes through its console, the rest logs"


def test_nothing_is_left_unfinished() -> None:
    found = [
        where(path, number)
        for path in EVERYTHING
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if UNFINISHED.search(line)
    ]

    assert not found


def test_names_say_what_a_module_is() -> None:
    vague = [
        where(path)
        for path in EVERYTHING
        if VAGUE_NAMES & set(re.split(r"[_/.]", path.relative_to(ROOT).as_posix()))
    ]

    assert not vague

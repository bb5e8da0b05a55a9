"""Imports follow the table of `ARCHITECTURE.md`, and the table says no more than the imports do.

Every import counts: at the top, inside a function, and for types alone. Imports within a room
are its own affair; the standard library is everybody's.
"""

import ast
import fnmatch
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE_ROOTS = (ROOT / "client", ROOT / "cachenode")
OURS = ("penstock", "penstock_node")
GENERATED = "penstock.v1"
_ROW = re.compile(
    r"\| \*\*(?P<name>[a-z0-9 ]+)\*\* \|(?P<modules>.*)\|(?P<rooms>.*)\|(?P<packages>.*)\|"
)


@dataclass(frozen=True, slots=True)
class Room:
    """A row of the table."""

    name: str
    patterns: tuple[str, ...]
    rooms: frozenset[str]
    packages: frozenset[str]


def read_table(text: str) -> dict[str, Room]:
    rows = [match for line in text.splitlines() if (match := _ROW.fullmatch(line.strip()))]
    rooms = [
        Room(
            name=row["name"],
            patterns=tuple(re.findall(r"`([^`]+)`", row["modules"])),
            rooms=frozenset(name.strip() for name in row["rooms"].split(",") if name.strip()),
            packages=frozenset(re.findall(r"`([^`]+)`", row["packages"])),
        )
        for row in rows
    ]
    assert len({room.name for room in rooms}) == len(rooms), "two rows have one name"
    return {room.name: room for room in rooms}


def module_name(path: Path, source_root: Path) -> str:
    parts = path.relative_to(source_root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def all_modules() -> dict[str, Path]:
    return {
        module_name(path, source_root): path
        for source_root in SOURCE_ROOTS
        for path in sorted(source_root.rglob("*.py"))
    }


def imported_names(tree: ast.AST) -> Iterator[str]:
    """Every name imported, as far as it is written: `from a import b` gives `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute, so that the table can be read by eye"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_module(name: str, modules: dict[str, Path]) -> str:
    """Our module that `name` lies in, else the foreign top-level package."""
    top = name.partition(".")[0]
    if top not in OURS:
        return top
    while name not in modules:
        shorter = name.rpartition(".")[0]
        assert shorter, f"{name} is imported and does not exist"
        name = shorter
    return name


def imports_of(path: Path, modules: dict[str, Path]) -> set[str]:
    found = {imported_module(n, modules) for n in imported_names(ast.parse(path.read_text()))}
    return found - sys.stdlib_module_names - {"_typeshed"}


MODULES = all_modules()
TABLE = read_table((ROOT / "ARCHITECTURE.md").read_text())


def rooms_of(module: str) -> list[str]:
    return [
        room.name
        for room in TABLE.values()
        if any(fnmatch.fnmatchcase(module, pattern) for pattern in room.patterns)
    ]


def room_of(module: str) -> str:
    rooms = rooms_of(module)
    return rooms[0] if rooms else f"(no room: {module})"


def arrows() -> dict[str, dict[str, list[str]]]:
    """Room to what it imports, a room or a foreign package, to the modules that do."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for module, path in MODULES.items():
        if module.startswith(GENERATED):
            continue
        room = room_of(module)
        for imported in imports_of(path, MODULES):
            target = room_of(imported) if imported in MODULES else f"`{imported}`"
            if target != room:
                found[room][target].append(module)
    return found


def allowed(room: Room) -> set[str]:
    return set(room.rooms) | {f"`{package}`" for package in room.packages}


def test_the_table_and_the_tree_were_found() -> None:
    assert len(TABLE) >= 5
    assert len(MODULES) >= 20


def test_every_module_stands_in_exactly_one_room() -> None:
    found = {module: rooms_of(module) for module in MODULES}

    wrong = {module: rooms for module, rooms in found.items() if len(rooms) != 1}

    assert not wrong, f"put each into one row of ARCHITECTURE.md's table: {wrong}"


def test_every_import_follows_an_arrow_of_the_table() -> None:
    wrong = [
        f"{', '.join(modules)} ({room}) imports {target}"
        for room, targets in arrows().items()
        for target, modules in targets.items()
        if room in TABLE and target not in allowed(TABLE[room])
    ]

    assert not wrong, "turn these, or add them to ARCHITECTURE.md's table:\n" + "\n".join(wrong)


def test_every_arrow_of_the_table_is_used() -> None:
    used = arrows()

    unused = [
        f"{room.name} -> {target}"
        for room in TABLE.values()
        for target in sorted(allowed(room) - set(used[room.name]))
    ]

    assert not unused, f"take these out of ARCHITECTURE.md's table: {unused}"


def test_every_pattern_of_the_table_names_a_module() -> None:
    patterns = [pattern for room in TABLE.values() for pattern in room.patterns]

    empty = [pattern for pattern in patterns if not fnmatch.filter(MODULES, pattern)]

    assert not empty, f"take these out of ARCHITECTURE.md's table: {empty}"


def test_a_room_imports_only_rooms_above_it_in_the_table() -> None:
    order = list(TABLE)

    turned = [
        f"{room.name} -> {target}"
        for room in TABLE.values()
        for target in sorted(room.rooms)
        if order.index(target) >= order.index(room.name)
    ]

    assert not turned, f"arrows go one way, up the table: {turned}"


def test_the_library_never_imports_the_node() -> None:
    wrong = [
        module
        for module, path in MODULES.items()
        if module.partition(".")[0] == "penstock"
        and any(name.startswith("penstock_node") for name in imports_of(path, MODULES))
    ]

    assert not wrong

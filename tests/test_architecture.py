"""What docs/architecture.md promises: rooms import only rooms below them, and names are no other's."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
ROOMS = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
MODULES = sorted((ROOT / "deltafine").rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "deltafine").parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> set[str]:
    """Rooms that a module imports, also inside functions."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "deltafine":
            parts = (node.module or "").split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    return found


def test_every_room_is_on_the_page() -> None:
    rooms = {path.name for path in (ROOT / "deltafine").iterdir() if (path / "__init__.py").exists()}
    assert rooms <= set(ROOMS)


def test_a_room_imports_only_rooms_below_it() -> None:
    upwards = [
        f"{path.relative_to(ROOT)} imports {other}"
        for path in MODULES
        if room_of(path) in ROOMS
        for other in imported(ast.parse(path.read_text("utf-8")))
        if other in ROOMS and ROOMS.index(other) < ROOMS.index(room_of(path))
    ]
    assert upwards == []


def test_no_two_classes_have_one_name() -> None:
    places = defaultdict(list)
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(str(path.relative_to(ROOT)))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_what_a_package_exports_hides_no_module_of_it() -> None:
    commands = ROOT / "deltafine" / "cli"  # whose functions are called like their files, for the sake of their names
    for init in (path for path in MODULES if path.name == "__init__.py" and path.parent not in (ROOT, commands)):
        modules = {path.stem for path in init.parent.glob("*.py")}
        names = {
            alias.asname or alias.name
            for node in ast.walk(ast.parse(init.read_text("utf-8")))
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        assert not modules & names, init

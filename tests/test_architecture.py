"""What docs/architecture.md promises: rooms import only rooms below them, and names mean one thing."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import deltafine

PACKAGE = Path(deltafine.__file__).parent

PAGE = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text("utf-8")
ROOMS = tuple(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
"""In the order of the page; each may import what stands below it."""

MAY_LOAD = {
    "tensorflow": {"refinement", "measurement", "layers", "jobs/dense_runtimes.py"},
    "keras": {"exporting", "refinement", "measurement", "runtime", "model", "layers"},
    "numba": {"runtime", "measurement"},
    "llvmlite": {"runtime", "measurement"},
    "av": {"video"},
    "h5py": {"refinement", "model", "video", "storage"},
    "matplotlib": set(),
    "jinja2": set(),
    "PIL": set(),
    "onnxruntime": set(),
    "openvino": set(),
    "tf2onnx": set(),
}
"""Rooms, or single modules, whose modules load a heavy library when they are imported; all others where they use it."""

SAME_NAME = {
    "report": "the command, and the document that it shows",
    "energy": "what is measured, and the table of what operations take",
}
"""Modules of one name beside a command in cli/ and its job in jobs/, and why."""


def modules() -> dict[str, ast.Module]:
    """All modules by their path below the package."""
    return {
        file.relative_to(PACKAGE).as_posix(): ast.parse(file.read_text("utf-8"))
        for file in sorted(PACKAGE.rglob("*.py"))
    }


MODULES = modules()


def room_of(module: str) -> str:
    """The room of a module's path or dotted name; the package's own front door is above all rooms."""
    first = re.split(r"[./]", module.removeprefix("deltafine.").removesuffix(".py"))[0]
    return first if first in ROOMS else ""


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import of this package, also within functions and by a name that is a text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield node.lineno, "deltafine.<relative>"
        elif isinstance(node, ast.ImportFrom) and node.module == "deltafine":
            yield from ((node.lineno, f"deltafine.{name.name}") for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("deltafine."):
            yield node.lineno, node.module
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names if name.name.startswith("deltafine"))
        elif isinstance(node, ast.Constant) and re.fullmatch(r"deltafine(\.\w+)+", str(node.value)):
            yield node.lineno, str(node.value)


def test_every_module_is_in_a_room_or_at_the_front_door() -> None:
    outside = [path for path in MODULES if not room_of(path)]
    assert outside == ["__init__.py", "__main__.py", "registration.py"]


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_imports_one_above_it(room: str) -> None:
    upward = [
        f"{path}:{line} imports {name}"
        for path, tree in MODULES.items()
        if room_of(path) == room
        for line, name in imported(tree)
        if room_of(name) and ROOMS.index(room_of(name)) < ROOMS.index(room)
    ]
    assert upward == []


def test_an_import_is_seen_wherever_it_stands() -> None:
    code = (
        "import deltafine.cli\n"
        "def late():\n    from deltafine import jobs\n"
        "if TYPE_CHECKING:\n    from deltafine.report.html import render\n"
        "HOME = 'deltafine.model.loading'\n"
        "from . import near"
    )
    found = [(line, room_of(name)) for line, name in imported(ast.parse(code))]
    assert sorted(found) == [(1, "cli"), (3, "jobs"), (5, "report"), (6, "model"), (7, "")]


def loaded(body: list[ast.stmt]) -> Iterator[str]:
    """The libraries that a module loads when it is imported."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (name.name.split(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from loaded(node.orelse)
        elif isinstance(node, (ast.If, ast.Try, ast.With, ast.ClassDef)):
            yield from loaded(node.body)


@pytest.mark.parametrize("library", MAY_LOAD)
def test_a_heavy_library_is_loaded_only_where_it_is_used(library: str) -> None:
    early = [path for path, tree in MODULES.items() if library in set(loaded(tree.body))]
    assert [path for path in early if not {room_of(path), path} & MAY_LOAD[library]] == []
    unused = [place for place in MAY_LOAD[library] if not any(place in (room_of(path), path) for path in early)]
    assert unused == []


def packages() -> list[str]:
    return [path for path in MODULES if path.endswith("__init__.py")]


def bound_names(tree: ast.Module) -> dict[str, str]:
    """The names that a package's ``__init__`` gives, and where each comes from: imports, ``__all__``, lazy homes."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names |= {name.asname or name.name: f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names[node.name] = "defined here"
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id: "defined here" for target in targets if isinstance(target, ast.Name)}
            if isinstance(node.value, ast.Dict) and isinstance(targets[0], ast.Name) and targets[0].id == "_HOMES":
                homes = ast.literal_eval(node.value)
                names |= {name: f"{home}.{name}" for name, home in homes.items()}
    return names


@pytest.mark.parametrize("package", packages())
def test_names_that_a_package_gives_do_not_hide_its_modules(package: str) -> None:
    folder = (PACKAGE / package).parent
    dotted = ".".join(["deltafine", *folder.relative_to(PACKAGE).parts])
    inside = {file.stem for file in folder.glob("*.py")} | {file.parent.name for file in folder.glob("*/__init__.py")}
    hidden = {
        name: home
        for name, home in bound_names(MODULES[package]).items()
        if name in inside and home != f"{dotted}.{name}"
    }
    assert hidden == {}


def test_a_name_that_hides_a_module_is_seen_however_it_is_given() -> None:
    code = "from deltafine.cli.run import run\n_HOMES = {'refine': 'deltafine.jobs.refine'}\ndef data(): ...\nbench = 1"
    assert bound_names(ast.parse(code)) == {
        "run": "deltafine.cli.run.run",
        "refine": "deltafine.jobs.refine.refine",
        "_HOMES": "defined here",
        "data": "defined here",
        "bench": "defined here",
    }


def test_no_two_modules_have_one_name_but_a_command_and_its_job() -> None:
    places = defaultdict(list)
    for path in MODULES:
        name = Path(path).stem
        if name not in ("__init__", "__main__"):
            places[name].append(path)
    twice = {name: paths for name, paths in places.items() if len(paths) > 1}
    commands = {name for name, paths in twice.items() if paths == [f"cli/{name}.py", f"jobs/{name}.py"]}
    assert twice.keys() - commands == SAME_NAME.keys()


def test_no_two_classes_have_one_name() -> None:
    places = defaultdict(list)
    for path, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(path)
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}

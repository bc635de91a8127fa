"""Every file is written by the one writer: under a name of its own, forced to the disk, renamed into place."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import deltafine
from deltafine import refine
from deltafine.storage import run_files
from deltafine.storage.files import is_unfinished
from tests.small_runs import FAST, write_small_model, write_small_videos

PACKAGE = Path(deltafine.__file__).parent

EXCEPTED = {
    "storage/files.py:write_atomically": "it is the writer",
    "storage/files.py:make_folder": "it makes the folders to write into",
    "storage/hdf5.py:WrittenFile.__init__": "hands HDF5 the file that the writer gives it",
    "cli/__init__.py:main": "writes to nowhere",
    "cli/console.py:quiet_standard_error": "the same",
    "report/github.py:add_summary": "adds to a file that other programs write to as well",
    "refinement/run/tensorboard.py:Logs.__init__": "TensorBoard's writer adds to its own files while it reads them",
    "model/lambdas.py:write_with_config": "a copy in a temporary folder, for Keras to load",
    "model/loading.py:_loaded": "the temporary folder for it",
    "model/model_file.py:named_for_keras": "a link or copy in a temporary folder, for Keras to load",
    "model/safety.py:_member": "a temporary file without a name",
    "exporting/tflite.py:to_tflite": "a temporary folder, for a converter to read from",
    "exporting/tflite.py:_with_signature": "what it is to read, in that folder",
    "exporting/int8_onnx.py:_in_integers": "a temporary folder, for a quantiser to write to",
    "jobs/dense_runtimes.py:_onnx_runtime": "a temporary folder, for a runtime to load from",
    "jobs/dense_runtimes.py:_openvino": "the same",
    "jobs/dense_runtimes.py:onnx_file": "writes into that folder",
    "jobs/int8_runtimes.py:_onnx_runtime": "the same",
    "jobs/int8_runtimes.py:_openvino": "the same",
}
"""Where something else than the writer writes to disk, and why."""

WRITING = {
    "write_text", "write_bytes", "touch", "savez", "savez_compressed", "savetxt", "tofile", "mkdir", "makedirs",
    "save_weights", "savefig", "imsave", "copyfile", "copy2", "copytree", "symlink_to", "hardlink_to", "rename",
    "create_file_writer", "SummaryWriter", "mkstemp", "mkdtemp", "NamedTemporaryFile", "TemporaryFile",
    "TemporaryDirectory", "to_csv", "writestr",
}  # fmt: skip
"""Names of functions and methods that make or change files, whatever they are called on."""


def writes(call: ast.Call) -> bool:
    """Whether a call makes or changes a file on disk, as far as its form tells."""
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    owner = ast.unparse(function.value) if isinstance(function, ast.Attribute) else ""
    values = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
    values += [
        word.value.value for word in call.keywords if word.arg == "mode" and isinstance(word.value, ast.Constant)
    ]
    modes = [value for value in values if isinstance(value, str) and set(value) <= set("rwaxbt+U") and value]
    if name == "WrittenFile":
        return True
    if owner == "os" and name == "open":
        return "O_WRONLY" in ast.unparse(call) or "O_RDWR" in ast.unparse(call)
    if name in {"open", "File", "ZipFile", "fdopen", "__init__"}:
        return any(set(mode) & set("wax+") for mode in modes)
    if owner in {"os", "shutil"} and name in {"replace", "link", "symlink", "move", "copy"}:
        return True
    if name == "save":  # numpy's, Keras', Pillow's and the like, unless into memory or through functions of deltafine
        return owner not in {"checkpoints", "plan"} and ast.unparse(call.args[0]) not in MEMORY if call.args else True
    if name in {"savez", "savefig"}:
        return ast.unparse(call.args[0]) not in MEMORY
    if name == "replace":  # of a path: with one argument
        return len(call.args) == 1 and not call.keywords
    if name == "to_csv":  # the history's is text
        return bool(owner)
    return name in WRITING


MEMORY = {"buffer", "content", "small"}
"""Names of ``io.BytesIO`` objects."""


class Calls(ast.NodeVisitor):
    """The calls that write in a module, by function; what is given to the writer is its business."""

    def __init__(self) -> None:
        self.scope: list[str] = []
        self.found: list[str] = []
        self.given: set[str] = set()

    def _inside(self, node: Any) -> None:
        self.scope.append(node.name)
        self.generic_visit(node)
        self.scope.pop()

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _inside

    def visit_Call(self, node: ast.Call) -> None:
        name = ast.unparse(node.func)
        if name in {"write_atomically", "hdf5.write"}:
            self.given |= {argument.id for argument in node.args[1:] if isinstance(argument, ast.Name)}
            node.args[1:] = [argument for argument in node.args[1:] if not isinstance(argument, ast.Lambda)]
        elif writes(node):
            self.found.append(".".join(self.scope) or "module")
        self.generic_visit(node)


def writers() -> Iterator[str]:
    """The functions of the package that write to disk otherwise than through the writer."""
    for file in sorted(PACKAGE.rglob("*.py")):
        calls = Calls()
        calls.visit(ast.parse(file.read_text("utf-8")))
        for place in calls.found:
            if place.rpartition(".")[2] not in calls.given:
                yield f"{file.relative_to(PACKAGE).as_posix()}:{place}"


def test_nothing_writes_files_but_the_writer_and_what_is_excepted() -> None:
    assert set(writers()) == set(EXCEPTED)


@pytest.mark.parametrize(
    "line",
    [
        'path.open("w")', 'open(path, "ab")', 'path.open(mode="r+")', 'h5py.File(path, "w")', "path.write_text(text)",
        "np.savez(path, **arrays)", "model.save(path)", 'ZipFile(path, "w")', "os.replace(a, b)",
        "partial.replace(path)", "os.open(path, os.O_WRONLY)",
        "shutil.move(a, b)", "out.mkdir(parents=True)", 'av.open(str(path), "w")',
        "frame.to_csv(path)",
    ],
)  # fmt: skip
def test_the_rule_sees_every_way_of_writing(line: str) -> None:
    (expression,) = ast.parse(line).body
    assert isinstance(expression, ast.Expr)
    assert isinstance(expression.value, ast.Call)
    assert writes(expression.value)


@pytest.mark.parametrize(
    "line",
    ['path.open("rb")', "h5py.File(path)", 'text.replace("a", "b")', "np.savez(content)", "os.open(path, os.O_RDONLY)"],
)
def test_the_rule_sees_no_writing_in_reading(line: str) -> None:
    (expression,) = ast.parse(line).body
    assert isinstance(expression, ast.Expr)
    assert isinstance(expression.value, ast.Call)
    assert not writes(expression.value)


def named_twice() -> Iterator[str]:
    """Where a module writes the name of something in a run directory itself: a file's name, or a folder in a path."""
    names = {value for name, value in vars(run_files).items() if name.isupper() and isinstance(value, str)}
    files = {name for name in names if "." in name}
    for file in sorted(PACKAGE.rglob("*.py")):
        if file == Path(run_files.__file__):
            continue
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            joined = node.right if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) else None
            text = joined if isinstance(joined, ast.Constant) else node
            if isinstance(text, ast.Constant) and text.value in (files if text is node else names):
                yield f"{file.relative_to(PACKAGE).as_posix()}:{text.lineno}: {text.value}"


def test_the_names_in_a_run_directory_stand_in_one_place() -> None:
    assert list(named_twice()) == []


def test_a_run_opens_no_file_for_writing_under_its_own_name(tmp_path: Path) -> None:
    model, videos = write_small_model(tmp_path / "small.keras"), write_small_videos(tmp_path / "videos")
    out = tmp_path / "run"
    opened: list[Path] = []

    def see(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
            path = Path(str(arguments[0]))
            if out in path.parents:
                opened.append(path)

    sys.addaudithook(see)  # which stays, and sees nothing more of this folder
    refine(model, videos, out, **FAST, epochs=1)
    names = {path.name.lstrip(".").split(".")[0] for path in opened}
    assert names >= {"settings", "refined", "history", "last", "calibrated", "epoch-0001", "report"}
    assert any(name.startswith("frames-") for name in names)
    assert [path for path in opened if not is_unfinished(path)] == []
    assert not any(is_unfinished(path) for path in out.rglob("*"))

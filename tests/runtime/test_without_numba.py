"""Where numba is not installed, or does not work."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from deltafine import DeltaRuntime
from tests.kept_plans import SIZE, write_played_run

ROOT = Path(__file__).parents[2]
BROKEN = {
    "too new": 'raise ImportError("Numba needs NumPy 2.2 or less. Got NumPy 9.9.")',
    "half gone": "import llvmlite_that_is_gone",
    "not there": "raise ModuleNotFoundError(\"No module named 'numba'\", name='numba')",
}


def without_numba(folder: Path, how: str, code: str) -> subprocess.CompletedProcess[str]:
    """Run Python with a numba that fails on import."""
    (folder / "numba.py").write_text(BROKEN[how])
    path = os.pathsep.join([str(folder), str(ROOT)])
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("too new", "(Numba needs NumPy 2.2 or less. Got NumPy 9.9)"),
        ("half gone", "(No module named 'llvmlite_that_is_gone')"),
        ("not there", "(it is not installed)"),
    ],
)
def test_the_runtime_says_so_in_one_sentence_and_computes_in_numpy(tmp_path: Path, how: str, words: str) -> None:
    run = write_played_run(tmp_path / "run")
    frames = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), np.uint8)
    np.save(tmp_path / "frames.npy", frames)
    code = (
        "import warnings, numpy as np, deltafine\n"
        "with warnings.catch_warnings(record=True) as said:\n"
        "    warnings.simplefilter('always')\n"
        f"    runtime = deltafine.DeltaRuntime({str(run)!r})\n"
        f"answers = [runtime.step(frame) for frame in np.load({str(tmp_path / 'frames.npy')!r})]\n"
        f"np.save({str(tmp_path / 'answers.npy')!r}, answers)\n"
        "print(runtime.engine, *(one.category.__name__ for one in said))\n"
        "print(said[0].message)"
    )
    done = without_numba(tmp_path, how, code)
    engine, sentence = done.stdout.splitlines()
    assert engine == "numpy DeltafineWarning", done.stderr
    assert words in sentence
    assert "pip install" in sentence
    expected = DeltaRuntime(run, engine="numpy")
    assert np.array_equal(np.load(tmp_path / "answers.npy"), [expected.step(frame) for frame in frames])


@pytest.mark.parametrize("use", ["deltafine.bench('run', 'videos')", "deltafine.DeltaRuntime('run', engine='numba')"])
def test_what_needs_numba_is_refused_with_what_to_do(tmp_path: Path, use: str) -> None:
    done = without_numba(
        tmp_path, "too new", f"import deltafine\ntry: {use}\nexcept Exception as error: print(repr(error))"
    )
    assert done.stdout.startswith("DeltafineError("), done.stderr
    assert "Got NumPy 9.9" in done.stdout
    assert "pip install --force-reinstall numba" in done.stdout


def test_numba_comes_with_deltafine_and_no_page_asks_for_more() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert any(one.startswith("numba") for one in project["dependencies"])
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")):
        extras = re.findall(r"pip install [^\n]*\[([a-z,]+)\]", page.read_text("utf-8"))
        assert all("runtime" not in extra.split(",") for extra in extras), page

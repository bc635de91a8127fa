"""Nothing that is kept between starts is needed: what is damaged is made again, what cannot be kept is done without."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from deltafine import DeltaRuntime
from deltafine.errors import DeltafineError, DeltafineWarning
from deltafine.runtime import plan_cache as kept
from deltafine.runtime.kernels import entry
from deltafine.runtime.plan import Plan
from tests.cli.running import Command
from tests.small_runs import SIZE, small_model, write_small_model, write_small_video
from tests.test_files import mounted

FRAME = np.random.default_rng(0).uniform(0, 255, (SIZE, SIZE, 3)).astype(np.float32)
FILES = ("plan.json", "plan.npz", "source.sha256", "choice.json")
CONVOLUTION = "conv2"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with a plan and a choice that were kept."""
    folder = tmp_path_factory.mktemp("whole")
    write_small_model(folder / "refined.keras")
    runtime = DeltaRuntime(folder)
    kept.keep_choice({CONVOLUTION: 0.5}, folder / "runtime", runtime._source)
    assert started(folder)[1] == []
    assert sorted(file.name for file in (folder / "runtime").iterdir()) == sorted(FILES)
    return folder


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    return np.asarray(small_model()(FRAME[None]))[0]


def started(run: Path, **settings: Any) -> tuple[np.ndarray, list[str]]:
    """The prediction of a first frame, and what was said on the way."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        prediction = DeltaRuntime(run, **{"engine": "numpy", **settings}).step(FRAME)
    return prediction, [str(one.message) for one in said if one.category is DeltafineWarning]


def damaged(whole: Path, to: Path, name: str, damage: Callable[[Path], object]) -> Path:
    shutil.copytree(whole, to)
    damage(to / "runtime" / name)
    return to


def _as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _with_other_arrays(path: Path) -> None:
    with np.load(path) as archive:
        arrays = {name: archive[name].astype(np.float64)[..., None] for name in archive.files}
    np.savez(path, **arrays)


def _of_another_version(path: Path) -> None:
    path.write_text(path.read_text("utf-8").replace('"version": ', '"version": 9'), "utf-8")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "content",
    [b"", b"garbage", b"\x00" * 1000, b"null", b"[]", b"7", b'"text"', b"{}", b"[" * 100_000,
     b'{"version": 1, "name": []}', b"\xff\xfe\xfd"],
)  # fmt: skip
def test_another_content_is_made_again_and_said(
    whole: Path, expected: np.ndarray, tmp_path: Path, name: str, content: bytes
) -> None:
    run = damaged(whole, tmp_path / "run", name, lambda path: path.write_bytes(content))
    prediction, said = started(run)
    assert np.allclose(prediction, expected, atol=1e-5)
    (sentence,) = said
    assert str(run / "runtime") in sentence
    assert sentence.endswith(".")
    if name != "choice.json":  # that is made by calibrating
        assert started(run)[1] == []


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *((name, _as_folder) for name in FILES),
        ("plan.npz", _with_other_arrays),
        ("plan.npz", Path.unlink),
        ("plan.json", Path.unlink),
        ("plan.json", _of_another_version),
        ("plan.json", lambda path: path.write_text(path.read_text("utf-8").replace("16", "32"), "utf-8")),
    ],
)
def test_another_kind_of_file_or_plan_is_made_again_and_said(
    whole: Path, expected: np.ndarray, tmp_path: Path, name: str, damage: Callable[[Path], object]
) -> None:
    run = damaged(whole, tmp_path / "run", name, damage)
    prediction, said = started(run)
    assert np.allclose(prediction, expected, atol=1e-5)
    assert len(said) == 1
    if name != "choice.json":
        assert started(run)[1] == []


@settings(deadline=None, max_examples=25)
@given(name=some.sampled_from(FILES), share=some.floats(0, 1, exclude_max=True))
def test_a_file_cut_anywhere_is_made_again(
    whole: Path, expected: np.ndarray, tmp_path_factory: pytest.TempPathFactory, name: str, share: float
) -> None:
    size = (whole / "runtime" / name).stat().st_size
    length = min(int(share * size), size - 2)  # behind that is the last line break
    if name == "source.sha256" and length == 64:
        return  # as it was in earlier versions
    run = damaged(whole, tmp_path_factory.mktemp("cut") / "run", name, lambda path: os.truncate(path, length))
    prediction, said = started(run)
    assert np.allclose(prediction, expected, atol=1e-5)
    assert len(said) == 1


@settings(deadline=None, max_examples=60)
@given(name=some.sampled_from(FILES[:2]), content=some.data())
def test_a_plan_that_cannot_be_read_is_one_sentence(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, name: str, content: some.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("plan") / "plan"
    shutil.copytree(whole / "runtime", folder)
    file = bytearray((folder / name).read_bytes())
    for _ in range(content.draw(some.integers(1, 4))):
        file[content.draw(some.integers(0, len(file) - 1))] = content.draw(some.integers(0, 255))
    (folder / name).write_bytes(file[: content.draw(some.integers(0, len(file)))])
    with contextlib.suppress(DeltafineError):  # any other error fails
        Plan.load(folder)


@pytest.mark.parametrize(
    "events",
    [{CONVOLUTION: float("nan")}, {CONVOLUTION: -1.0}, {CONVOLUTION: 1e300}, {CONVOLUTION: None}, {"pool": 1.0}, ["x"]],
)
def test_a_choice_of_no_prices_or_of_other_layers_is_not_taken(whole: Path, tmp_path: Path, events: object) -> None:
    def change(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"events": events}), "utf-8")

    run = damaged(whole, tmp_path / "run", "choice.json", change)
    said = started(run, engine="auto")[1]
    assert len(said) == 1
    with pytest.warns(DeltafineWarning, match="made again"):
        assert not DeltaRuntime(run).calibrated
    assert DeltaRuntime(whole).calibrated


def test_what_an_earlier_version_kept_is_made_again_without_a_word(
    whole: Path, expected: np.ndarray, tmp_path: Path
) -> None:
    run = damaged(whole, tmp_path / "run", "source.sha256", lambda path: path.write_text(path.read_text("utf-8")[:64]))
    prediction, said = started(run)
    assert np.allclose(prediction, expected, atol=1e-5)
    assert said == []
    assert (run / "runtime" / "source.sha256").read_bytes() == (whole / "runtime" / "source.sha256").read_bytes()


def test_run_goes_on_with_a_plan_that_was_cut_and_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, whole: Path, tmp_path: Path
) -> None:
    run = damaged(whole, tmp_path / "run", "plan.npz", lambda path: os.truncate(path, 1000))
    film = write_small_video(tmp_path / "film.avi", light=True, seed=0, frames=3)
    done = Command(capsys, monkeypatch)("run", run, film)
    assert done.code == 0, done
    assert "frame 2: class " in done.output
    (line,) = [line for line in done.errors.splitlines() if "made again" in line]
    assert line.startswith("Note: What was kept")
    assert "Warning" not in done.errors


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A run directory on a file system that cannot be written to."""
    for disk in mounted(tmp_path / "disk", "size=4m"):
        write_small_model(disk / "refined.keras")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        yield disk


def test_where_nothing_can_be_written_it_works_without_and_says_so_once(
    read_only: Path, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    prediction, said = started(read_only)
    assert np.allclose(prediction, expected, atol=1e-5)
    (sentence,) = said
    assert "cannot be kept" in sentence
    assert "Read-only file system" in sentence
    assert started(read_only, cache=False)[1] == []
    monkeypatch.setenv("XDG_CACHE_HOME", str(read_only / "cache"))
    assert len(started(read_only / "refined.keras")[1]) == 1
    assert started(read_only / "refined.keras", cache=False)[1] == []


HOMELESS = """
import os, sys, warnings
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    import numpy as np, deltafine
    for cache in (False, True):
        runtime = deltafine.DeltaRuntime(sys.argv[1], engine="numpy", cache=cache)
        runtime.step(np.zeros(runtime.plan.input_shape))
    from deltafine.runtime.kernels import entry
    from functions import double
    assert entry(double)(3) == 6
print([str(one.message) for one in said if one.category is deltafine.DeltafineWarning], [os.path.exists("~/.cache")])
"""


def test_a_user_without_a_home_runs_models_and_kernels_and_keeps_none_in_a_tilde(
    tmp_path: Path,
) -> None:
    stranger = ["unshare", "--user", "--map-user=54321", "--map-group=54321"]  # an account that is not listed
    if not shutil.which("unshare") or subprocess.run([*stranger, "true"], capture_output=True).returncode:
        pytest.skip("there are no user namespaces here")
    model = write_small_model(tmp_path / "small.keras")
    place, functions = tmp_path / "place", tmp_path / "functions"
    place.mkdir()
    functions.mkdir()
    (functions / "functions.py").write_text("def double(x):\n    return 2 * x\n", "utf-8")
    functions.chmod(0o555)
    environment = {
        name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR")
    }
    environment["PYTHONPATH"] = os.pathsep.join([str(functions), str(Path.cwd())])
    done = subprocess.run(
        [*stranger, sys.executable, "-c", HOMELESS, model],
        cwd=place, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said, left = done.stdout.strip().splitlines()[-1].split("] [")
    assert said.count("there is no home folder") == 1
    assert said.count("Compiled kernels cannot be kept") == 1, said
    assert left == "False]"  # Keras makes that folder, for its settings


@pytest.fixture
def function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function whose compiled code is kept in a folder of the test's own."""
    monkeypatch.setattr(numba.core.config, "CACHE_DIR", str(tmp_path / "numba"))
    file = tmp_path / "functions.py"
    file.write_text("def double(x):\n    return 2 * x\n", "utf-8")
    spec = importlib.util.spec_from_file_location("functions", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "functions", module)
    spec.loader.exec_module(module)
    return module.double


def compiled(function: Any) -> tuple[bool, list[str]]:
    """Whether kept code was taken, and what was said; the function has to be right."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        made = entry(function)
        assert made(3) == 6
    return bool(made.stats.cache_hits), [str(one.message) for one in said]


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
def test_damaged_kernels_are_compiled_again_and_said(tmp_path: Path, function: Any, suffix: str) -> None:
    assert compiled(function) == (False, [])
    assert compiled(function) == (True, [])
    (file,) = (tmp_path / "numba").rglob(f"*{suffix}")
    content = file.read_bytes()
    flipped = bytearray(content)
    flipped[len(flipped) * 3 // 4] ^= 0xFF
    cuts = [content[:length] for length in range(0, len(content), max(len(content) // 12, 1))]
    for damage in (*cuts, content[:-1], bytes(flipped), b"garbage", content + b"more"):
        file.write_bytes(damage)
        taken, said = compiled(function)
        assert not taken
        assert len(said) in (1, 2), said  # loading and, for an index, saving
        assert str(file) in said[0]
        assert compiled(function) == (True, [])
    file.unlink()
    file.mkdir()
    taken, said = compiled(function)
    assert not taken
    assert any("cannot be kept" in sentence for sentence in said)


def test_kernels_that_cannot_be_kept_are_compiled_and_said(
    function: Any, read_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numba.core.config, "CACHE_DIR", str(read_only / "numba"))
    compiled(function)  # numba takes its next place: beside the function, or in the user's cache
    monkeypatch.setattr("deltafine.runtime.kernels.kernel_cache._Places._locator_classes", [])
    taken, said = compiled(function)
    assert not taken
    assert len(said) == 1
    assert "cannot be kept" in said[0]

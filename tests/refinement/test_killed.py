"""Killed with SIGKILL at any moment and resumed, a run ends as if it had never been killed: to the last bit."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.small_runs import FAST, write_small_videos

SETTINGS: dict[str, Any] = {
    **FAST,
    "epochs": 3,
    "target_macs": 0.2,
    "early_stopping": 2,
    "threshold_learning_rate": 0.01,
    "accumulate": 2,
    "flip": True,
    "brightness": 0.1,
    "mix": 0.5,
    "checkpoint_minutes": 0.0001,
    "start": "carried",
    "recalibrate": 2,
}
"""All that a checkpoint has to keep: controller, counters, averaged gradients, trained steps, states, variation."""

MOMENTS = [
    ("epoch", 4, 0.02),
    ("sync last", 3, 0.0),
    ("decoding", 3, 0.0),
    ("rename report", 3, 0.0),
    ("sync frames", 1, 0.0),
    ("rename last", 5, 0.0),
    ("measuring", 1, 0.0),
    ("rename epoch", 1, 0.0),
    ("rename history", 3, 0.0),
    ("rename calibrated", 1, 0.0),
    ("validating", 2, 0.05),
    ("epoch", 1, 0.0),
    ("epoch", 6, 0.1),
    ("rename last", 9, 0.01),
    ("rename frames", 2, 0.0),
    ("sync refined", 1, 0.0),
    ("measuring", 3, 0.05),
    ("rename report", 1, 0.0),
    ("rename report", 2, 0.0),
    ("rename settings", 1, 0.0),
    ("recalibrating", 1, 0.0),
    ("recalibrating", 9, 0.0),
]
"""A phase, at which time, how many seconds later; the report is renamed as a page, as text and as data."""


class Runs:
    """Does refinements in processes of their own."""

    def __init__(self, model: Path, data: Path) -> None:
        self.arguments = {"model": str(model), "data": str(data), **SETTINGS}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.refinement.killed_run"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
        )

    def __call__(self, out: Path, *, resume: bool = False, **moment: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        job = {"arguments": {**self.arguments, "out": str(out), "resume": resume}, **moment}
        self._process.stdin.write(json.dumps(job) + "\n")
        done: dict[str, Any] = json.loads(self._process.stdout.readline())
        return done

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """Refinements of a model with dropout, whose noise has a state of its own."""
    folder = tmp_path_factory.mktemp("material")
    code = "from tests.refinement.test_killed import write_model; import sys; write_model(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, folder / "dropout.keras"], check=True, stderr=subprocess.DEVNULL)
    made = Runs(folder / "dropout.keras", write_small_videos(folder / "videos"))
    yield made
    made.close()


def write_model(path: str) -> None:
    import keras

    from tests.small_runs import small_model

    plain = small_model()
    dropped = keras.layers.Dropout(0.3, name="dropout")(plain.get_layer("pool").output)
    keras.Model(plain.input, plain.get_layer("head")(dropped)).save(path)


@pytest.fixture(scope="module")
def uninterrupted(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    assert runs(out) == {"code": 0, "error": ""}
    return out


def everything(out: Path) -> dict[str, Any]:
    """What a run came to, without the times at which it did."""
    report = json.loads((out / "report.json").read_bytes())
    for name in ("created", "seconds", "peak_memory_bytes"):
        del report[name]
    for epoch in report["history"]:
        del epoch["seconds"]
    rows = [line.rsplit(",", 1)[0] for line in (out / "history.csv").read_text("utf-8").splitlines()]
    return {"report": report, "history": rows, "files": sorted(str(f.relative_to(out)) for f in out.rglob("*"))}


def arrays(out: Path) -> dict[str, np.ndarray]:
    """All weights of the refined model, and everything that a training is saved with, by name."""
    with zipfile.ZipFile(out / "refined.keras") as archive:
        files = {"refined": io.BytesIO(archive.read("model.weights.h5"))}
    files |= {file.stem: io.BytesIO(file.read_bytes()) for file in (out / "checkpoints").iterdir()}
    found: dict[str, np.ndarray] = {}
    for name, content in files.items():
        with h5py.File(content) as file:
            file.visititems(
                lambda key, item, name=name: (
                    found.__setitem__(f"{name}/{key}", item[()]) if isinstance(item, h5py.Dataset) else None
                )
            )
    return found


def assert_identical(out: Path, other: Path) -> None:
    assert everything(out) == everything(other)
    here, there = arrays(out), arrays(other)
    assert here.keys() == there.keys()
    assert len([name for name in here if name.startswith("refined/")]) > 10
    for name, value in here.items():
        assert np.array_equal(value, there[name], equal_nan=value.dtype.kind == "f"), name


def test_killed_at_a_checkpoint_and_resumed(runs: Runs, uninterrupted: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert runs(out, moment="sync last", number=4)["code"] == -signal.SIGKILL
    left = {file.name for file in out.rglob("*")}
    assert any("writing" in name for name in left)
    assert "last.h5" in left
    assert "history.csv" not in left
    assert runs(out, resume=True) == {"code": 0, "error": ""}
    assert_identical(out, uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize(("moment", "number", "seconds"), MOMENTS)
def test_killed_at_any_moment_and_resumed(
    runs: Runs, uninterrupted: Path, tmp_path: Path, moment: str, number: int, seconds: float
) -> None:
    out = tmp_path / "run"
    assert runs(out, moment=moment, number=number, seconds=seconds)["code"] == -signal.SIGKILL
    assert runs(out, resume=True) == {"code": 0, "error": ""}
    assert_identical(out, uninterrupted)


@pytest.mark.slow
def test_killed_again_and_again_at_random_and_resumed_by_the_same_command(
    runs: Runs, uninterrupted: Path, tmp_path: Path
) -> None:
    """As a machine that is taken away does it: always the same command, with --resume."""
    draw = random.Random(8)
    out = tmp_path / "run"
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("\n".join(f"{name} = {json.dumps(value)}" for name, value in SETTINGS.items()), "utf-8")
    command = [sys.executable, "-m", "deltafine", "refine", runs.arguments["model"], "--data", runs.arguments["data"]]
    command += ["--out", str(out), "--recipe", str(recipe), "--resume"]
    kills = 0
    while True:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        wait_until_at_work(process, out)
        try:
            said, _ = process.communicate(timeout=draw.uniform(0.0, 6.0) * (1 + kills / 4))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
            continue
        # The budget is given, and so small a network need not keep it.
        assert process.returncode == (1 if b"The budget is not kept" in said else 0), said
        break
    assert kills >= 2
    assert_identical(out, uninterrupted)


def wait_until_at_work(process: subprocess.Popen[bytes], out: Path) -> None:
    """Until TensorFlow is loaded and the run has locked its directory."""
    end = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < end:
        with suppress(FileNotFoundError):  # A file closed, or a process ended, while it was looked at.
            if any(os.path.realpath(link) == str(out) for link in Path(f"/proc/{process.pid}/fd").iterdir()):
                return
        time.sleep(0.05)

"""Every command with every kind of model, from beginning to end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from deltafine import bench, load_report
from tests.cli.every_model import FRAMES, KINDS
from tests.cli.running import Command, Done

FAST = ("--frames", FRAMES, "--batch", 4, "--relative-threshold", 0.5)
REFUSED = [name for name, kind in KINDS.items() if kind.refused]
TAKEN = [
    pytest.param(name, marks=pytest.mark.slow) if kind.slow else name
    for name, kind in KINDS.items()
    if not kind.refused
]
ONE_VIDEO = Path("dark") / "dark0.avi"


@pytest.mark.parametrize("name", TAKEN)
def test_every_command_takes_it(name: str, deltafine: Command, videos: Path, tmp_path: Path) -> None:
    kind, model, out = KINDS[name], tmp_path / "model.keras", tmp_path / "run"
    made = kind.make()
    made.save(model)
    told = ("--data", videos, "--task", kind.task, *kind.options)

    plan = json.loads(done(deltafine("inspect", model, "--json", *kind.options)).output)
    planned = done(deltafine("refine", model, *told, "--out", out, "--dry-run")).output
    assert f"{plan['totals']['selected']} delta layers" in " ".join(planned.split())
    assert not out.exists()

    done(deltafine("refine", model, *told, "--out", out, "--epochs", 1, *FAST))
    document = json.loads((out / "report.json").read_bytes())
    for what in ("name", "shape", "mac_share", "selected"):
        assert [site[what] for site in document["sites"]] == [site[what] for site in plan["sites"]]
    done(deltafine("report", out))
    measured = done(deltafine("report", out / "refined.keras", "--original", model, *told, "--format", "json"))
    again = json.loads(measured.output)["models"]["refined"]["streams"]
    best = list(document["models"].values())[-1]["streams"]  # the calibrated model, where nothing could be trained
    assert again["operations"] == best["operations"]
    assert again["outputs"] == best["outputs"]
    assert len(best["outputs"]) == (len(made.outputs) if len(made.outputs) > 1 else 0)

    for form in ("stripped", "quantized"):
        done(deltafine("export", out, "--form", form, "--frames", FRAMES))
        plain = keras.models.load_model(out / "export" / f"{form}.keras")
        sample = tuple(size or FRAMES for size in plain.input_shape[1:])
        given = keras.tree.flatten(plain.predict(np.zeros((1, *sample), "float32"), verbose=0))
        assert all(np.isfinite(values).all() for values in given)
        assert len(given) == len(made.outputs)
    done(deltafine("export", out, "--format", "tflite"))
    done(deltafine("export", out, "--format", "thresholds"))

    for what in (out, model):
        ran = deltafine("run", what, videos / ONE_VIDEO, "--no-calibrate", *(kind.options if what == model else ()))
        if kind.runs:
            assert "MACs after the first" in done(ran).output
        else:
            assert ran.refusal
    if kind.runs and kind.timed:
        timed = bench(out, videos, frames=24, threads=None)
        assert timed.ratio > 0, timed
        assert load_report(out).timings == [timed.timing]
    if name == "functional":  # in a process, since TensorFlow's number of threads is fixed once it has computed
        command = ["bench", out, "--data", videos, "--frames", "24", "--threads", "1"]
        ended = subprocess.run([sys.executable, "-m", "deltafine", *map(str, command)], capture_output=True, text=True)
        assert "Against the best dense runtime" in ended.stdout, ended.stdout + ended.stderr


@pytest.mark.parametrize("name", REFUSED)
def test_every_command_refuses_it_with_the_same_sentence(
    name: str, deltafine: Command, videos: Path, tmp_path: Path
) -> None:
    kind, model, out = KINDS[name], tmp_path / "model.keras", tmp_path / "run"
    kind.make().save(model)
    told = ("--data", videos, "--task", "distill", *kind.options)
    refusals = {
        deltafine("inspect", model, *kind.options).refusal,
        deltafine("refine", model, *told, "--out", out, "--dry-run").refusal,
        deltafine("refine", model, *told, "--out", out).refusal,
        deltafine("report", model, *told).refusal,
    }
    assert len(refusals) == 1, refusals
    assert str(kind.refused) in refusals.pop()
    assert not out.exists()
    ran = deltafine("run", model, videos / ONE_VIDEO, "--no-calibrate")
    assert ran.code == (0 if kind.runs else 2), ran
    if not kind.runs:
        assert ran.refusal


@pytest.mark.parametrize("name", ["functional", "sequential", "sequential_built_later", "nested_in_sequential"])
def test_hdf5_files_are_taken_as_keras_files_are(name: str, deltafine: Command, videos: Path, tmp_path: Path) -> None:
    made = KINDS[name].make()
    plans = []
    for suffix in (".keras", ".h5", ".hdf5"):
        made.save(tmp_path / f"model{suffix}")
        plans.append(json.loads(done(deltafine("inspect", tmp_path / f"model{suffix}", "--json")).output))
    assert plans[0] == plans[1] == plans[2]
    for command in (("inspect",), ("refine", "--dry-run", "--data", videos, "--out", tmp_path / "run")):
        done(deltafine(command[0], tmp_path / "model.h5", *command[1:]))
    done(deltafine("refine", tmp_path / "model.h5", "--data", videos, "--out", tmp_path / "run", "--epochs", 0, *FAST))


def done(result: Done) -> Done:
    assert result.code == 0, result.errors + result.output
    assert "Traceback" not in result.errors
    return result

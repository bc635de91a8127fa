"""Exported files, played in environments that hold the packages of their receivers alone.

``python -m tests.exporting.clean_environments RUN --envs DIR`` prints the table for a run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import deltafine
from deltafine.errors import DeltafineError
from deltafine.exporting import FORMATS
from deltafine.exporting.comparing import answers_of
from deltafine.exporting.forms import frames_of

SCRIPT = Path(__file__).with_name("receivers.py")
PACKAGES = {"keras": ("tensorflow",), "tflite": ("ai-edge-litert",), "onnx": ("onnxruntime",), "numpy": ("numpy",)}
"""What is installed for each receiver; with nothing, it is Python alone."""
CASES = {
    ("keras", "stripped"): ("keras", "keras"),
    ("keras", "quantized"): ("keras", "keras"),
    ("keras", "streaming"): ("keras", "keras"),
    ("tflite", "stripped"): ("tflite", "tflite"),
    ("tflite", "quantized"): ("tflite", "tflite"),
    ("tflite", "streaming"): ("tflite", "tflite"),
    ("int8", "stripped"): ("tflite", "tflite"),
    ("onnx", "stripped"): ("onnx", "onnx"),
    ("onnx", "quantized"): ("onnx", "onnx"),
    ("onnx", "streaming"): ("onnx", "onnx"),
    ("int8-onnx", "stripped"): ("onnx", "onnx"),
    ("plan", ""): ("plan", "numpy"),
    ("fixed-plan", ""): ("fixed-plan", "numpy"),
    ("thresholds", ""): ("table", ""),
    ("neurobench", ""): ("table", ""),
}
"""Format and form, and what plays it in which environment. Lava and Akida have tests of their own."""


class NotInstalled(Exception):
    """An environment cannot be made here."""


@dataclass(frozen=True)
class Found:
    """How a file was played.

    Attributes:
        packages: with their versions, and that of Python.
        frames: played; 0 where there is no network in the file.
        difference: of any output to the model that was written, at most.
        same: share of frames with the largest output at the same place.
        checked: the difference that the export itself found.
    """

    packages: str
    frames: int = 0
    difference: float = 0.0
    same: float = 1.0
    checked: float = 0.0


@cache
def environment(folder: Path, name: str) -> Path:
    """The Python of an environment with the packages of a receiver; made where there is none yet.

    Raises:
        NotInstalled: saying what pip says.
    """
    place = folder / (name or "nothing")
    if not place.exists():
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        if name:
            pip = [place / "bin" / "pip", "install", "--quiet", *PACKAGES[name]]
            done = subprocess.run(pip, capture_output=True, text=True, check=False)
            if done.returncode:
                raise NotInstalled(done.stderr.strip().splitlines()[-1])
    return place / "bin" / "python"


def called(*words: object) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def played(run: Path, format: str, form: str, folder: Path, environments: Path) -> Found:
    """Export a run, and play the file on the frames that the export compared it on."""
    receiver, packages = CASES[format, form]
    python = environment(environments, packages)
    seen: dict[str, Any] = {}

    class Seen(type(FORMATS.get(format))):  # type: ignore[misc]
        """Keeps what is compared."""

        def check(self, made: Any, file: Path, clips: np.ndarray | None) -> Any:
            seen.update(made=made, clips=clips)
            return super().check(made, file, clips)

    how = {"form": form} if form else {}
    clip = {"frames": 4} if form == "quantized" else {}
    done = deltafine.export(run, format=Seen(), output=folder / f"{format}{form}{Seen.suffix}", **how, **clip)
    about = _versions(python, packages)
    if receiver == "table":
        called(python, "-I", SCRIPT, receiver, done.file)
        return Found(about)
    np.savez(folder / "frames.npz", clips=seen["clips"].astype("float32"))
    called(python, "-I", SCRIPT, receiver, done.file, folder / "frames.npz", folder / "answers.npz")
    with np.load(folder / "answers.npz") as read:
        answers = read["answers"]
    expected = _expected(seen["made"], seen["clips"])
    assert answers.shape == expected.shape
    assert done.agreement is not None
    return Found(
        about,
        len(answers),
        float(np.abs(answers - expected).max()),
        float((answers.argmax(-1) == expected.argmax(-1)).mean()),
        done.agreement.largest_difference,
    )


def _expected(made: Any, clips: np.ndarray) -> np.ndarray:
    """What the Keras model that was written answers, or the refined model where frames were played one by one."""
    if hasattr(made, "refined"):
        found = [answers[0] for clip in clips for answers in answers_of(made.refined, clip)]
    else:
        model = getattr(made, "model", made)
        found = [np.asarray(model(value, training=False)) for value in frames_of(clips, model)]
    return np.stack([one.reshape(-1) for one in found])


def _versions(python: Path, name: str) -> str:
    found = "Python " + called(python, "-c", "import platform; print(platform.python_version())").strip()
    if not name:
        return f"{found} alone"
    packages = [*PACKAGES[name], *(["keras"] if name == "keras" else [])]
    words = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    versions = called(python, "-c", words, *packages).split()
    return ", ".join(f"{package} {version}" for package, version in zip(packages, versions, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--envs", type=Path, required=True)
    parser.add_argument("--only", action="append", default=[])
    asked = parser.parse_args()
    print("| format | form | environment | frames | largest difference | same class |\n|---|---|---|---|---|---|")
    for format, form in CASES:
        if asked.only and format not in asked.only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = played(asked.run, format, form, Path(folder), asked.envs.absolute())
            except (NotInstalled, DeltafineError) as error:
                print(f"| `{format}` | {form} | {error} | | | |", flush=True)
                continue
        figures = f"{found.frames} | {found.difference:.2g} | {found.same:.1%}" if found.frames else "| reads back |"
        print(f"| `{format}` | {form} | {found.packages} | {figures} |", flush=True)


if __name__ == "__main__":
    main()

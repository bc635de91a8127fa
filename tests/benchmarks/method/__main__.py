"""Methods of refinement side by side: same model, videos, epochs and batches, several seeds.

    python -m tests.benchmarks.method --out bench/                              # the demo's shapes
    python -m tests.benchmarks.method --out bench/ --model m.keras --data videos/ --streams streams/

Every run is a row of ``results.csv``; a run that is there already is not done again, so that a benchmark that was
stopped goes on. Of each method, ``fronts.csv`` and ``fronts.png`` show the mean over the seeds with its 95% interval.
"""

from __future__ import annotations

import csv
import shutil
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

FULL: dict[str, list[dict[str, Any]]] = {
    "paper": [{"method": "paper", "relative_threshold": 0.25, "distill": 0.0, "penalty": p} for p in (10, 30, 60, 100)],
    "l1": [{"method": "l1", "distill": 0.0, "penalty": p} for p in (0.1, 1, 10)],
    "quantize": [{"rule": "quantize", "penalty": p} for p in (5, 20)],
    "calibrated": [{"epochs": 0, "max_divergence": d} for d in (0.005, 0.01, 0.02, 0.05)],
    "send-on-delta": [{"penalty": p} for p in (5, 10, 20, 40, 60)],
    "paper, small rate": [
        {"method": "paper", "relative_threshold": 0.25, "distill": 0.0, "penalty": 30, "learning_rate": 3e-4}
    ],
    "send-on-delta, small rate": [{"penalty": 10, "learning_rate": 3e-4}],
    "calibrated, pixels": [
        {"granularity": "pixel", "epochs": 0, "max_divergence": d} for d in (0.005, 0.01, 0.02, 0.05)
    ],
    "send-on-delta, pixels": [{"granularity": "pixel", "penalty": p} for p in (10, 15, 20)],
    "send-on-delta, pixels, states of noise": [
        {"granularity": "pixel", "start": "noise", "penalty": p} for p in (10, 15, 20)
    ],
    "send-on-delta, pixels, states of noise, 8 epochs, mirrored": [
        {"granularity": "pixel", "start": "noise", "epochs": 8, "flip": True, "penalty": p} for p in (10, 13)
    ],
}
"""Methods and their settings, from careful to sparse."""


@dataclass
class Row:
    """One run, measured on continuous streams."""

    method: str
    setting: str
    seed: int
    stream_accuracy: float
    clip_accuracy: float
    mac_density: float
    pixel_density: float
    original_accuracy: float
    seconds: float

    @property
    def key(self) -> tuple[str, str, int]:
        return self.method, self.setting, self.seed


def main(
    out: Annotated[Path, typer.Option(help="Where the tables, the picture and the demo's videos go.")],
    model: Annotated[Path | None, typer.Option(help="A pretrained model; the demo's if not given.")] = None,
    data: Annotated[Path | None, typer.Option(help="Videos to refine on.")] = None,
    streams: Annotated[Path | None, typer.Option(help="Continuous videos to measure on.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="Only these methods.")] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 4,
    seeds: Annotated[int, typer.Option(min=1)] = 3,
    share: Annotated[str, typer.Option(help="i/n: only every n-th run, to share the work among processes.")] = "0/1",
) -> None:
    """Run what is missing, then draw the fronts."""
    out.mkdir(parents=True, exist_ok=True)
    if model is None or data is None:
        model, data, streams = _demo(out / "demo")
    unknown = set(method or ()) - FULL.keys()
    if unknown:
        raise typer.BadParameter(f"There are the methods {', '.join(FULL)}, not {', '.join(unknown)}.")
    part, parts = (int(number) for number in share.split("/"))
    done = {row.key for row in _read(out / "results.csv")}
    for number, (name, settings, seed) in enumerate(_plan(method or list(FULL), seeds)):
        if number % parts == part and (name, _words(settings), seed) not in done:
            row = _run(name, settings, seed, epochs, out, model, data, streams)
            _append(out / "results.csv", row)
            print(row, flush=True)
    rows = _read(out / "results.csv")
    _write_fronts(out / "fronts.csv", rows)
    _draw(out / "fronts.png", rows)


def _plan(methods: list[str], seeds: int) -> Iterator[tuple[str, dict[str, Any], int]]:
    for seed in range(seeds):
        for name in methods:
            for settings in FULL[name]:
                yield name, settings, seed


def _demo(folder: Path) -> tuple[Path, Path, Path]:
    from deltafine.jobs import demo
    from deltafine.jobs.refine import Quiet

    example = demo.Example(folder / "baseline.keras", folder / "videos", folder / "streams")
    if not example.model.exists():
        demo.prepare(folder, overwrite=True, listener=Quiet())
    return example.model, example.data, example.streams


def _words(settings: dict[str, Any]) -> str:
    shown = {name: value for name, value in settings.items() if name in ("penalty", "max_divergence")}
    return " ".join(f"{name}={value:g}" for name, value in shown.items())


def _run(
    name: str,
    settings: dict[str, Any],
    seed: int,
    epochs: int,
    out: Path,
    model: Path,
    data: Path,
    streams: Path | None,
) -> Row:
    import deltafine

    folder = out / "run" / f"{name} {_words(settings)} {seed}".replace(" ", "_").replace(",", "")
    shutil.rmtree(folder, ignore_errors=True)
    given = {"epochs": epochs, **settings}
    report = deltafine.refine(
        model,
        data,
        folder,
        streams=None if streams is None else str(streams),
        cache=str(out / "cache"),
        seed=seed,
        **given,
    )
    measured = report.models["refined" if given["epochs"] else "calibrated"]
    figures = measured.streams
    return Row(
        method=name,
        setting=_words(settings),
        seed=seed,
        stream_accuracy=_value(figures.frame_accuracy),
        clip_accuracy=_value(measured.clips.window_accuracy),
        mac_density=figures.operations.mac_density,
        pixel_density=figures.operations.pixel_density,
        original_accuracy=_value(report.models["original"].streams.frame_accuracy),
        seconds=report.seconds,
    )


def _value(estimate: Any) -> float:
    if estimate is None:
        raise SystemExit("This benchmark compares accuracies: the videos need labels.")
    return float(estimate.value)


def _read(path: Path) -> list[Row]:
    if not path.exists():
        return []
    kinds: dict[str, Any] = {"str": str, "int": int, "float": float}
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Row(**{field.name: kinds[str(field.type)](row[field.name]) for field in fields(Row)})
            for row in csv.DictReader(file)
        ]


def _append(path: Path, row: Row) -> None:
    new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(asdict(row))


def _points(rows: list[Row]) -> dict[str, dict[str, dict[str, tuple[float, float]]]]:
    """method -> setting -> figure -> (mean, half of the 95% interval of the mean, Student's t)."""
    student = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78}
    groups: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        groups[row.method][row.setting].append(row)
    points: dict[str, dict[str, dict[str, tuple[float, float]]]] = {}
    for method, settings in groups.items():
        points[method] = {}
        for setting, of_setting in settings.items():
            found = {}
            for figure in ("stream_accuracy", "clip_accuracy", "mac_density", "pixel_density"):
                values = np.array([getattr(row, figure) for row in of_setting])
                free = len(values) - 1
                spread = values.std(ddof=1) / np.sqrt(len(values)) * student.get(free, 2.0) if free else float("nan")
                found[figure] = (float(values.mean()), float(spread))
            points[method][setting] = found
    return points


def _write_fronts(path: Path, rows: list[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        figures = ("stream_accuracy", "clip_accuracy", "mac_density", "pixel_density")
        writer.writerow(["method", "setting", *(f"{figure}{end}" for figure in figures for end in ("", "_95"))])
        for method, settings in _points(rows).items():
            for setting, found in settings.items():
                writer.writerow([method, setting, *(f"{x:.4f}" for figure in figures for x in found[figure])])


def _draw(path: Path, rows: list[Row]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    picture, axes = plt.subplots(2, 2, figsize=(12, 9), sharex="col", sharey="row", layout="constrained")
    original = rows[0].original_accuracy if rows else float("nan")
    for row, accuracy in enumerate(("stream_accuracy", "clip_accuracy")):
        for column, density in enumerate(("mac_density", "pixel_density")):
            axis = axes[row, column]
            for method, settings in _points(rows).items():
                found = sorted(settings.values(), key=lambda figures: figures[density][0])
                axis.errorbar(
                    [figures[density][0] for figures in found],
                    [figures[accuracy][0] for figures in found],
                    xerr=[figures[density][1] for figures in found],
                    yerr=[figures[accuracy][1] for figures in found],
                    marker="o",
                    capsize=3,
                    label=method,
                )
            axis.set_xscale("log")
            axis.set_xlabel(density.replace("_", " "))
            axis.set_ylabel(accuracy.replace("_", " "))
            axis.grid(alpha=0.3)
            if row == 0:
                axis.axhline(original, color="grey", linestyle="--", label="original model")
    axes[0, 0].legend(fontsize="small")
    picture.savefig(path, dpi=110)
    plt.close(picture)


if __name__ == "__main__":
    typer.run(main)

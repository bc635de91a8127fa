"""Methods of refinement side by side on several data sets: same model, videos and batches, several seeds.

    python -m tests.benchmarks.method --out bench/                          # the demo's shapes, still and moving camera
    python -m tests.benchmarks.method --out bench/ --data-set road=model.keras,videos/,streams/
    python -m tests.benchmarks.method --out bench/ --data-set drive=model.keras,videos/,streams/,regression

Every run is a row of ``results.csv``; a run that is there already is not done again, so that a benchmark that was
stopped goes on. Of each method, ``fronts.csv`` and a picture per data set show the mean over the seeds with its 95%
interval. The quality is accuracy per frame, or 1 - error of numbers, on the streams.
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
    "calibrated": [{"epochs": 0, "max_divergence": d} for d in (0.005, 0.02, 0.08, 0.32)],
    "default": [{}],
    "default, pixels": [{"granularity": "pixel"}],
    "paper": [{"method": "paper", "relative_threshold": 0.25, "distill": 0.0, "penalty": p} for p in (10, 30, 60, 100)],
    "l1": [{"method": "l1", "distill": 0.0, "penalty": p} for p in (0.1, 1, 10)],
    "quantize": [{"rule": "quantize", "penalty": p} for p in (5, 20)],
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
"""Methods and their settings, from careful to sparse; cheap ones first."""
FIGURES = ("quality", "mac_density", "pixel_density")


@dataclass(frozen=True)
class Material:
    """A pretrained model, videos to refine it on, and others to measure it on."""

    model: Path
    data: Path
    streams: Path | None = None
    task: str | None = None


@dataclass
class Row:
    """One run, measured on continuous streams."""

    data: str
    method: str
    setting: str
    seed: int
    quality: float
    original: float
    mac_density: float
    pixel_density: float
    seconds: float

    @property
    def key(self) -> tuple[str, str, str, int]:
        return self.data, self.method, self.setting, self.seed


def main(
    out: Annotated[Path, typer.Option(help="Where the tables, the pictures and the rendered videos go.")],
    data_set: Annotated[
        list[str] | None,
        typer.Option(help="demo, moving, or NAME=MODEL,VIDEOS[,STREAMS[,TASK]]; default: demo and moving."),
    ] = None,
    method: Annotated[list[str] | None, typer.Option(help="Only these methods.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of all methods; default: as many as a run has.")] = None,
    seeds: Annotated[int, typer.Option(min=1)] = 3,
    share: Annotated[str, typer.Option(help="i/n: only every n-th run, to share the work among processes.")] = "0/1",
) -> None:
    """Run what is missing, then draw the fronts."""
    out.mkdir(parents=True, exist_ok=True)
    materials = dict(_material(words, out) for words in data_set or ["demo", "moving"])
    unknown = set(method or ()) - FULL.keys()
    if unknown:
        raise typer.BadParameter(f"There are the methods {', '.join(FULL)}, not {', '.join(unknown)}.")
    which, of = (int(number) for number in share.split("/"))
    done = {row.key for row in _read(out / "results.csv")}
    for number, (data, name, settings, seed) in enumerate(_plan(list(materials), method or list(FULL), seeds)):
        if number % of == which and (data, name, _words(settings), seed) not in done:
            given = settings if epochs is None else {"epochs": epochs, **settings}
            row = _run(name, given, seed, out, data, materials[data])
            _append(out / "results.csv", row)
            print(row, flush=True)
    rows = _read(out / "results.csv")
    _write_fronts(out / "fronts.csv", rows)
    for data in dict.fromkeys(row.data for row in rows):
        _draw(out / f"{data}.png", [row for row in rows if row.data == data])


def _plan(data: list[str], methods: list[str], seeds: int) -> Iterator[tuple[str, str, dict[str, Any], int]]:
    for seed in range(seeds):
        for name in methods:
            for one in data:
                for settings in FULL[name]:
                    yield one, name, settings, seed


def _material(words: str, out: Path) -> tuple[str, Material]:
    """A data set by its name; those of the demo are rendered when they are first needed."""
    from deltafine.jobs import demo
    from deltafine.jobs.refine import Quiet
    from tests.benchmarks.method.moving_camera import MovingScene

    name, _, given = words.partition("=")
    scenes = {"demo": demo.Scene, "moving": MovingScene}
    if given:
        model, data, streams, task = [*given.split(","), "", ""][:4]
        return name, Material(Path(model), Path(data), Path(streams) if streams else None, task or None)
    if name not in scenes:
        raise typer.BadParameter(f"There are the data sets {', '.join(scenes)}, or NAME=MODEL,VIDEOS,STREAMS.")
    folder = out / name
    if not (folder / "baseline.keras").exists():
        demo.prepare(folder, overwrite=True, listener=Quiet(), scene=scenes[name])
    return name, Material(folder / "baseline.keras", folder / "videos", folder / "streams")


def _words(settings: dict[str, Any]) -> str:
    shown = {name: value for name, value in settings.items() if name in ("penalty", "max_divergence")}
    return " ".join(f"{name}={value:g}" for name, value in shown.items())


def _run(name: str, settings: dict[str, Any], seed: int, out: Path, data: str, material: Material) -> Row:
    import deltafine
    from deltafine.refinement.training.validation import quality

    folder = out / "run" / f"{data} {name} {_words(settings)} {seed}".replace(" ", "_").replace(",", "")
    shutil.rmtree(folder, ignore_errors=True)
    report = deltafine.refine(
        material.model,
        material.data,
        folder,
        streams=None if material.streams is None else str(material.streams),
        cache=str(out / "cache"),
        seed=seed,
        **({} if material.task is None else {"task": material.task}),
        **settings,
    )
    figures = report.models["refined" if "refined" in report.models else "calibrated"].streams
    return Row(
        data=data,
        method=name,
        setting=_words(settings),
        seed=seed,
        quality=quality(figures),
        original=quality(report.models["original"].streams),
        mac_density=figures.operations.mac_density,
        pixel_density=figures.operations.pixel_density,
        seconds=report.seconds,
    )


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


def _points(rows: list[Row]) -> dict[tuple[str, str], dict[str, dict[str, tuple[float, float]]]]:
    """(data, method) -> setting -> figure -> (mean, half of the 95% interval of the mean, Student's t)."""
    student = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78}
    groups: dict[tuple[str, str], dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        groups[row.data, row.method][row.setting].append(row)
    points: dict[tuple[str, str], dict[str, dict[str, tuple[float, float]]]] = {}
    for group, settings in groups.items():
        points[group] = {}
        for setting, of_setting in settings.items():
            found = {}
            for figure in FIGURES:
                values = np.array([getattr(row, figure) for row in of_setting])
                free = len(values) - 1
                spread = values.std(ddof=1) / np.sqrt(len(values)) * student.get(free, 2.0) if free else float("nan")
                found[figure] = (float(values.mean()), float(spread))
            points[group][setting] = found
    return points


def _write_fronts(path: Path, rows: list[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        ends = ("", "_95")
        writer.writerow(["data", "method", "setting", *(f"{figure}{end}" for figure in FIGURES for end in ends)])
        for (data, method), settings in _points(rows).items():
            for setting, found in settings.items():
                writer.writerow([data, method, setting, *(f"{x:.4f}" for figure in FIGURES for x in found[figure])])


def _draw(path: Path, rows: list[Row]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    picture, axes = plt.subplots(1, 2, figsize=(12, 5), sharey="row", layout="constrained")
    for axis, density in zip(axes, ("mac_density", "pixel_density"), strict=True):
        for (_, method), settings in _points(rows).items():
            found = sorted(settings.values(), key=lambda figures: figures[density][0])
            axis.errorbar(
                [figures[density][0] for figures in found],
                [figures["quality"][0] for figures in found],
                xerr=[figures[density][1] for figures in found],
                yerr=[figures["quality"][1] for figures in found],
                marker="o",
                capsize=3,
                label=method,
            )
        axis.set_xscale("log")
        axis.set_xlabel(density.replace("_", " "))
        axis.set_ylabel("quality")
        axis.grid(alpha=0.3)
        axis.axhline(rows[0].original, color="grey", linestyle="--", label="original model")
    axes[0].legend(fontsize="small")
    picture.savefig(path, dpi=110)
    plt.close(picture)


if __name__ == "__main__":
    typer.run(main)

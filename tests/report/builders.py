"""Realistic reports whose numbers add up: totals are summed from layers, densities divided out of counts."""

from __future__ import annotations

import math
from typing import Any

from deltafine.document.controls import AnswerAgePoint, Controls, GatePoint, HeldPoint, RefinedHeldPoint
from deltafine.document.energy import HOROWITZ
from deltafine.document.report import (
    DataInfo,
    DeltaFigures,
    Epoch,
    Estimate,
    Figures,
    FrontPoint,
    LayerFigures,
    Measurement,
    ModelInfo,
    Operations,
    Report,
    RuntimeTimes,
    SiteInfo,
    Timing,
    Uncovered,
    Versions,
    VideoProblem,
)
from deltafine.document.sensitivity import SensitivityCurve, SensitivityPoint

VIDEOS = {"streams": 24, "clips": 24}
FRAMES = {"streams": 24 * 60, "clips": 24 * 6 * 8}

# name, kind, dense MACs per frame, elements, share of them that is not zero
LAYERS = [
    ("stem", "Conv2D", 1_990_656, 9_216, 0.99),
    ("block1_depthwise", "DepthwiseConv2D", 110_592, 12_288, 0.62),
    ("block1_pointwise", "Conv2D", 393_216, 12_288, 0.58),
    ("block2_conv", "Conv2D", 3_538_944, 24_576, 0.47),
    ("block3_conv", "Conv2D", 1_769_472, 6_144, 0.38),
    ("head", "Dense", 2_560, 256, 0.71),
]
# share of input elements that change from frame to frame, for each layer
CHANGES = {
    "original": [0.93, 0.71, 0.66, 0.55, 0.47, 0.83],
    "calibrated": [0.31, 0.22, 0.19, 0.17, 0.14, 0.25],
    "refined": [0.16, 0.14, 0.11, 0.1, 0.08, 0.14],
}
VERSIONS = Versions(
    deltafine="0.1.0",
    python="3.12.3",
    keras="3.12.0",
    tensorflow="2.20.0",
    numpy="2.2.1",
    av="15.0.0",
    platform="Linux-6.8-x86_64",
)
ACCURACY = {"original": 0.755, "calibrated": 0.711, "refined": 0.751}
FROZEN = 0.39


def estimate(value: float, spread: float = 0.023) -> Estimate:
    return Estimate(value=value, low=value - spread, high=value + spread)


def layer_figures(model: str, names: list[str] | None = None) -> list[LayerFigures]:
    found = []
    for index, (name, kind, dense, elements, active) in enumerate(LAYERS):
        change = CHANGES[model][index]
        effective = dense * change * 0.98
        found.append(
            LayerFigures(
                name=names[index] if names else name,
                kind=kind,
                dense_macs=dense,
                effective_macs_delta=effective,
                effective_macs_spatial=dense * active,
                activation_density=active,
                delta_density=change,
                pixel_density=min(1.0, 2.2 * change),
                mac_density=effective / dense,
                accumulates_delta=0.0,
                accumulates_spatial=0.0,
                overhead_operations=3.2 * elements,
                break_even_density=max(0.0, (dense - 4 * elements) / (dense + elements)),
            )
        )
    return found


def operations(model: str, feeding: str, layers: list[LayerFigures]) -> Operations:
    dense = sum(layer.dense_macs for layer in layers)
    effective = sum(layer.effective_macs_delta for layer in layers)
    spatial = sum(layer.effective_macs_spatial for layer in layers)
    elements = sum(row[3] for row in LAYERS)
    first = VIDEOS["streams"] / FRAMES["streams"] if feeding == "streams" else 1 / 8
    with_first = first * dense + (1 - first) * effective
    active = sum(row[3] * row[4] for row in LAYERS)
    changed = sum(row[3] * change for row, change in zip(LAYERS, CHANGES[model], strict=True))
    pixels = sum(layer.dense_macs * layer.pixel_density for layer in layers) / dense
    return Operations(
        dense_macs=dense,
        effective_macs_delta=effective,
        effective_macs_delta_with_first=with_first,
        effective_macs_spatial=spatial,
        effective_macs_spatial_with_first=spatial,
        mac_density=effective / dense,
        mac_density_with_first=with_first / dense,
        mac_density_spatial=spatial / dense,
        activation_sparsity=1 - active / elements,
        delta_sparsity=1 - changed / elements,
        pixel_density=pixels,
        frame_macs_p50=0.9 * effective,
        frame_macs_p95=min(dense, 1.9 * effective),
        frame_macs_worst=math.ceil(min(dense, 3.1 * effective)),
        state_bytes=4 * (elements + 32_000),
        accumulates_delta=0.0,
        accumulates_delta_with_first=0.0,
        accumulates_spatial=0.0,
        accumulates_spatial_with_first=0.0,
        overhead_operations=3.2 * elements,
        overhead_operations_with_first=3.1 * elements,
        density_with_overhead=(effective + 3.2 * elements) / dense,
        energy_dense=4.6e-12 * dense,
        energy_delta=4.6e-12 * effective + 2e-12 * elements,
    )


def delta_figures(model: str, names: list[str] | None = None) -> list[DeltaFigures]:
    if model == "original":
        return []
    return [
        DeltaFigures(
            name=names[index] if names else f"{name}_delta",
            rule="send-on-delta",
            granularity="channel",
            threshold_minimum=0.02 * (index + 1),
            threshold_median=0.11 * (index + 1),
            threshold_maximum=0.31 * (index + 1),
            elements=elements,
            activation_density=active,
            delta_density=CHANGES[model][index],
            pixel_density=min(1.0, 2.2 * CHANGES[model][index]),
            staleness=0.21 + 0.01 * index,
            silent_channels=0.03 * index,
            saturated_channels=0.01 * (index == 0),
            state_bytes=4 * elements,
            thresholds_at_floor=0.0,
        )
        for index, (name, _, _, elements, active) in enumerate(LAYERS)
    ]


def figures(model: str, feeding: str, names: list[str] | None = None) -> Figures:
    layers = layer_figures(model, names)
    changed = model != "original"
    accuracy = ACCURACY[model]
    change = Estimate(value=accuracy - ACCURACY["original"], low=accuracy - 0.763, high=accuracy - 0.746)
    return Figures(
        videos=VIDEOS[feeding],
        frames=FRAMES[feeding],
        frame_accuracy=estimate(accuracy) if feeding == "streams" else None,
        window_accuracy=estimate(accuracy + 0.02) if feeding == "clips" else None,
        clip_accuracy=estimate(accuracy + 0.03) if feeding == "streams" else None,
        accuracy_change=change if changed else None,
        frozen_accuracy=estimate(FROZEN, 0.04) if feeding == "streams" else None,
        fidelity={"original": None, "calibrated": 0.871, "refined": 0.913}[model],
        operations=operations(model, feeding, layers),
        layers=layers,
        deltas=delta_figures(model, names),
    )


def data_info(**changes: Any) -> DataInfo:
    fields: dict[str, Any] = {
        "path": "videos/road",
        "layout": "folder per class",
        "classes": ["cone", "kerb", "lane"],
        "train_videos": 96,
        "validation_videos": 24,
        "fingerprint": "sha256:5be3f0",
        "problems": [VideoProblem(video="cone/short.mp4", reason="5 frames, fewer than a clip of 8: skipped")],
    }
    return DataInfo(**{**fields, **changes})


def sites() -> list[SiteInfo]:
    total = sum(row[2] for row in LAYERS)
    found = [
        SiteInfo(
            name=f"{name}_input",
            kind="ReLU" if index else "InputLayer",
            shape=[None, 48, 64, 16],
            consumers=[name],
            fan_out_macs=dense,
            mac_share=dense / total,
            selected=True,
        )
        for index, (name, _, dense, _, _) in enumerate(LAYERS)
    ]
    final = SiteInfo(
        name="softmax",
        kind="Softmax",
        shape=[None, 3],
        consumers=[],
        fan_out_macs=0,
        mac_share=0.0,
        selected=False,
        reason="the model's output",
    )
    return [*found, final]


def history(epochs: int = 6) -> list[Epoch]:
    return [
        Epoch(
            epoch=epoch,
            loss=1.1 * 0.8**epoch + 0.3,
            task_loss=1.1 * 0.8**epoch,
            penalty_loss=0.3,
            penalty=0.5 * epoch,
            accuracy=0.7 + 0.02 * epoch,
            validation_accuracy=0.69 + 0.01 * epoch,
            validation_mac_density=0.21 - 0.016 * epoch,
            validation_pixel_density=0.4 - 0.03 * epoch,
            seconds=31.0,
        )
        for epoch in range(1, epochs + 1)
    ]


def controls(judged_by: str = "accuracy", **changes: Any) -> Controls:
    """Each doubling of k costs two points of accuracy, or adds two to an error."""
    away = -0.02 if judged_by != "error" else 0.02
    best = {"accuracy": ACCURACY["original"], "error": 0.62, "fidelity": 1.0}[judged_by]
    fields: dict[str, Any] = {
        "judged_by": judged_by,
        "held": [
            HeldPoint(every=every, quality=q, low=q - 0.01, high=q + 0.01)
            for every in (2, 4, 8, 16, 32)
            for q in [best + away * math.log2(every)]
        ],
        "motion_gate": [
            GatePoint(threshold=threshold, share=0.8 / threshold, quality=best + away * threshold)
            for threshold in (1.0, 2.5, 8.0)
        ],
        "refined_held": [
            RefinedHeldPoint(every=every, quality=best + away * 2 * every, mac_density=0.11 * every**-0.6)
            for every in (2, 4)
        ],
        "answer_age": [
            AnswerAgePoint(model="original", every=1, changes=41, followed=0.93, median=2, p95=None),
            AnswerAgePoint(model="original", every=8, changes=41, followed=0.88, median=6, p95=31),
            AnswerAgePoint(model="refined", every=1, changes=41, followed=0.91, median=3, p95=None),
        ],
    }
    return Controls(**{**fields, **changes})


def sensitivity_curve() -> SensitivityCurve:
    """Sparser and less accurate, the larger the number is."""
    points = [
        SensitivityPoint(sensitivity=number, quality=0.767 - 0.016 * number, mac_density=0.11 * number**-0.5)
        for number in (0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
    ]
    return SensitivityCurve(model="refined", judged_by="accuracy", videos=8, frames=256, points=points)


def timing(threads: int = 1, **names: str) -> Timing:
    """As `deltafine bench` writes it; `names` replaces the names of runtimes."""
    taken = {"deltafine": (2.0, 3.1, 1.9), "TensorFlow 2.21.0": (8.4, 9.5, 8.2), "ONNX Runtime 1.32.0": (5.0, 5.7, 4.9)}
    return Timing(
        created="2025-03-04T10:30:00Z",
        machine="A processor, 8 cores",
        versions=VERSIONS,
        threads=threads,
        engine="numba",
        data="videos",
        videos=3,
        frames=197,
        runtimes=[
            RuntimeTimes(name=names.get(name, name), p50=p50, p95=p95, processor_p50=processor)
            for name, (p50, p95, processor) in taken.items()
        ],
    )


def make_report(
    models: tuple[str, ...] = ("original", "calibrated", "refined"),
    layer_names: list[str] | None = None,
    **changes: Any,
) -> Report:
    """A report of a small run; `layer_names` renames the six layers, `changes` replace top-level fields."""
    rows = history()
    fields: dict[str, Any] = {
        "title": "road_small_cnn",
        "created": "2025-03-04T10:20:30Z",
        "seconds": 331.4,
        "peak_memory_bytes": 1_234_567_890,
        "versions": VERSIONS,
        "settings": {"refine": {"epochs": 6, "seed": 0}, "deltas": {"rule": "send-on-delta", "at": ["*relu*"]}},
        "settings_hash": "9f1c02",
        "model": ModelInfo(
            name="road_small_cnn.keras",
            sha256="ab" * 32,
            parameters=94_531,
            input_shape=[None, 48, 64, 3],
            outputs=3,
            coverage=0.998,
            uncovered=[Uncovered(name="gate", kind="EinsumDense", dense_macs=1200)],
        ),
        "data": data_info(),
        "sites": sites(),
        "models": {
            model: Measurement(
                streams=figures(model, "streams", layer_names), clips=figures(model, "clips", layer_names)
            )
            for model in models
        },
        "energy_table": HOROWITZ,
        "history": rows,
        "front": [
            FrontPoint(
                epoch=row.epoch,
                penalty=row.penalty,
                accuracy=row.validation_accuracy or 0.0,
                mac_density=row.validation_mac_density,
                pixel_density=row.validation_pixel_density,
                chosen=row.epoch == len(rows),
            )
            for row in rows
        ],
        "start_thresholds": {
            delta.name: delta.threshold_median
            for model in models[-1:]
            for delta in figures(model, "streams", layer_names).deltas
        },
    }
    return Report(**{**fields, **changes})

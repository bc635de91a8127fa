"""What the controls cost, of measuring what a run with streams measures. Run with ``-m slow -s``.

Their processor time is taken inside of the measurement that they are part of, so that both have the same load. It
includes what other threads do meanwhile, such as decoding, and is thus rather too high.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from deltafine import open_dataset
from deltafine.measurement import Probe
from deltafine.measurement.sensitivity_runs import SensitivityRuns
from deltafine.measurement.side_by_side import measure_with_controls
from deltafine.measurement.simple_controls import REFINED_HELD, SimpleControls
from deltafine.model import DeltaSettings, find_activations, insert_deltas, select_sites
from tests.benchmarks.method.test_step_time import convolutions
from tests.video.painted import write_video

pytestmark = pytest.mark.slow

ROUNDS, FRAMES, VIDEOS = 5, 300, 4
SAMPLED = 256
LIMIT = 0.02


def test_controls_cost_at_most_a_fiftieth_of_measuring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = ["video,frame,label"]
    for video in range(VIDEOS):
        random = np.random.default_rng(video)
        surface, pictures = random.normal(110, 25, (48, 64, 3)), []
        for frame in range(FRAMES):
            picture = surface + random.normal(0, 3, surface.shape)  # as cameras give
            if frame % 120 < 60:
                picture[10:30, frame % 60 :][:, :12] += 60
            pictures.append(np.clip(picture, 0, 255).astype(np.uint8))
        write_video(tmp_path / f"v{video}.avi", FRAMES, pictures=pictures)
        rows += [f"v{video}.avi,{frame},{'abc'[frame // 60 % 3]}" for frame in range(FRAMES)]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    data = open_dataset(tmp_path, validation=1.0)
    model = convolutions()
    with_deltas = insert_deltas(
        model, select_sites(find_activations(model)), DeltaSettings(initial_threshold={"input": 12.0, "": 0.3})
    )
    probes = {
        "original": Probe(insert_deltas(model, [])),
        "calibrated": Probe(keras.models.clone_model(with_deltas)),
        "refined": Probe(with_deltas),
    }
    spent = 0.0

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            nonlocal spent
            begin = time.process_time()
            found = function(*given, **named)
            spent += time.process_time() - begin
            return found

        return call

    for name in ("begin", "update", "result"):
        monkeypatch.setattr(SimpleControls, name, timed(getattr(SimpleControls, name)))
    shares: dict[tuple[int, ...], list[float]] = {(): [], REFINED_HELD: []}
    for _ in range(ROUNDS + 1):
        for refined_held, found in shares.items():
            spent, begin = 0.0, time.process_time()
            _, controls = measure_with_controls(
                probes, data, 8, refined_held=refined_held, sensitivity=SensitivityRuns(SAMPLED)
            )
            whole = time.process_time() - begin
            assert controls is not None
            assert len(controls.motion_gate) == 10
            found.append(spent / (whole - spent))
    shown = {held: float(np.median(found[1:])) for held, found in shares.items()}  # the first round traces
    print(f"\ncontrols {shown[()]:.2%} of measuring; with the refined model held {shown[REFINED_HELD]:.2%}")
    assert shown[REFINED_HELD] <= LIMIT

"""The page of a large model on real decoded video. Run with ``-m slow -s``."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from deltafine.jobs.measure import measure_model
from deltafine.model import DeltaSettings, find_activations, insert_deltas, select_sites
from deltafine.report import write_report
from tests.video.painted import write_video

pytestmark = pytest.mark.slow


def test_a_report_of_resnet50_has_every_layer_and_stays_under_three_megabytes(tmp_path: Path) -> None:
    model = keras.applications.ResNet50(weights=None, classes=2)
    model.save(tmp_path / "model.keras")
    deltas = DeltaSettings(initial_threshold=0.2)
    insert_deltas(model, select_sites(find_activations(model)), deltas).save(tmp_path / "refined.keras")
    for number in range(6):
        noise = np.random.default_rng(number).integers(0, 256, (8, 224, 224, 3))  # what compresses worst
        write_video(tmp_path / "videos" / "ab"[number % 2] / f"{number}.avi", pictures=list(noise.astype(np.uint8)))
    report, pictures = measure_model(
        tmp_path / "refined.keras", tmp_path / "videos", original=tmp_path / "model.keras", frames=4
    )
    assert len(report.models["refined"].streams.layers) == 54
    assert 2 <= len(pictures) <= 4
    write_report(report, tmp_path / "run", {picture.file: drawn for picture, drawn in pictures})
    page = (tmp_path / "run" / "report.html").stat().st_size
    drawn = max(len(png) for _, png in pictures)
    print(f"\npage {page / 1e6:.2f} MB, pictures of at most {drawn / 1e6:.2f} MB; four of them would make ", end="")
    most = page + (4 - len(pictures)) * drawn * 4 / 3
    print(f"{most / 1e6:.2f} MB")
    assert most < 3e6

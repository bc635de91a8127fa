"""The worked examples of CONTRIBUTING.md: each is a file that does what its section says."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest

from deltafine import measure, open_dataset
from deltafine.document.figures import Figures
from deltafine.errors import DeltafineError
from deltafine.exporting.writing import write_export
from deltafine.measurement.metrics import METRICS, register
from deltafine.model import DeltaSettings, find_activations, insert_deltas
from deltafine.report import render
from deltafine.report.gate import Gate, check
from deltafine.report.summary import headline
from deltafine.video.layouts import LAYOUTS
from tests.model import small_models
from tests.report.builders import make_report
from tests.video.painted import write_classes

PAGE = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text("utf-8")
SIZE = (12, 10)


def example(section: str) -> Any:
    """The code of a section, as a module of its own."""
    found = re.search(rf"^### {section}$(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, section
    (code,) = re.findall(r"^```python\n(.*?)^```$", found[1], re.MULTILINE | re.DOTALL)
    assert 15 < len(code.splitlines()) < 45
    module = ModuleType(section)
    exec(compile(code, section, "exec"), vars(module))
    return module


@pytest.fixture(scope="module")
def models():
    """A classifier that changes its mind within a video, and the same with delta layers."""
    model = keras.Sequential(
        [
            keras.Input((*SIZE, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    for weight in model.weights:
        weight.assign(np.random.default_rng(1).normal(0, 0.5, weight.shape))
    sites = find_activations(model)
    return {
        "original": insert_deltas(model, []),
        "refined": insert_deltas(model, sites, DeltaSettings(initial_threshold=0.5)),
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = write_classes(tmp_path_factory.mktemp("videos"), {"left": 2, "right": 2}, frames=40)
    return open_dataset(folder, validation=0.5)


def named(figures: Figures) -> dict[str, Any]:
    return {figure.name: figure.value for figure in figures.named}


def test_the_metric_counts_jumps_over_pieces_of_a_stream_and_inside_of_clips(models, data):
    metric = example("A metric").AnswerJumps()
    figures = measure(models, data, frames=4, metrics=[metric])
    original = keras.Model(models["original"].inputs[0], models["original"].get_layer("frame_predictions").output)

    def jumps(clips: list[np.ndarray]) -> float:
        answers = [np.asarray(original(clip[None].astype("float32")))[0].argmax(-1) for clip in clips]
        changed = [one[1:] != one[:-1] for one in answers]
        return float(np.concatenate(changed).mean())

    videos = [next(iter(pieces))[0] for _, pieces in data.streams("validation", size=SIZE, chunk=100)]
    clips = [clip for batch in data.clips("validation", frames=4, size=SIZE, batch=8) for clip in batch.frames]
    assert 0 < jumps(videos) < 1
    assert named(figures["original"].streams) == {"answer_jumps": pytest.approx(jumps(videos))}
    assert named(figures["original"].clips) == {"answer_jumps": pytest.approx(jumps(clips))}
    assert figures["refined"].streams.named[0].unit == "share"
    register(metric)
    try:
        assert measure(models, data, frames=4) == figures
    finally:
        del METRICS[metric.name]


def test_the_report_format_says_the_headline_and_the_gate():
    report = make_report(title="a\nb")
    one_line = example("A report format").OneLine()
    text = render(report, one_line, checks=check(report, Gate({"min-sparsity": 1.0})))
    assert isinstance(text, str)
    assert text.count("\n") == 1
    assert headline(report).sentence in text
    assert text.endswith("gate: 1 of 1 not met\n")


def test_the_layout_is_an_argument_and_can_be_registered(tmp_path):
    made = write_classes(tmp_path / "made", {"smile": 2, "frown": 2}, frames=3)
    folder = tmp_path / "data"
    folder.mkdir()
    for number, video in enumerate(sorted(path for path in made.rglob("*") if path.is_file())):
        video.rename(folder / f"{'ann' if number % 2 else 'bob'}_{video.parent.name}_{number}{video.suffix}")
    persons = example("A layout").Persons()
    with pytest.raises(DeltafineError, match="in the layout 'persons'"):
        open_dataset(folder, layout=persons)
    assert open_dataset(folder).layout != "persons"
    (folder / "held-out.txt").write_text("ann\n")
    data = open_dataset(folder, layout=persons)
    assert data.classes == ("frown", "smile")
    assert {video.name[:3] for video in data.select("validation")} == {"ann"}
    assert {video.name[:3] for video in data.select("train")} == {"bob"}
    assert all(data.classes[video.label] in video.name for video in data.videos)
    with pytest.raises(DeltafineError, match="needs a folder"):
        open_dataset(data.videos[0].path, layout=persons)
    LAYOUTS.register(persons, first=True)
    try:
        assert open_dataset(folder).layout == open_dataset(folder, layout="persons").layout == "persons"
        assert open_dataset(data.videos[0].path).layout != "persons"
        (folder / "other.mp4").write_bytes(data.videos[0].path.read_bytes())
        with pytest.raises(DeltafineError, match="PERSON_CLASS_NUMBER"):
            open_dataset(folder)
    finally:
        LAYOUTS.remove("persons")


def test_the_export_format_is_read_back_and_compared(models, tmp_path):
    arrays = example("An export format").Arrays()
    file = tmp_path / arrays.file_name("stripped")
    agreement, _ = write_export(models["refined"], file, arrays, real_frames=lambda plain: small_models.clips())
    assert agreement is not None
    assert (file.name, agreement.largest_difference, agreement.same_class) == ("stripped.npz", 0, 1)
    made = arrays.make(models["refined"])
    made.layers[-1].set_weights([2 * weight for weight in made.layers[-1].get_weights()])
    assert arrays.check(made, file, small_models.clips()).largest_difference > 0.01
    with pytest.raises(DeltafineError, match="has no delta layers"):
        write_export(small_models.plain(), file, arrays)

"""The curve of quality and MACs against the number that all thresholds are multiplied with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from deltafine import measure, open_dataset
from deltafine.measurement import side_by_side as comparison
from deltafine.measurement.metric import Subject
from deltafine.measurement.probe import Probe
from deltafine.measurement.score import Score
from deltafine.measurement.scoring import ScoredVideo, scoring_of
from deltafine.measurement.sensitivity_runs import SENSITIVITIES, SensitivityRuns, multiplied
from deltafine.measurement.side_by_side import measure_with_controls
from deltafine.model import DeltaSettings, delta_layers, find_activations, insert_deltas, select_sites
from deltafine.workers import from_bytes, to_bytes
from tests.measurement.test_measure import classifier
from tests.video.painted import write_classes


def with_thresholds(factor: float = 1.0, rule: str = "send-on-delta") -> Any:
    model = classifier()
    thresholds = {"input": 60.3 * factor, "conv": 0.4 * factor}
    sites = select_sites(find_activations(model))
    return insert_deltas(model, sites, DeltaSettings(rule=rule, initial_threshold=thresholds))


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {"original": insert_deltas(classifier(), []), "refined": with_thresholds()}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = write_classes(tmp_path_factory.mktemp("videos"), {"left": 3, "right": 3}, frames=13)
    return open_dataset(folder, validation=1.0)


def curve_of(models: dict[str, Any], data: Any, most_frames: int = 1000, **how: Any) -> Any:
    runs = SensitivityRuns(most_frames)
    measured, _ = measure_with_controls(models, data, 4, sensitivity=runs, **how)
    return runs.curve(), measured


def test_each_point_is_what_a_model_with_such_thresholds_has_and_the_model_stays_as_it_is(
    models: dict[str, Any], data: Any
) -> None:
    before = [layer.log_threshold.numpy() for layer in delta_layers(models["refined"]).values()]
    plain = measure(models, data, frames=4)
    curve, measured = curve_of(models, data)
    assert measured == plain
    assert [layer.log_threshold.numpy() for layer in delta_layers(models["refined"]).values()] == before
    assert (curve.model, curve.judged_by, curve.videos, curve.frames) == ("refined", "accuracy", 6, 78)
    assert tuple(point.sensitivity for point in curve.points) == SENSITIVITIES
    for point in curve.points[::3]:  # 0.5 and 1.5
        other = models | {"refined": with_thresholds(point.sensitivity)}
        streams = measure(other, data, frames=4)["refined"].streams
        assert point.quality == pytest.approx(streams.frame_accuracy.value)
        assert point.mac_density == pytest.approx(streams.operations.mac_density, rel=1e-3)
    streams = measured["refined"].streams
    assert (curve.points[2].quality, curve.points[2].mac_density) == (
        streams.frame_accuracy.value,
        streams.operations.mac_density,
    )
    densities = [point.mac_density for point in curve.points]
    assert densities == sorted(densities, reverse=True)
    assert densities[0] > densities[-1]


def test_no_more_frames_are_measured_than_asked_for_spread_over_the_streams(
    models: dict[str, Any], data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "VALUES_AT_ONCE", 4 * 16 * 32 * 3)  # pieces of four frames
    for most, videos, frames in ((30, 6, 24), (9, 2, 8), (1, 1, 4)):
        curve, _ = curve_of(models, data, most)
        assert (curve.videos, curve.frames) == (videos, frames)


@pytest.mark.parametrize(("most", "rule"), [(0, "send-on-delta"), (100, "quantize"), (100, "identity")])
def test_there_is_no_curve_without_frames_or_without_thresholds_that_can_be_multiplied(
    most: int, rule: str, data: Any
) -> None:
    assert curve_of({"refined": with_thresholds(rule=rule)}, data, most)[0] is None


def test_there_is_no_curve_without_streams(models: dict[str, Any]) -> None:
    runs = SensitivityRuns(100)
    runs.start({"refined": Subject(Probe(models["refined"]))}, (), 0, 4)
    assert runs.curve() is None


def test_answers_are_judged_as_the_report_judges_them(models: dict[str, Any], data: Any) -> None:
    score = Score(scoring_of("tests.own_scores:balanced"), True)
    curve, measured = curve_of(models, data, metrics=[score])
    assert curve.judged_by == "score"
    assert curve.points[2].quality == measured["refined"].streams.score.value


def test_what_two_of_them_have_measured_adds_up(models: dict[str, Any], data: Any) -> None:
    def measured(shares: tuple[range, ...]) -> Any:
        found = []
        for share in shares:
            probes = {name: Probe(model) for name, model in models.items()}
            runs = SensitivityRuns(1000)
            compared = comparison._Comparison(probes, comparison.Output(), ())
            compared.multiply_thresholds(runs, (), 6, 32)
            for index, (video, pieces) in enumerate(data.streams("validation", size=(16, 32), chunk=32)):
                compared.know(index, video, data.classes)
                if index in share:
                    compared.add_stream(index, pieces, one_label=True, about=ScoredVideo(video.name))
            found.append(runs)
        for other in found[1:]:
            found[0].add(from_bytes(to_bytes(other.record())))
        return found[0].curve()

    assert measured((range(4), range(4, 6))) == measured((range(6),))


def test_thresholds_are_as_before_when_something_fails_while_they_are_multiplied(models: dict[str, Any]) -> None:
    layers = list(delta_layers(models["refined"]).values())
    before = [np.array(layer.threshold) for layer in layers]

    def fail() -> None:
        with multiplied(layers, 3.0):
            np.testing.assert_allclose([layer.threshold for layer in layers], 3 * np.array(before), rtol=1e-6)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    np.testing.assert_array_equal([layer.threshold for layer in layers], before)

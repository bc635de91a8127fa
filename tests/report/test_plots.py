"""The drawings of the page."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltafine.report.controls_plot import with_checkpoints
from deltafine.report.plots import Level, Plot, Series, draw, plots, ticks
from tests.report.builders import controls, data_info, estimate, history, make_report


def drawn(plot: Plot) -> ElementTree.Element:
    return ElementTree.fromstring(str(plot.drawing))


@settings(deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_few_even_and_inside(low: float, size: float) -> None:
    high = low + size
    found = ticks(low, high)
    assert 1 <= len(found) <= 7
    near = (high - low) * 1e-6 + 4 * math.ulp(max(abs(low), abs(high)))
    assert all(low - near <= tick <= high + near for tick in found)


def test_ticks_are_round_numbers() -> None:
    assert ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(3, 3) == [3]


def test_a_higher_value_is_drawn_higher_and_a_later_one_further_right() -> None:
    svg = ElementTree.fromstring(str(draw("d", [Series("s", [(0, 1), (1, 3), (2, 2)], "refined")], "x")))
    across = [float(circle.attrib["cx"]) for circle in svg.iter("circle")]
    down = [float(circle.attrib["cy"]) for circle in svg.iter("circle")]
    assert across == sorted(across)
    assert down[1] < down[2] < down[0]


def test_a_level_is_drawn_where_a_point_of_its_value_is() -> None:
    svg = ElementTree.fromstring(str(draw("d", [Series("s", [(0, 5), (1, 7)], "a")], "x", [Level("l", 7, "b")])))
    (level,) = [line for line in svg.iter("line") if "level" in line.attrib["class"]]
    assert float(level.attrib["y1"]) == float(list(svg.iter("circle"))[1].attrib["cy"])


def test_points_that_are_not_finite_are_left_out_and_break_the_line() -> None:
    points = [(0, 1.0), (1, 2.0), (2, float("nan")), (3, 1.0), (4, float("inf")), (5, 2.0), (6, 1.0)]
    svg = ElementTree.fromstring(str(draw("d", [Series("s", points, "refined")], "x")))
    assert len(list(svg.iter("circle"))) == 5
    assert [len(line.attrib["points"].split()) for line in svg.iter("polyline")] == [2, 2]
    assert not re.search("nan|inf", str(draw("d", [Series("s", points, "refined")], "x")))


@pytest.mark.parametrize("points", [[], [(1, 0.5)], [(1, 0.5), (1, 0.5)], [(0, 0.0), (1, 0.0)]])
def test_a_plot_of_one_value_or_none_still_stands(points: list[tuple[float, float]]) -> None:
    svg = ElementTree.fromstring(str(draw("d", [Series("s", points, "refined")], "x")))
    assert len(list(svg.iter("circle"))) == len(points)


def test_names_of_points_cover_neither_each_other_nor_other_points_and_stay_inside() -> None:
    line = Series("line", [(x / 10, 1.0) for x in range(11)], "held")
    named = [Series(name, [(x, y)], "refined", name=name) for name, x, y in (("one", 0.5, 1.1), ("two", 0.52, 1.1))]
    edge = Series("edge", [(1.0, 1.1)], "original", name="at the edge")
    svg = ElementTree.fromstring(str(draw("d", [line, *named, edge], "x")))
    boxes = []
    for text in svg.iter("text"):
        if "name" in text.attrib.get("class", ""):
            x, y, wide = float(text.attrib["x"]), float(text.attrib["y"]), 7.3 * len(text.text or "")
            assert x + wide <= 420
            boxes.append((x, y - 10, x + wide, y + 3))
    assert len(boxes) == 3
    points = [(float(one.attrib["cx"]), float(one.attrib["cy"])) for one in svg.iter("circle")]
    for number, (left, top, right, bottom) in enumerate(boxes):
        assert not any(left < x < right and top < y < bottom for x, y in points)
        for other in boxes[:number]:
            assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top


@pytest.mark.parametrize("at", [0.8, 0.79, 0.81, 0.5])
def test_names_of_levels_do_not_cover_those_of_points_at_the_same_height(at: float) -> None:
    original = Series("original", [(1.0, 0.8)], "original", name="original")
    others = [Series(name, [(x, 0.8)], name, name=name) for name, x in (("refined", 0.01), ("calibrated", 0.1))]
    levels = [Level("never updating", at, "control"), Level("goal", 0.8, "original")]
    svg = ElementTree.fromstring(str(draw("d", [original, *others], "x", levels, x_log=True)))
    named = [text for text in svg.iter("text") if "name" in text.attrib.get("class", "")]
    assert {text.text for text in named} == {"original", "refined", "calibrated", "never updating", "goal"}
    boxes = []
    for text in named:
        x, y = float(text.attrib["x"]), float(text.attrib["y"])
        boxes.append((x, y - 10, x + 7.3 * len(text.text or ""), y + 3))
    for number, (left, top, right, bottom) in enumerate(boxes):
        for other in boxes[:number]:
            assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top
    big = [(float(one.attrib["cx"]), float(one.attrib["cy"])) for one in svg.iter("circle")]
    assert not any(left < x < right and top < y < bottom for left, top, right, bottom in boxes for x, y in big)


def test_texts_are_escaped() -> None:
    svg = str(draw("<d>", [Series("<s>", [(0, 1)], "refined")], "<x>", [Level("<l>", 1, "b")]))
    assert "<d>" not in svg
    assert "&lt;s&gt;" in svg
    assert "&lt;x&gt;" in svg
    assert "&lt;l&gt;" in svg


def test_the_front_marks_the_chosen_checkpoint_and_the_levels_to_compare_with() -> None:
    front = next(plot for plot in plots(make_report()) if plot.key == "front")
    big = [circle for circle in drawn(front).iter("circle") if "big" in circle.attrib["class"]]
    assert len(big) == 1
    assert (big[0].findtext("title") or "").startswith("epoch 6, chosen: accuracy 75.0%")
    assert [label for _, label in front.legend] == [
        "epoch or calibrated (large: chosen)",
        "original model",
        "never updating",
    ]


def test_a_report_without_training_has_no_plots() -> None:
    assert plots(make_report(history=[], front=[])) == []


def test_curves_without_labels_leave_the_accuracy_plot_out() -> None:
    rows = history()
    for row in rows:
        row.accuracy = row.validation_accuracy = None
    assert [plot.key for plot in plots(make_report(history=rows, front=[]))] == ["density", "loss"]


def test_levels_of_other_streams_are_not_drawn_beside_the_front() -> None:
    report = make_report(stream_data=data_info(path="elsewhere"))
    front = next(plot for plot in plots(report) if plot.key == "front")
    assert [label for _, label in front.legend] == ["epoch or calibrated (large: chosen)"]


def test_checkpoints_are_drawn_as_what_they_are_judged_by_and_beside_controls_only_if_these_are_the_same() -> None:
    report = make_report(controls=controls())
    assert with_checkpoints(report)
    for model in ("original", "calibrated", "refined"):
        report.models[model].streams.score = report.models[model].streams.frozen_score = estimate(31.5)
    assert not with_checkpoints(report)
    by_key = {plot.key: plot for plot in plots(report)}
    assert by_key["front"].title == "Score against MACs, checkpoint by checkpoint"
    assert by_key["accuracy"].title == "Score by epoch"
    assert [label for _, label in by_key["accuracy"].legend] == ["validation"]


def test_of_numbers_the_checkpoints_show_the_error() -> None:
    report = make_report()
    for model in ("original", "calibrated", "refined"):
        streams = report.models[model].streams
        streams.frame_accuracy = streams.clip_accuracy = streams.fidelity = None
        streams.label_error = 0.3
    front = report.front[0].model_copy(update={"accuracy": 0.75})
    plot = next(one for one in plots(report.model_copy(update={"front": [front]})) if one.key == "front")
    assert plot.title.startswith("Error against MACs")
    assert "error 25.0%" in str(plot.drawing)

"""Streams frame by frame on the page, and what pictures of the worst frames say."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from deltafine.document.figures import Timeline, WorstAnswer
from deltafine.document.report import Picture, Report
from deltafine.jobs.worst_pictures import NARROWEST, WIDEST, caption_of, png_of
from deltafine.report import load_report, render
from deltafine.report.store import write_report
from deltafine.report.timelines import timelines
from tests.report.builders import make_report
from tests.report.test_pictures import pixels


def course(**changes: Any) -> Timeline:
    fields: dict[str, Any] = {
        "video": "cone/<v>.mp4",
        "frames": 8,
        "each": 2,
        "macs": [1.0, 0.1, 0.2, 0.05],
        "answers": [0.0, 0.0, 1.0, 1.0],
        "original": [0.0, 1.0, 1.0, 1.0],
        "truth": [0.0, 1.0, None, 1.0],
    }
    return Timeline(**{**fields, **changes})


def report_with(**changes: Any) -> Report:
    report = make_report()
    report.models["refined"].streams.timelines = [course(**changes)]
    return report


def test_each_row_has_a_bar_for_each_run_of_one_answer() -> None:
    (plot,) = timelines(report_with())
    svg = ElementTree.fromstring(str(plot.drawing))
    notes = [rect.findtext("title") for rect in svg.iter("rect")]
    assert notes == [
        "right: cone, points 0 to 0",
        "right: kerb, points 1 to 1",
        "right: kerb, points 3 to 3",
        "original: cone, points 0 to 0",
        "original: kerb, points 1 to 3",
        "refined: cone, points 0 to 1",
        "refined: kerb, points 2 to 3",
    ]
    (area,) = svg.iter("polygon")
    assert (area.findtext("title") or "").endswith("at most 20.0% of dense after the first point")
    assert plot.legend == [("class0", "cone"), ("class1", "kerb"), ("macs", "MACs")]
    assert plot.note == "8 frames; a point stands for 2 frames"


def test_without_labels_the_originals_answers_are_shown_once() -> None:
    (plot,) = timelines(report_with(truth=[0.0, 1.0, 1.0, 1.0]))
    assert "right:" not in str(plot.drawing)


def test_numbers_are_lines_and_maps_have_their_macs_alone() -> None:
    report = report_with(answers=[0.5, 0.6, 0.7, 0.8], truth=[0.5, None, 0.9, 0.8])
    report.models["refined"].streams.label_error = 0.3
    (plot,) = timelines(report)
    svg = ElementTree.fromstring(str(plot.drawing))
    assert [line.attrib["class"] for line in svg.iter("polyline")] == [
        "thin control",
        "thin control",
        "thin original",
        "thin refined",
    ]
    (plot,) = timelines(report_with(answers=[None] * 4, original=[None] * 4, truth=[None] * 4))
    assert plot.legend == [("macs", "MACs")]


def test_the_page_has_them_and_a_report_of_before_has_none(tmp_path: Any) -> None:
    report = report_with()
    page = render(report, "html")
    assert 'id="plot-timeline-1"' in page
    assert "cone/&lt;v&gt;.mp4" in page
    write_report(report, tmp_path)
    assert load_report(tmp_path) == report
    assert 'id="courses"' not in render(make_report(), "html")


def test_pictures_of_the_worst_frames_stand_with_their_captions() -> None:
    picture = Picture(file="worst-1.png", video="v.mp4", caption="Frame 3 (the first is 0): <b>", kind="worst")
    page = render(make_report(pictures=[picture]), "html", pictures={"worst-1.png": b"png"})
    assert '<section id="worst">' in page
    assert 'id="pictures"' not in page
    assert 'alt="v.mp4: Frame 3 (the first is 0): &lt;b&gt;"' in page


def test_terminal_and_markdown_list_the_worst_frames() -> None:
    report = make_report()
    worst = {"video": "cone/v.mp4", "frame": 12, "answer": 1.0, "original": 0.0, "truth": 0.0, "lost": 0.613}
    report.models["refined"].streams.worst_answers = [WorstAnswer(**worst)]  # type: ignore[arg-type]
    shown = [line.split() for line in str(render(report, "table")).splitlines() if "cone/v.mp4" in line]
    assert shown == [["cone/v.mp4", "12", "cone", "cone", "kerb", "0.61"]]
    assert "| cone/v.mp4 | 12 | cone | cone | kerb | 0.61 |" in str(render(report, "markdown"))
    assert "Worst answers" not in str(render(make_report(), "table"))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            {"answer": 1, "original": 0, "truth": 0},
            "Frame 12 (the first is 0): the original answers 'cone', which is right, the refined model 'kerb'.",
        ),
        (
            {"answer": 1, "original": 2, "truth": 0},
            "Frame 12 (the first is 0): right is 'cone', the original answers class 2, the refined model 'kerb'.",
        ),
        (
            {"lost": 0.25},
            "Frame 12 (the first is 0): the refined model's answer differs at 25.0% of positions from the original's.",
        ),
    ],
)
def test_a_caption_says_what_is_right_and_what_both_answer(found: dict[str, float], said: str) -> None:
    worst = WorstAnswer(**{"video": "v", "frame": 12, "lost": 0.5, **found})  # type: ignore[arg-type]
    assert caption_of("refined", worst, ("cone", "kerb")) == said


def test_numbers_are_written_as_they_are() -> None:
    worst = WorstAnswer(video="v", frame=0, answer=0.5, original=0.25, truth=0.125, lost=0.25)
    assert caption_of("refined", worst, (), numbers=True).endswith(
        "right is 0.125, the original answers 0.250, the refined model 0.500."
    )


@pytest.mark.parametrize("width", [20, 96, 300, 1000])
def test_frames_of_any_size_make_pictures_that_can_be_seen_and_stay_small(width: int) -> None:
    for channels in (1, 3):
        shape = pixels(png_of(np.full((width // 2, width, channels), 90, np.uint8))).shape
        assert NARROWEST // 2 < shape[1] <= max(WIDEST, NARROWEST)
        assert shape[0] == pytest.approx(shape[1] / 2, abs=1)

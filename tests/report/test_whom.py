"""Whom a model hurts: recordings, videos and classes beside the mean over all, and what the videos can tell."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from deltafine.document.report import ClassFigures, Confused, Estimate, Report, VideoFigures
from deltafine.report import render
from deltafine.report.gate import Gate, check
from deltafine.report.store import json_text
from deltafine.report.summary import cautions, headline, rows
from deltafine.report.terminal import show
from deltafine.report.whom import classes, listings, recordings, videos
from tests.report.builders import data_info, estimate, make_report

VIDEOS = [(recording, crop) for recording in ("hwy", "yard", "gate") for crop in ("full", "left")]
BEFORE = 0.76


def of_video(recording: str, crop: str, right: float, **more: Any) -> VideoFigures:
    fields = {"frames": 200, "labelled": 150, "label_changes": 4, "mac_density": 0.05, "frame_macs_worst": 900}
    named = {"video": f"{recording}_{crop}.avi", "recording": recording, "accuracy": right}
    return VideoFigures(**{**fields, **named, **more})


def report_of(**more: Any) -> Report:
    """The yard's crop on the left loses 16 points, all others win 2."""
    report = make_report(models=("original", "refined"), data=data_info(problems=[]))
    for name, measurement in report.models.items():
        change = {"original": 0.0, "refined": 0.02}[name]
        hurt = 0.18 if name == "refined" else 0.0
        measurement.streams.by_video = [
            of_video(recording, crop, BEFORE + change - hurt * ((recording, crop) == ("yard", "left")), **more)
            for recording, crop in VIDEOS
        ]
        measurement.streams.recordings, measurement.streams.videos = 3, 6
        measurement.streams.by_class = [
            ClassFigures(label=0, labelled=500, answered=480, right=400 - 60 * (name == "refined")),
            ClassFigures(label=1, labelled=300, answered=340, right=290),
            ClassFigures(label=7, labelled=0, answered=9, right=0),
        ]
        measurement.streams.confused = [Confused(label=0, answer=1, count=90 + 60 * (name == "refined"))]
    return report


def in_terminal(report: Report, width: int = 100) -> str:
    console = Console(width=width, record=True)
    show(report, console)
    return console.export_text()


def test_videos_and_recordings_that_lose_most_come_first() -> None:
    found = videos(report_of())
    assert (found[0].name, found[0].change) == ("yard_left.avi", pytest.approx(-0.16))
    assert [part.change for part in found[1:]] == pytest.approx([0.02] * 5)
    first, *others = recordings(report_of())
    assert (first.name, first.weight, first.change) == ("yard", 300, pytest.approx(-0.07))
    assert [part.name for part in others] == ["hwy", "gate"]


def test_one_recording_or_class_that_loses_under_a_good_mean_is_named_in_a_warning() -> None:
    report = report_of()
    report.models["refined"].streams.accuracy_change = Estimate(value=0.005, low=-0.07, high=0.02)
    said = cautions(report)
    assert "The recording 'yard' loses 7.0 points of accuracy (76.0% to 69.0%), all together +0.5." in said
    assert "The class 'cone' loses 12.0 points of accuracy (80.0% to 68.0%), all together +0.5." in said
    report.models["refined"].streams.accuracy_change = Estimate(value=-0.06, low=-0.1, high=0.0)
    assert not any("yard" in one for one in cautions(report))  # no more than all lose


def test_every_format_has_the_worst_videos_the_classes_and_what_they_are_taken_for() -> None:
    report = report_of()
    terminal, markdown, page = in_terminal(report), render(report, "markdown"), render(report, "html")
    assert "The 5 worst of 6 videos (streams): accuracy" in terminal
    row = next(line for line in terminal.splitlines() if line.startswith("yard_left.avi"))
    assert row.split() == ["yard_left.avi", "150", "76.0%", "60.0%", "-16.0", "5.0%"]
    assert "| yard\\_left.avi | 150 | 76.0% |" in markdown
    assert "| cone | kerb | 90 | 150 | 30.0% |" in markdown
    assert "hwy_full.avi" in page
    assert '<section id="whom">' in page
    assert 'data-value="-0.1' in page
    assert load_report_of(report).models["refined"].streams.by_video == report.models["refined"].streams.by_video
    assert max(map(len, in_terminal(report, 60).splitlines())) <= 60


def load_report_of(report: Report) -> Report:
    return Report.model_validate_json(json_text(report))


def test_a_class_that_is_only_answered_and_one_without_a_name() -> None:
    report = report_of()
    assert [part.name for part in classes(report)] == ["cone", "kerb"]
    report.models["refined"].streams.by_class.append(ClassFigures(label=9, labelled=1, answered=0, right=0))
    assert classes(report)[-1].name == "class 9"


def test_names_of_videos_are_shown_and_obeyed_nowhere() -> None:
    report = report_of()
    evil = "[bold]<b>|`x`\n\x1b[31m.avi"
    for measurement in report.models.values():
        measurement.streams.by_video[3].video = evil
    assert "<b>|" not in render(report, "html")
    assert "<b>|" not in render(report, "markdown")
    assert "\x1b[31m" not in in_terminal(report)


def test_errors_are_worse_when_higher_and_fidelity_needs_no_labels() -> None:
    report = report_of(accuracy=None, error=0.5)
    report.models["refined"].streams.by_video[2].error = 0.9
    found = videos(report)
    assert found[0].name == "yard_full.avi"
    assert found[0].change == pytest.approx(0.4)
    report = report_of(accuracy=None, fidelity=0.9)
    report.models["refined"].streams.by_video[4].fidelity = 0.4
    assert videos(report)[0].name == "gate_full.avi"
    assert listings(report, 5)[1].headings == ("video", "frames", "refined", "MACs")


def test_short_videos_of_one_label_are_said_to_flatter() -> None:
    said = [one for one in cautions(report_of(frames=48, label_changes=0)) if one.startswith("Short videos")]
    assert said == [
        "Short videos, which are pieces of 3 recordings, are measured as streams of their own: half have at most 48 "
        "frames, and the label never changes in one. Each begins with a full update, which flatters; --streams "
        "measures on whole recordings."
    ]
    for told in (report_of(frames=48), report_of(frames=1000, label_changes=0)):
        assert not any(one.startswith("Short videos") for one in cautions(told))


def test_short_videos_of_which_the_first_frames_are_most_of_the_cost_cannot_tell_what_is_saved() -> None:
    def of_length(frames: int, **changes: int) -> Report:
        report = report_of(frames=frames, **changes)
        for measurement in report.models.values():
            streams = measurement.streams
            streams.videos, streams.frames = 6, 6 * frames
            first, later = 1 / frames, streams.operations.mac_density
            streams.operations.mac_density_with_first = first + (1 - first) * later
        return report

    found = headline(of_length(8, label_changes=0))  # 1/8 of first frames, 7/8 of frames at 11%
    assert not found.told
    assert found.sentence == (
        "These videos cannot tell what is saved: half of them have at most 8 frames, the label never changes in one, "
        "and their first frames, which are computed whole, take 56.6% of the MACs; --streams measures on whole "
        "recordings"
    )
    assert headline(of_length(48, label_changes=0)).told
    assert headline(of_length(8)).told


def test_where_the_frozen_control_is_as_good_as_the_original_no_saving_is_told_of_a_better_model() -> None:
    report = report_of()
    report.models["original"].streams.frame_accuracy = estimate(0.74)
    report.models["refined"].streams.frame_accuracy = estimate(0.79)
    for measurement in report.models.values():
        measurement.streams.frozen_accuracy = estimate(0.73)
    assert headline(report).sentence == (
        "These videos cannot tell what is saved: the answer hardly changes in them, and a network that never updates "
        "has an accuracy of 73.0%, the original 74.0%, the refined model 79.0%"
    )
    (failed,) = check(report, Gate({"max-macs-ratio": 0.99}))
    assert not failed.met
    assert "as good as the original on these videos (accuracy 73.0% against 74.0%)" in failed.sentence


def test_whether_the_control_is_as_good_is_told_by_the_paired_gain_where_it_was_measured() -> None:
    report = report_of()
    wide = Estimate(value=0.75, low=0.3, high=0.95)  # few recordings
    for measurement in report.models.values():
        measurement.streams.frame_accuracy = wide
        measurement.streams.gain_over_frozen = Estimate(value=0.36, low=0.2, high=0.5)
    assert headline(report).told
    for measurement in report.models.values():
        measurement.streams.gain_over_frozen = Estimate(value=0.36, low=-0.01, high=0.5)
    assert not headline(report).told


def test_few_recordings_make_rough_intervals_and_one_makes_none() -> None:
    assert any("are of 3 recordings only" in one for one in cautions(report_of()))
    report = report_of()
    for measurement in report.models.values():
        measurement.streams.recordings = 1
    assert headline(report).accuracy == "accuracy 75.1%, -0.4 points against the original"
    assert any(one.startswith("All 6 videos are of one recording: nothing tells") for one in cautions(report))
    assert not any(row.has_intervals for row in rows(report, "streams"))
    assert "95% interval" in in_terminal(report)  # of the clips


def test_a_report_without_these_figures_is_shown_as_before() -> None:
    report = make_report()
    assert listings(report, 5) == []
    assert '<section id="whom">' not in render(report, "html")
    assert "By class" not in render(report, "markdown")

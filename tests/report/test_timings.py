"""Measured times per frame, in every way to show a report."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema

from deltafine.document.report import Timing
from deltafine.report import load_report, render, timings, write_report
from deltafine.report.store import json_text
from tests.report.builders import make_report, timing
from tests.report.test_schema import FILE
from tests.report.test_terminal import printed

HOSTILE = "<b>Runtime|`x`</b>\x1b[31m"


def test_ratios_are_of_medians_against_the_delta_runtime() -> None:
    assert timings.lines(timing()) == [
        ("deltafine", "2.00", "3.10", "1.90", "", ""),
        ("TensorFlow 2.21.0", "8.40", "9.50", "8.20", "4.2x as fast", "4.3x as fast"),
        ("ONNX Runtime 1.32.0", "5.00", "5.70", "4.90", "2.5x as fast", "2.6x as fast"),
    ]


def test_every_form_shows_the_times_the_machine_and_the_threads() -> None:
    report = make_report(timings=[timing(1), timing(8)])
    page = re.sub(r"<[^>]+>", " ", render(report, "html"))
    for shown in (printed(report), render(report, "markdown"), page):
        words = " ".join(shown.split())
        assert "2.5x as fast" in words
        assert "Milliseconds per frame, 1 thread" in words
        assert "Milliseconds per frame, 8 threads" in words
        assert "A processor, 8 cores" in words
        assert "197 frames of 3 videos" in words


def test_the_terminal_cuts_no_time() -> None:
    out = printed(make_report(timings=[timing()]))
    assert max(len(line) for line in out.splitlines()) <= 80
    assert "…" not in out


def test_a_report_without_times_says_nothing_of_them() -> None:
    report = make_report()
    for shown in (printed(report), render(report, "markdown"), render(report, "html")):
        assert "as fast" not in shown
        assert "Measured times" not in shown


def test_names_of_runtimes_are_shown_not_obeyed() -> None:
    report = make_report(timings=[timing(deltafine=HOSTILE)])
    assert "\x1b" not in printed(report) + render(report, "markdown") + render(report, "html")
    assert "<b>Runtime" not in render(report, "markdown") + render(report, "html")


def test_times_are_kept_and_fit_the_schema(tmp_path: Path) -> None:
    report = make_report(timings=[timing(1), timing(2)])
    write_report(report, tmp_path)
    assert load_report(tmp_path).timings == report.timings
    jsonschema.Draft202012Validator(json.loads(FILE.read_text("utf-8"))).validate(json.loads(json_text(report)))


def test_reports_from_before_times_were_kept_load(tmp_path: Path) -> None:
    document = json.loads(json_text(make_report()))
    del document["timings"]
    (tmp_path / "report.json").write_text(json.dumps(document), "utf-8")
    assert load_report(tmp_path).timings == []


def test_times_of_every_kth_frame_say_so() -> None:
    report = make_report(timings=[timing().model_copy(update={"every": 4})])
    for form in ("table", "html", "markdown"):
        text = " ".join(str(render(report, form)).split())
        assert "Milliseconds per frame, of every 4th frame, 1 thread" in text
        assert "per frame of the video each time is divided by 4" in text


def test_how_far_answers_agree_has_a_column_where_it_was_measured() -> None:
    def with_agreement(field: str) -> Timing:
        given = timing()
        found = [
            one.model_copy(update={field: value})
            for one, value in zip(given.runtimes, (0.971, 1.0, 0.995), strict=True)
        ]
        return given.model_copy(update={"runtimes": found})

    for field, heading in (
        ("fidelity", "agrees"),
        ("relative_error", "differs"),
        ("accuracy", "accuracy"),
        ("label_error", "error"),
    ):
        timed = with_agreement(field)
        assert timings.headings(timed)[-1] == heading
        assert [line[-1] for line in timings.lines(timed)] == ["97.1%", "100.0%", "99.5%"]
        report = make_report(timings=[timed])
        assert max(len(line) for line in printed(report).splitlines()) <= 80
        for form in ("table", "html", "markdown"):
            assert "97.1%" in str(render(report, form))
            assert heading in str(render(report, form))
    assert "agrees" not in timings.headings(timing())

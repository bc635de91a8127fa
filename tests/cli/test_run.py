"""Playing a model: what is said of frames, what is played, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deltafine.jobs.frame_times import FrameTimes, percentile
from deltafine.report import write_report
from deltafine.runtime.plan import Delta, Finish
from deltafine.runtime.runtime import DeltaRuntime
from tests.cli.running import Command
from tests.kept_plans import SIZE, small_plan, write_played_run
from tests.report.builders import make_report
from tests.small_runs import write_small_video
from tests.video.streaming import BOUNDARY, StreamServer, as_jpegs


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory, whose report knows the classes."""
    run = write_played_run(tmp_path_factory.mktemp("played") / "run")
    report = make_report()
    data = report.data.model_copy(update={"classes": ["dark", "light"]})
    write_report(report.model_copy(update={"data": data}), run)
    return run


def objects(output: str) -> list[dict[str, Any]]:
    """The lines of JSON: frames, and the summary at the end."""
    return [json.loads(line) for line in output.splitlines()]


def test_classes_have_their_names_in_lines_and_in_json(deltafine: Command, model: Path, tmp_path: Path) -> None:
    film = write_small_video(tmp_path / "film.avi", light=True, seed=0, frames=6)
    done = deltafine("run", model, film)
    assert done.code == 0, done
    assert done.output.splitlines()[0].startswith(("frame 0: dark (0.", "frame 0: light (0."))
    *frames, summary = objects(deltafine("run", model, film, "--json").output)
    assert [frame["frame"] for frame in frames] == list(range(6))
    assert [frame["time"] for frame in frames] == pytest.approx([number / 25 for number in range(6)])
    for frame in frames:
        head = frame["outputs"]["head"]
        assert head["class"] == np.argmax(head["values"])
        assert head["class_name"] == ["dark", "light"][head["class"]]
        assert frame["source"] == str(film)
        assert 0 <= frame["macs"]["needed"] <= frame["macs"]["dense"]
        assert set(frame["ms"]) == {"decode", "scale", "network"}
    assert summary["summary"]["frames"] == 6
    assert summary["summary"]["ms"]["p50"] <= summary["summary"]["ms"]["p95"]


def test_several_sources_are_played_at_once_each_with_a_state_of_its_own(
    deltafine: Command, model: Path, tmp_path: Path
) -> None:
    films = [
        write_small_video(tmp_path / "films" / f"{name}.avi", light=name == "b", seed=3, frames=8) for name in "ab"
    ]
    alone = {str(film): objects(deltafine("run", model, film, "--json").output)[:-1] for film in films}
    *frames, summary = objects(deltafine("run", model, tmp_path / "films", "--json").output)
    for film, expected in alone.items():
        own = [frame for frame in frames if frame["source"] == film]
        for key in ("frame", "outputs", "macs", "events"):
            assert [frame[key] for frame in own] == [frame[key] for frame in expected]
    assert {label: one["frames"] for label, one in summary["sources"].items()} == dict.fromkeys(alone, 8)
    said = deltafine("run", model, *films, "--quiet")
    assert [line.split(": ")[0] for line in said.output.splitlines()] == [*map(str, films), "in all 16 frames"]
    assert "dropped" not in said.errors + said.output


def test_many_films_of_different_lengths_are_computed_together_and_each_is_as_alone(
    deltafine: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = dict(zip("abcdef", (40, 3, 17, 1, 26, 40), strict=True))
    films = [
        write_small_video(tmp_path / f"{name}.avi", light=name in "bd", seed=seed, frames=length)
        for seed, (name, length) in enumerate(lengths.items())
    ]
    alone = {str(film): objects(deltafine("run", model, film, "--json").output)[:-1] for film in films}
    together, step_many = [], DeltaRuntime.step_many

    def watched(runtime: DeltaRuntime, frames: Any, *beside: Any) -> Any:
        together.append(len(frames))
        return step_many(runtime, frames, *beside)

    monkeypatch.setattr(DeltaRuntime, "step_many", watched)
    *frames, summary = objects(deltafine("run", model, *films, "--json").output)
    for film, expected in alone.items():
        own = [frame for frame in frames if frame["source"] == film]
        for key in ("frame", "outputs", "macs", "events", "held"):
            assert [frame[key] for frame in own] == [frame[key] for frame in expected]
    assert summary["summary"]["frames"] == sum(together) == sum(lengths.values())
    assert max(together) > 1


def test_a_source_that_breaks_off_lets_the_others_go_on_and_the_command_fail(
    deltafine: Command, model: Path, tmp_path: Path
) -> None:
    good = write_small_video(tmp_path / "good.avi", light=True, seed=0, frames=5)
    bad = tmp_path / "bad.avi"
    bad.write_bytes(b"no video")
    done = deltafine("run", model, bad, good, "--json")
    assert done.code == 2
    *_, summary = lines = objects(done.output)
    assert summary["sources"][str(good)]["frames"] == 5
    assert [line["source"] for line in lines if "failure" in line] == [str(bad)]
    assert "bad.avi cannot be decoded" in done.errors


def test_every_and_frames_hold_and_stop(deltafine: Command, model: Path, tmp_path: Path) -> None:
    film = write_small_video(tmp_path / "film.avi", light=True, seed=0, frames=9)
    *frames, summary = objects(deltafine("run", model, film, "--json", "--every", 3, "--frames", 5).output)
    assert [frame["held"] for frame in frames] == [False, True, True, False, True]
    assert frames[1]["outputs"] == frames[0]["outputs"] != frames[3]["outputs"]
    assert summary["summary"]["frames"] == 5


def test_a_budget_is_kept_for_each_source_and_the_summary_says_how(deltafine: Command, tmp_path: Path) -> None:
    plan = small_plan()
    plan.arrays["threshold"] = np.array(0.01, np.float32)
    plan.operations[0].finish = Finish(scale="scale", delta=Delta("delta", "send-on-delta", "element", "threshold"))
    model = write_played_run(tmp_path / "run", plan)
    for name, seed in (("a", 0), ("b", 1)):
        write_small_video(tmp_path / "films" / f"{name}.avi", light=True, seed=seed, frames=150)
    *frames, summary = objects(deltafine("run", model, tmp_path / "films", "--json", "--budget-macs", "10%").output)
    for source in summary["sources"]:
        own = [frame for frame in frames if frame["source"] == source]
        late = [frame["macs"]["needed"] / frame["macs"]["dense"] for frame in own[50:]]
        assert np.mean(late) == pytest.approx(0.1, rel=0.2)
        assert own[0]["sensitivity"] == own[1]["sensitivity"] == 1
        assert own[-1]["sensitivity"] > 1.5
        of_source = summary["sources"][source]
        assert of_source["sensitivity"] == pytest.approx(np.mean([one["sensitivity"] for one in own[1:]]), abs=1e-3)
    film = tmp_path / "films" / "a.avi"
    said = deltafine("run", model, film, "--quiet", "--budget-ms", "1e4").output
    assert re.search(r"mean \d+\.\d\d for a budget of 10000 ms, sensitivity 0\.\d+ in the mean", said)
    assert "budget" not in deltafine("run", model, film, "--quiet", "--frames", 3).output
    for wrong in ("1", "0", "ten", "-5%"):
        assert (
            f"--budget-macs is {wrong}: give a share" in deltafine("run", model, film, f"--budget-macs={wrong}").refusal
        )
    refused = deltafine("run", model, film, "--budget-ms", 5, "--budget-macs", "5%").refusal
    assert "cannot both be kept" in refused


def test_fps_plays_a_recording_in_its_time(deltafine: Command, model: Path, tmp_path: Path) -> None:
    film = write_small_video(tmp_path / "film.avi", light=True, seed=0, frames=16)
    *frames, _ = objects(deltafine("run", model, film, "--json", "--fps", 10).output)
    assert [frame["frame"] for frame in frames] == list(range(16))
    assert (
        frames[-1]["arrived"] - frames[0]["arrived"] >= 0.7
    )  # 1.5 s, but for a first frame that a busy machine delays
    assert "above 0" in deltafine("run", model, film, "--fps", 0).refusal


def raw(count: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


class RawFrames:
    """`deltafine run RUN -`, with standard input from a file."""

    def __init__(self, command: Command, run: Path, folder: Path) -> None:
        self._command, self._run, self._file = command, run, folder / "frames.raw"

    def __call__(self, content: bytes, *options: object) -> tuple[int, list[dict[str, Any]], str]:
        self._file.write_bytes(content)
        kept = os.dup(0)
        with self._file.open("rb") as opened:
            os.dup2(opened.fileno(), 0)
        try:
            done = self._command("run", self._run, "-", "--json", *options)
        finally:
            os.dup2(kept, 0)
            os.close(kept)
        return done.code, objects(done.output), done.errors


@pytest.fixture
def play_raw(deltafine: Command, model: Path, tmp_path: Path) -> RawFrames:
    return RawFrames(deltafine, model, tmp_path)


def test_raw_frames_are_read_from_standard_input(play_raw: RawFrames) -> None:
    code, (*frames, summary), _ = play_raw(raw().tobytes())
    assert (code, summary["summary"]["frames"]) == (0, 4)
    _, (*turned, _), _ = play_raw(raw()[..., ::-1].tobytes(), "--raw", f"{SIZE}x{SIZE}:bgr24")
    assert [frame["outputs"] for frame in frames] == [frame["outputs"] for frame in turned]


def test_a_frame_with_nan_is_dropped_counted_and_named_and_changes_no_later_answer(play_raw: RawFrames) -> None:
    frames = raw().astype(np.float32)
    _, (*expected, _), _ = play_raw(frames[[0, 1, 3]].tobytes(), "--raw", "float32")
    frames[2, 5, 6, 0] = np.nan
    code, (*lines, summary), _ = play_raw(frames.tobytes(), "--raw", "float32")
    dropped = [line for line in lines if "dropped" in line]
    assert code == 0
    assert [(line["source"], line["frame"]) for line in dropped] == [("-", 2)]
    assert "(5, 6, 0)" in dropped[0]["dropped"]
    assert [line["outputs"] for line in lines if "outputs" in line] == [line["outputs"] for line in expected]
    assert (summary["summary"]["frames"], summary["summary"]["dropped"]) == (3, 1)


def test_standard_input_that_ends_within_a_frame_is_said(play_raw: RawFrames) -> None:
    content = raw(2).astype(np.float32).tobytes()[:-8]
    code, lines, errors = play_raw(content, "--raw", "float32")
    assert code == 2
    assert sum("outputs" in line for line in lines) == 1
    assert "ends within frame 1" in errors


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-", "--raw", "16x16"), "640x480:bgr24"),
        (("-", "--raw", "16x16:nothing"), "no format 'nothing'"),
        (("-", "-"), "twice"),
        (("0", "--raw", "float32"), "give - as a source"),
        (("gopher://here",), "gopher"),
    ],
)
def test_what_cannot_be_a_source_is_refused(
    deltafine: Command, model: Path, arguments: tuple[str, ...], words: str
) -> None:
    assert words in deltafine("run", model, *arguments).refusal


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_with_a_summary_and_its_exit_code(
    deltafine: Command, model: Path, sent: signal.Signals, code: int
) -> None:
    if sent == signal.SIGINT:  # which a shell has its background jobs ignore
        signal.signal(sent, signal.default_int_handler)
    with StreamServer(as_jpegs(), f"multipart/x-mixed-replace; boundary={BOUNDARY}") as server:

        def send() -> None:
            server.watched.wait()
            time.sleep(1)
            os.kill(os.getpid(), sent)

        sender = threading.Thread(target=send)
        sender.start()
        done = deltafine("run", model, server.address, "--json")
        sender.join()
    assert done.code == code, done
    *frames, summary = objects(done.output)
    assert summary["summary"]["frames"] == len(frames)


def test_numbers_are_numbers_and_maps_are_maps(deltafine: Command, tmp_path: Path) -> None:
    plan = small_plan(last="linear")
    plan.outputs, plan.structure = (1, 2, 3), ["list", 0, 1, 2]
    film = write_small_video(tmp_path / "film.avi", light=True, seed=0, frames=3)
    run = write_played_run(tmp_path / "numbers", plan)
    line = deltafine("run", run, film).output.splitlines()[0]
    assert "frame 0: conv: map 7x7x4 (" in line
    assert ", mean " in line
    assert ", pool: [" in line
    assert ", head: [" in line
    outputs = objects(deltafine("run", run, film, "--json").output)[0]["outputs"]
    assert {name: np.shape(output["values"]) for name, output in outputs.items()} == {
        "conv": (7, 7, 4),
        "pool": (4,),
        "head": (2,),
    }
    assert "class" not in outputs["head"]


def test_a_map_of_classes_says_where_most_of_it_belongs(deltafine: Command, tmp_path: Path) -> None:
    plan = small_plan()
    plan.outputs = (1,)
    plan.operations[1].finish = Finish(activation="softmax")
    film = write_small_video(tmp_path / "film.avi", light=True, seed=0, frames=3)
    output = deltafine("run", write_played_run(tmp_path / "map", plan), film).output
    assert output.startswith("frame 0: map 7x7x4 (class ")
    assert "%" in output.partition(")")[0]


def test_the_percentile_is_the_time_that_so_many_frames_did_not_exceed() -> None:
    times = FrameTimes()
    for milliseconds in (3.0, 1.0, 100.0, 2.0):
        times.add(milliseconds)
    assert [times.percentile(percent) for percent in (25, 50, 95, 100)] == [1.0, 2.0, 100.0, 100.0]
    assert [percentile([3.0, 1.0, 100.0, 2.0], percent) for percent in (25, 50, 95, 100)] == [1.0, 2.0, 100.0, 100.0]


def test_int8_is_calibrated_on_the_first_frames(deltafine: Command, tmp_path: Path) -> None:
    run = write_played_run(tmp_path / "run")
    film = write_small_video(tmp_path / "film.avi", light=True, seed=0, frames=6)
    refused = deltafine("run", run, film, "--precision", "int8", "--no-calibrate")
    assert refused.code == 2
    assert "which int8 needs, are not known" in refused.errors
    done = deltafine("run", run, film, "--precision", "int8")
    assert done.code == 0, done
    assert len(done.output.splitlines()) == 7
    assert deltafine("run", run, film, "--precision", "int8", "--no-calibrate").code == 0
    assert deltafine("run", run, film, "--precision", "int7").code == 2

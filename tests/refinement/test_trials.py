"""What a calibration tried is used by a later run on the same model and videos, and by no other."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltafine.errors import DeltafineWarning
from deltafine.jobs.refine import refine
from deltafine.model import delta_layers
from deltafine.refinement.thresholds import allocation
from deltafine.refinement.thresholds.trials import AllocationTrial, Trials
from tests.small_runs import small_model, write_small_model, write_small_videos

HOW: dict[str, Any] = {"epochs": 0, "frames": 4, "batch": 4, "task": "distill"}


class Heard:
    """What a run says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, words: str) -> None:
        self.said.append(words)

    def progress(self, *_: Any) -> None: ...

    def epoch(self, *_: Any) -> None: ...


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that gets an entry for each time that the calibration plays its videos."""
    plays: list[int] = []
    real = allocation.play

    def play(*args: Any, **settings: Any) -> Any:
        plays.append(1)
        return real(*args, **settings)

    monkeypatch.setattr(allocation, "play", play)
    return plays


def thresholds(out: Path) -> dict[str, bytes]:
    import keras

    model = keras.models.load_model(out / "refined.keras")
    return {path: np.asarray(layer.threshold).tobytes() for path, layer in delta_layers(model).items()}


def test_a_later_run_tries_only_what_is_new_and_finds_the_same(tmp_path: Path, counted: list[int]) -> None:
    model, videos, cache = write_small_model(tmp_path / "m.keras"), write_small_videos(tmp_path / "v"), tmp_path / "c"
    plays = {}

    def run(name: str, **settings: Any) -> list[str]:
        counted.clear()
        heard = Heard()
        refine(model, videos, tmp_path / name, **{**HOW, "cache": str(cache), **settings}, listener=heard)
        plays[name] = len(counted)
        return [words for words in heard.said if "earlier calibration" in words]

    assert run("first") == []
    (said,) = run("again")
    assert str(cache) in said
    assert thresholds(tmp_path / "again") == thresholds(tmp_path / "first")
    assert plays["again"] == 1  # the original alone
    assert run("larger", max_divergence=0.08)
    run("alone", max_divergence=0.08, cache=None)
    assert thresholds(tmp_path / "larger") == thresholds(tmp_path / "alone")
    assert 1 <= plays["larger"] < plays["alone"] / 2


def test_a_calibration_that_was_stopped_goes_on_where_it_was(tmp_path: Path, counted: list[int]) -> None:
    model, videos = write_small_model(tmp_path / "m.keras"), write_small_videos(tmp_path / "v")

    class Stopping(Heard):
        def progress(self, what: str, done: int, *_: Any) -> None:
            if what == "calibrating" and done == 15:
                raise KeyboardInterrupt

    refine(model, videos, tmp_path / "whole", **HOW)
    whole = len(counted)
    with pytest.raises(KeyboardInterrupt):
        refine(model, videos, tmp_path / "stopped", **HOW, listener=Stopping())
    counted.clear()
    heard = Heard()
    refine(model, videos, tmp_path / "stopped", **HOW, resume=True, listener=heard)
    assert any(words.startswith("15 trials of an earlier calibration are used") for words in heard.said)
    assert len(counted) == whole - 15
    assert thresholds(tmp_path / "stopped") == thresholds(tmp_path / "whole")
    assert not (tmp_path / "stopped" / "cache").exists()


def test_what_is_tried_is_written_as_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed says no goodbye."""
    now = iter(range(1000))
    monkeypatch.setattr("deltafine.refinement.thresholds.trials.time.monotonic", lambda: float(next(now)))
    trials = Trials(tmp_path / "t.json")
    for second in range(45):
        trials.put((float(second),), AllocationTrial(0.0, 1.0, 0.0))
    assert 21 <= Trials(tmp_path / "t.json").known < 45
    assert trials.known == 0


def test_another_model_of_the_same_name_is_tried_anew(tmp_path: Path) -> None:
    videos, cache = write_small_videos(tmp_path / "v"), tmp_path / "c"
    model = small_model()
    for name in ("one", "two"):
        model.save(tmp_path / "m.keras")
        heard = Heard()
        refine(tmp_path / "m.keras", videos, tmp_path / name, **HOW, cache=str(cache), listener=heard)
        assert not [words for words in heard.said if "earlier calibration" in words]
        model.get_layer("conv2").kernel.assign(2 * np.asarray(model.get_layer("conv2").kernel))
    assert len(list(cache.glob("calibration-*.json"))) == 2


def test_what_was_tried_with_something_else_is_not_used(tmp_path: Path) -> None:
    videos = [np.zeros((2, 4, 4, 3), "float32"), np.ones((3, 4, 4, 3), "float32")]
    what = {"model": "1f", "rule": ["send-on-delta", "element"]}
    Trials.of(tmp_path, what, videos).put((1.0,), AllocationTrial(0.0, 1.0, 0.0))
    kept = Trials.of(tmp_path, what, videos)
    kept.put((1.0,), AllocationTrial(0.0, 1.0, 0.0))
    kept.keep()
    assert Trials.of(tmp_path, dict(reversed(what.items())), videos).known == 1
    others = [
        ({**what, "model": "2f"}, videos),
        ({**what, "rule": ["send-on-delta", "pixel"]}, videos),
        (what, videos[::-1]),
        (what, [videos[0], videos[1] * 2]),
        (what, [videos[0].reshape(4, 2, 4, 3), videos[1]]),
    ]
    assert [Trials.of(tmp_path, *other).known for other in others] == [0] * len(others)
    assert Trials.of(None, what, videos).known == 0


numbers = st.floats(0, allow_nan=False)


@given(st.dictionaries(st.tuples(numbers, numbers), st.builds(AllocationTrial, numbers, numbers, numbers), min_size=1))
def test_what_is_kept_is_read_to_the_last_bit(
    tmp_path_factory: pytest.TempPathFactory, found: dict[tuple[float, ...], AllocationTrial]
) -> None:
    file = tmp_path_factory.mktemp("kept") / "calibration.json"
    trials = Trials(file)
    for relative, trial in found.items():
        trials.put(relative, trial)
    trials.keep()
    again = Trials(file)
    assert again.known == len(found)
    assert all(again.get(relative) == trial for relative, trial in found.items())


@pytest.mark.parametrize("content", [b"", b"\0" * 40, b"[]", None])
def test_damage_is_said_and_tried_again(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "calibration.json"
    trials = Trials(file)
    trials.put((0.25, 0.0), AllocationTrial(0.5, 3.0, math.inf))
    trials.keep()
    sound = file.read_bytes()
    file.write_bytes(sound.replace(b"0.25", b"0.75") if content is None else content)
    with pytest.warns(DeltafineWarning, match=r"is not used, and is made again: .*calibration\.json"):
        again = Trials(file)
    assert (again.known, again.get((0.75, 0.0))) == (0, None)
    assert not file.exists()
    again.put((0.25, 0.0), AllocationTrial(0.5, 3.0, math.inf))
    again.keep()
    assert file.read_bytes() == sound


def test_a_place_that_takes_no_file_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    trials = Trials.of(tmp_path / "file", {"model": "m"}, [np.zeros((2, 2, 2, 3), "float32")])
    trials.put((1.0,), AllocationTrial(0.0, 1.0, 0.0))
    with pytest.warns(DeltafineWarning, match="The calibration is not kept for later runs: "):
        trials.keep()

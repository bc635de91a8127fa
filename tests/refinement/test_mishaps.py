"""What may happen to a run: it says so in a sentence, and what is on disk is still a run."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import keras
import pytest

from deltafine import load_report, refine
from deltafine.errors import DeltafineError, Interrupted
from deltafine.jobs.refine import Quiet
from deltafine.refinement.run import checkpoints
from deltafine.refinement.run.lock import locked
from deltafine.refinement.training.stability import MOST_ROLLBACKS, LossWatch, Unsound
from deltafine.refinement.training.step import Trainer
from tests.small_runs import FAST, write_small_model, write_small_video, write_small_videos
from tests.storage.test_files import mounted

SETTINGS: dict[str, Any] = {**FAST, "epochs": 1}


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("material")
    return write_small_model(folder / "small.keras"), write_small_videos(folder / "videos")


class SignalAt(Quiet):
    """A signal comes while something is done; hears what is said."""

    def __init__(self, what: str = "", number: int = signal.SIGTERM) -> None:
        self._what, self._number = what, number
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def progress(self, what: str, done: int, total: int, figures: str = "") -> None:
        if self._what and what.startswith(self._what):
            self._what = ""
            signal.raise_signal(self._number)


@pytest.fixture(scope="module")
def stopped(material: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped after its first step."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(Interrupted):
        refine(*material, out, listener=SignalAt("epoch 1"), **SETTINGS)
    return out


def digests(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file()
    }


@pytest.mark.slow
def test_sigterm_stops_in_every_phase_and_the_run_goes_on_from_there(
    material: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    settings = {name: value for name, value in SETTINGS.items() if name != "relative_threshold"}
    for phase in ("decoding", "calibrating", "epoch", "validating", "measuring streams", "measuring clips"):
        with pytest.raises(Interrupted) as stop:
            refine(*material, out, resume=True, listener=SignalAt(phase), **settings)
        assert stop.value.signal == signal.SIGTERM, phase
        assert not (out / "report.json").exists()
    listener = SignalAt()
    refine(*material, out, resume=True, listener=listener, **settings)
    assert listener.said[-1] == "resumed after epoch 1 of 1"
    assert load_report(out).history[0].epoch == 1
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


LONG = """
import hashlib, sys
from deltafine.refinement.run import interruption
interruption.SECONDS_TO_STOP = 1.0
with interruption.Requests() as requests, requests.held():  # the signal may come before the long call
    print("here", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""


def test_sigterm_ends_even_what_no_signal_handler_can_reach() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", LONG], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    process.terminate()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 143
    assert errors == "Interrupted in the middle of something long: go on with --resume from the last checkpoint.\n"


def test_sigterm_ends_it_too_where_nobody_reads_what_it_says() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LONG], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "here\n"
        process.stderr.close()
        process.terminate()
        try:
            assert process.wait(timeout=30) == 143
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [1.0, 4.0, 7.0, 9.0, 12.0])
def test_sigterm_ends_the_command_within_ten_seconds(
    material: tuple[Path, Path], tmp_path: Path, seconds: float
) -> None:
    model, data = material
    arguments = ["refine", model, "--data", data, "--out", tmp_path / "run", "--epochs", 100_000, "--frames", 4]
    process = subprocess.Popen(
        [sys.executable, "-m", "deltafine", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    time.sleep(seconds)
    process.terminate()
    began = time.monotonic()
    said, _ = process.communicate(timeout=60)
    assert time.monotonic() - began < 10
    # Before Python has read the first lines of deltafine the signal does what it does by default.
    assert process.returncode == 143 or (process.returncode == -signal.SIGTERM and not said), said
    assert "Traceback" not in said
    assert "Interrupted" in said or not said


def test_a_second_process_is_refused_at_once_and_a_killed_one_locks_nothing(
    material: tuple[Path, Path], stopped: Path
) -> None:
    code = f"""
import time
from collections import deque
from pathlib import Path
from deltafine.refinement.run.lock import locked
with locked(Path({str(stopped)!r})):
    print("locked", flush=True)
    time.sleep(60)
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "locked\n"
    before = digests(stopped)
    for how in ({"resume": True}, {"overwrite": True}):
        with pytest.raises(DeltafineError, match=r"Another process is at work in .*run: wait for it"):
            refine(*material, stopped, **how, **SETTINGS)
    assert digests(stopped) == before
    other.kill()
    other.communicate()
    with locked(stopped):
        pass


@pytest.mark.parametrize(
    "what",
    ["gone", "other bytes", *(pytest.param(what, marks=pytest.mark.slow) for what in ("one more", "other model"))],
)
def test_a_dataset_or_model_that_changed_is_refused_and_the_run_stays_as_it_is(
    material: tuple[Path, Path], stopped: Path, tmp_path: Path, what: str
) -> None:
    out = Path(shutil.copytree(stopped, tmp_path / "run"))
    model = Path(shutil.copy(material[0], tmp_path / "small.keras"))
    data = Path(shutil.copytree(material[1], tmp_path / "videos"))
    text = (out / "settings.toml").read_text("utf-8")
    text = text.replace(str(material[0]), str(model)).replace(str(material[1]), str(data))
    (out / "settings.toml").write_text(text, "utf-8")
    before = digests(out)
    expected = f"The videos in {data} are not those that the run in {out} was started with"
    if what == "gone":
        shutil.rmtree(data)
        expected = f"There is nothing at {data}"
    elif what == "other bytes":
        write_small_video(data / "dark" / "dark0.avi", light=True, seed=99)
    elif what == "one more":
        write_small_video(data / "dark" / "dark9.avi", light=False, seed=99)
    else:
        write_small_model(tmp_path / "other" / "small.keras")
        changed = keras.models.load_model(tmp_path / "other" / "small.keras")
        changed.get_layer("head").bias.assign([1.0, 0.0])
        changed.save(model)
        expected = f"The model {model} is not the one"
    with pytest.raises(DeltafineError) as refusal:
        refine(model, data, out, resume=True)
    assert expected in str(refusal.value)
    assert {name: value for name, value in digests(out).items() if not name.startswith("cache")} == {
        name: value for name, value in before.items() if not name.startswith("cache")
    } | {"settings.toml": digests(out)["settings.toml"]}


def test_resume_starts_a_run_where_there_is_none_but_picks_from_none(
    material: tuple[Path, Path], tmp_path: Path
) -> None:
    listener = SignalAt("decoding")
    with pytest.raises(Interrupted):
        refine(*material, tmp_path / "run", resume=True, listener=listener, **SETTINGS)
    assert listener.said[0] == f"There is no run in {tmp_path / 'run'} yet: it starts from the beginning."
    with pytest.raises(DeltafineError, match="holds no run that could be resumed"):
        refine(*material, tmp_path / "other", resume=True, pick=1)


@pytest.mark.slow
def test_a_disk_that_is_full_stops_a_run_that_goes_on_once_there_is_room(
    material: tuple[Path, Path], tmp_path: Path
) -> None:
    for disk in mounted(tmp_path / "disk", "size=2m"):
        out = disk / "run"
        with pytest.raises(Interrupted):
            refine(*material, out, listener=SignalAt("epoch 1"), **SETTINGS)
        stone = disk / "stone"
        fill(stone)
        with pytest.raises(DeltafineError, match=r"cannot be written: no space is left there; make room"):
            refine(*material, out, resume=True)
        assert checkpoints.read_facts(out / "checkpoints" / "last.h5")["step"] == 1
        stone.unlink()
        assert refine(*material, out, resume=True).history


def test_a_directory_that_may_not_be_written_is_one_sentence(
    material: tuple[Path, Path], stopped: Path, tmp_path: Path
) -> None:
    for disk in mounted(tmp_path / "disk", "size=4m"):
        out = Path(shutil.copytree(stopped, disk / "run"))
        before = digests(out)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with pytest.raises(DeltafineError, match="Read-only file system"):
            refine(*material, out, resume=True)
        with pytest.raises(DeltafineError, match="Read-only file system"):
            refine(*material, disk / "new", **SETTINGS)
        assert digests(out) == before


def test_an_overwritten_run_is_one_at_every_moment(
    material: tuple[Path, Path], stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Path(shutil.copytree(stopped, tmp_path / "run"))

    def fail(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", fail)
        with pytest.raises(DeltafineError, match="cannot be removed: Permission denied"):
            refine(*material, out, overwrite=True, **SETTINGS)
    # What a resumed run would go on from went first, and what makes it a run goes last.
    assert (out / "settings.toml").exists()
    assert not (out / "checkpoints" / "last.h5").exists()


def fill(file: Path) -> None:
    """Write until the disk is full."""
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))


WILD = {**SETTINGS, "epochs": 2, "learning_rate": 1e20, "warmup": 0.0, "checkpoint_minutes": 1e-5}


def test_a_loss_that_is_not_a_number_stops_the_run_with_its_last_good_checkpoint(
    material: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(DeltafineError) as stop:
        refine(*material, out, **WILD)
    message = str(stop.value)
    assert " is not a number at step " in message
    assert f"The last good checkpoint is {out / 'checkpoints' / 'last.h5'}." in message
    step = int(message.split("at step ")[1].split()[0])
    facts = checkpoints.read_facts(out / "checkpoints" / "last.h5")
    assert facts["step"] < step
    assert not (out / "refined.keras").exists()

    # Rates as wild as these stay so when they are halved as often as they may.
    listener = SignalAt()
    with pytest.raises(DeltafineError, match="is not a number at step"):
        refine(*material, out, resume=True, on_nan="rollback", listener=listener)
    gone_back = [text for text in listener.said if "with the rates halved to" in text]
    assert len(gone_back) == MOST_ROLLBACKS
    facts = checkpoints.read_facts(out / "checkpoints" / "last.h5")
    assert facts["rate"] == 0.5**MOST_ROLLBACKS
    assert facts["mishaps"] == gone_back


def test_after_going_back_a_run_goes_on_with_half_the_rates_and_says_so(
    material: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer.train_on_batch

    def wild_at_full_rate(self: Trainer, *arguments: Any, **more: Any) -> tuple[float, float, float]:
        if self.step == 3 and self.rate == 1:
            raise Unsound("The loss is not a number at step 4")
        return step(self, *arguments, **more)

    monkeypatch.setattr(Trainer, "train_on_batch", wild_at_full_rate)
    out = tmp_path / "run"
    report = refine(*material, out, on_nan="rollback", **SETTINGS)
    words = "went back to step 0 and on with the rates halved to 0.5 of what was set."
    assert f"The loss is not a number at step 4: {words}" in report.warnings
    facts = checkpoints.read_facts(out / "checkpoints" / "last.h5")
    assert (facts["rate"], facts["step"]) == (0.5, 6)


def test_a_loss_that_runs_away_is_noticed_and_one_that_varies_is_not() -> None:
    quiet = LossWatch()
    for step in range(200):
        quiet.see(0.1 + (5.0 if step % 20 == 0 else 0.0), step)
    wild = LossWatch()
    for step in range(20):
        wild.see(2.0, step)
    losses = [2.0 * 1.3 ** (step - 19) for step in range(20, 200)]
    with pytest.raises(Unsound, match=r"diverges, from 2 to \d+(\.\d+)?, at step \d\d$"):
        deque(map(wild.see, losses, range(20, 200)))


def test_facts_of_a_training_of_any_length_fit_into_a_checkpoint(tmp_path: Path) -> None:
    facts = {"history": [{"epoch": epoch, "loss": 0.123456789} for epoch in range(100_000)]}
    checkpoints.save(tmp_path / "last.h5", [], facts)
    assert checkpoints.read_facts(tmp_path / "last.h5") == json.loads(json.dumps(facts))


def test_a_recipe_of_a_stranger_cannot_allow_what_is_dangerous(material: tuple[Path, Path], tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    for line, option in (
        ("unsafe_lambda = true", "--unsafe-lambda"),
        ('custom_objects = ["os:system"]', "--custom-objects"),
        ("allow_outside = true", "--allow-outside"),
    ):
        recipe.write_text(line, "utf-8")
        with pytest.raises(DeltafineError, match=f"only if you trust whoever wrote it, give {option} as well"):
            refine(*material, tmp_path / "run", recipe=recipe)
    assert not (tmp_path / "run").exists()
    assert os.listdir(tmp_path) == ["recipe.toml"]  # noqa: PTH208

"""A file of a run that is damaged is made again and said, or refused in one sentence; the results are never others."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import tomllib
import warnings
from pathlib import Path

import pytest

from deltafine import bench, find_activations, insert_deltas, refine
from deltafine.document.history import FrontPoint
from deltafine.errors import DeltafineError, DeltafineWarning, Interrupted
from deltafine.refinement.run.selection import Choice
from deltafine.refinement.thresholds.budget import Budget
from tests.cli.running import Command, Done
from tests.refinement.test_killed import assert_identical
from tests.refinement.test_mishaps import SignalAt
from tests.small_runs import CLASSES, FAST, small_model, write_small_model, write_small_video, write_small_videos

DAMAGES = ("empty", "one byte", "1000 bytes", "half", "all but a byte", "flipped", "text", "a folder")
TO_RESUME = (
    "settings.toml",
    "refined.keras",
    "history.csv",
    "checkpoints/calibrated.h5",
    "checkpoints/last.h5",
    "checkpoints/epoch-0001.h5",
    "cache/*",
)
FINISHED = (
    "refined.keras",
    "report.json",
    "report.html",
    "settings.toml",
    "pictures/*",
    "runtime/plan.json",
    "runtime/plan.npz",
    "runtime/source.sha256",
    "runtime/choice.json",
)


def damage(run: Path, name: str, how: str) -> Path:
    """Damage a file of a run; a name may be a pattern, of which the first is meant."""
    file = min(run.glob(name))
    content = file.read_bytes()
    if how == "a folder":
        file.unlink()
        file.mkdir()
        return file
    flipped = bytearray(content)
    for place in (1, 2, 3, 5):
        flipped[len(flipped) * place // 6] ^= 0x80  # which text cannot hold
    file.write_bytes(
        {
            "empty": b"",
            "one byte": content[:1],
            "1000 bytes": content[:1000],
            "half": content[: len(content) // 2],
            "all but a byte": content[:-1],
            "flipped": bytes(flipped),
            "text": b"This is no file of a run.\n",
        }[how]
    )
    return file


def is_valid(file: Path) -> bool:
    """Whether a text is still one that may stand there: it was cut behind its last line, or between two settings."""
    if not file.is_file() or file.suffix not in (".json", ".toml"):
        return False
    with contextlib.suppress(ValueError):
        text = file.read_text("utf-8")
        return bool(json.loads(text) if file.suffix == ".json" else tomllib.loads(text))
    return False


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("material")
    return write_small_model(folder / "small.keras"), write_small_videos(folder / "videos")


@pytest.fixture(scope="module")
def stopped(material: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped in its second and last epoch."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(Interrupted):
        refine(*material, out, listener=SignalAt("epoch 2"), **FAST, epochs=2)
    return out


@pytest.fixture(scope="module")
def resumed(material: tuple[Path, Path], stopped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, resumed as it was."""
    out = shutil.copytree(stopped, tmp_path_factory.mktemp("resumed") / "run")
    refine(*material, out, resume=True)
    return out


def resume(material: tuple[Path, Path], out: Path) -> list[str]:
    """What is said by a run that goes on."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        refine(*material, out, resume=True)
    return [str(one.message) for one in said if one.category is DeltafineWarning]


@pytest.mark.parametrize(
    ("name", "how", "words"),
    [
        ("checkpoints/last.h5", "half", "The training starts again from the calibration, since the checkpoint"),
        ("checkpoints/last.h5", "flipped", "The training starts again from the calibration, since the checkpoint"),
        ("checkpoints/calibrated.h5", "1000 bytes", "The thresholds are calibrated again, since the checkpoint"),
        ("checkpoints/epoch-0001.h5", "a folder", "The weights of epoch 1 are not chosen, since they are lost"),
        ("cache/*", "half", "Kept frames are not used, and decoded again"),
        ("refined.keras", "half", None),
        ("history.csv", "text", None),
    ],
)
def test_a_run_goes_on_without_what_is_damaged_and_ends_as_if_it_were_not(
    material: tuple[Path, Path], stopped: Path, resumed: Path, tmp_path: Path, name: str, how: str, words: str | None
) -> None:
    out = shutil.copytree(stopped, tmp_path / "run")
    file = damage(out, name, how)
    said = resume(material, out)
    if words is None:  # it is not read, but written anew
        assert said == []
    else:
        assert said[0].startswith(words)
        assert file.name in said[0]
    assert_identical(out, resumed)


@pytest.mark.slow
@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", TO_RESUME)
def test_a_run_with_any_damage_ends_the_same_or_in_one_sentence(
    material: tuple[Path, Path], stopped: Path, resumed: Path, tmp_path: Path, name: str, how: str
) -> None:
    out = shutil.copytree(stopped, tmp_path / "run")
    file = damage(out, name, how)
    refusal = ""
    try:
        resume(material, out)
    except DeltafineError as error:
        refusal = str(error)
    if refusal:  # settings are not made again, and where a folder is in the way nothing can be written
        assert name == "settings.toml" or (how == "a folder" and name in ("refined.keras", "history.csv"))
        assert str(out) in refusal
    else:
        assert name != "settings.toml" or is_valid(file)
        assert_identical(out, resumed)


def test_weights_that_are_lost_are_not_chosen_and_the_others_are(tmp_path: Path) -> None:
    model = small_model()
    student = insert_deltas(model, find_activations(model))
    choice = Choice(student, None, Budget(None, None, 0.05, False, False, 0.05, False), tmp_path, {}, lambda: 1.0)
    choice.floor = 0.85
    accurate, sparse, beaten = (
        FrontPoint(epoch=epoch, penalty=1, accuracy=accuracy, mac_density=density, pixel_density=0)
        for epoch, (accuracy, density) in enumerate(((0.9, 0.5), (0.86, 0.3), (0.8, 0.6)), 1)
    )
    choice.points = points = [accurate, sparse, beaten]
    for epoch in (1, 2, 3):
        choice.keep(epoch)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["epoch-0001.h5", "epoch-0002.h5"]
    choice.remove_damaged()
    assert choice.loadable(points) == points
    damage(tmp_path, "epoch-0002.h5", "flipped")
    with pytest.warns(DeltafineWarning, match=r"The weights of epoch 2 are not chosen.*epoch-0002\.h5 is damaged"):
        choice.remove_damaged()
    choice.points = choice.loadable(points)
    assert choice.points == [accurate]  # and not what was not kept beside the lost one
    assert choice.best_so_far()
    with pytest.raises(DeltafineError, match=r"Epoch 2 of the run in .* was not kept: pick one of 1\."):
        choice.make(1.0, 2)


def test_videos_that_changed_are_refused_even_where_the_calibration_is_lost(
    material: tuple[Path, Path], stopped: Path, tmp_path: Path
) -> None:
    model, videos = material
    out = shutil.copytree(stopped, tmp_path / "run")
    others = shutil.copytree(videos, tmp_path / "videos")
    settings = (out / "settings.toml").read_text("utf-8").replace(str(videos), str(others))
    (out / "settings.toml").write_text(settings, "utf-8")
    write_small_video(min(others.rglob("*.avi")), light=True, seed=99)
    damage(out, "checkpoints/calibrated.h5", "half")
    with pytest.raises(DeltafineError, match=r"The videos in .* are not those"):
        refine(model, others, out, resume=True)


@pytest.fixture(scope="module")
def finished(material: tuple[Path, Path], resumed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose plan was kept, too."""
    from deltafine import DeltaRuntime
    from deltafine.runtime import plan_cache

    out = shutil.copytree(resumed, tmp_path_factory.mktemp("finished") / "run")
    runtime = DeltaRuntime(out)
    plan_cache.keep_choice({}, out / "runtime", runtime._source)
    return out


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(capsys, monkeypatch)


def commands(run: Path, material: tuple[Path, Path]) -> dict[str, list[object]]:
    video = min(material[1].rglob("*.avi"))
    return {
        "run": ["run", run, video, "--frames", 2],
        "report": ["report", run, "--format", "html", "--output", run.parent / "page.html"],
        "export": ["export", run, "--format", "tflite", "--overwrite"],
    }


def outcome_of(done: Done) -> str:
    """What a command that ended well has shown, without its timings; of one that refused, the sentence."""
    if done.code:
        return done.refusal
    assert "Traceback" not in done.output + done.errors
    for note in done.errors.splitlines():
        assert note.startswith("Note: "), note
    return "".join(line.rsplit(", ", 1)[0] for line in done.output.splitlines() if line.startswith("frame "))


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("refined.keras", "flipped"),
        ("report.json", "half"),
        ("settings.toml", "flipped"),
        ("pictures/*", "half"),
        ("runtime/plan.npz", "1000 bytes"),
        ("runtime/choice.json", "a folder"),
        *(pytest.param(name, how, marks=pytest.mark.slow) for name in FINISHED for how in DAMAGES),
    ],
)
def test_a_command_makes_do_without_a_damaged_file_or_names_it_in_one_sentence(
    command: Command, material: tuple[Path, Path], finished: Path, tmp_path: Path, name: str, how: str
) -> None:
    whole = shutil.copytree(finished, tmp_path / "whole")
    out = shutil.copytree(finished, tmp_path / "run")
    file = damage(out, name, how)
    harmless = file.is_file() and file.read_bytes().strip() == min(whole.glob(name)).read_bytes().strip()
    for needed, (of, arguments) in zip(
        (("refined.keras",), ("report.json",), ("refined.keras", "settings.toml")),
        commands(out, material).items(),
        strict=True,
    ):
        done = command(*arguments)
        outcome = outcome_of(done)
        if name in needed and not is_valid(file):
            assert done.code == 2, (of, done)
            assert file.name in outcome
        else:
            assert done.code == 0, (of, done)
            sound = outcome_of(command(*commands(whole, material)[of]))
            if (of, name) == ("run", "report.json") and not is_valid(file):  # which names the classes
                sound = re.sub(r"\b(dark|light)\b", lambda found: f"class {CLASSES.index(found[0])}", sound)
                assert str(file) in done.errors
            assert outcome == sound
            if (of, name.partition("/")[0]) in (("run", "runtime"), ("report", "pictures")) and not harmless:
                assert str(file) in done.errors or str(file.parent) in done.errors


@pytest.mark.slow
@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", FINISHED)
def test_bench_makes_do_without_a_damaged_file_or_names_it_in_one_sentence(
    material: tuple[Path, Path], finished: Path, tmp_path: Path, name: str, how: str
) -> None:
    out = shutil.copytree(finished, tmp_path / "run")
    file = damage(out, name, how)
    refusal = ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeltafineWarning)
        try:
            timed = bench(out, material[1], frames=4, threads=None)
        except DeltafineError as error:
            refusal = str(error)
    in_the_way = (name, how) == ("report.html", "a folder")  # which is written anew
    if (name in ("refined.keras", "report.json") and not is_valid(file)) or in_the_way:
        assert file.name in refusal
        assert len(refusal.splitlines()) == 1
    else:
        assert refusal == ""
        assert timed.timing.frames > 0


def test_data_goes_on_where_a_kept_file_of_frames_is_damaged(
    command: Command, material: tuple[Path, Path], stopped: Path, tmp_path: Path
) -> None:
    """A cache is a data set of its own as well."""
    out = shutil.copytree(stopped, tmp_path / "run")
    assert command("data", min(out.glob("cache/*"))).code == 0
    for how in DAMAGES[:-1]:
        copy = shutil.copytree(out, tmp_path / how)
        done = command("data", damage(copy, "cache/*", how))
        assert done.code == 0 or done.refusal
        assert "Traceback" not in done.output + done.errors
        assert copy.is_dir()

"""Reading and writing run directories."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import ValidationError

from deltafine.document.figures import WorstAnswer
from deltafine.document.report import Picture
from deltafine.errors import DeltafineError, DeltafineWarning
from deltafine.report import Report, load_report, render, write_report
from deltafine.report.store import load_pictures
from tests.report.builders import controls, make_report


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_report(make_report(), tmp_path / "run")
    return tmp_path / "run"


def changed(run: Path, **fields: Any) -> Path:
    document = json.loads((run / "report.json").read_text("utf-8"))
    document.update(fields)
    (run / "report.json").write_text(json.dumps(document), "utf-8")
    return run


def refusal(path: Path) -> str:
    with pytest.raises(DeltafineError) as error:
        load_report(path)
    message = str(error.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert len(message) < 400
    return message


def test_a_report_comes_back_as_it_was_written(run: Path) -> None:
    assert load_report(run) == make_report()


def test_a_report_is_read_from_its_file_as_from_its_directory(run: Path) -> None:
    assert load_report(run / "report.json") == load_report(run)


def test_a_run_directory_holds_three_files_and_no_leftovers(run: Path) -> None:
    assert sorted(file.name for file in run.iterdir()) == ["report.html", "report.json", "report.md"]


def test_report_files_are_readable_as_other_files_are(run: Path) -> None:
    other = run / "other"
    other.write_text("x", "utf-8")
    assert (run / "report.json").stat().st_mode == other.stat().st_mode


def test_writing_again_replaces_the_report(run: Path) -> None:
    write_report(make_report(title="second"), run)
    assert load_report(run).title == "second"


def test_a_directory_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(DeltafineError, match="cannot be made: Not a directory"):
        write_report(make_report(), tmp_path / "file" / "run")


def test_a_missing_report_is_refused(tmp_path: Path) -> None:
    assert "no report at" in refusal(tmp_path / "nowhere")


def test_a_directory_without_a_report_is_refused(tmp_path: Path) -> None:
    assert "holds no report.json" in refusal(tmp_path)


def test_a_model_file_is_told_from_a_report(tmp_path: Path) -> None:
    (tmp_path / "a.keras").write_bytes(b"PK")
    assert "--data" in refusal(tmp_path / "a.keras")


@pytest.mark.parametrize("begin", [b"PK\x03\x04", b"\x89HDF\r\n\x1a\n"])
def test_a_model_file_is_told_from_a_report_whatever_it_is_called(tmp_path: Path, begin: bytes) -> None:
    (tmp_path / "mask.model").write_bytes(begin + bytes(100))
    with pytest.raises(DeltafineError, match="is a model, not a report"):
        load_report(tmp_path / "mask.model")


def test_a_pointer_of_git_lfs_in_place_of_a_report_is_named_as_such(run: Path) -> None:
    (run / "report.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n")
    with pytest.raises(DeltafineError, match=r"Git LFS pointer.*git lfs pull"):
        load_report(run)


def test_an_empty_file_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_bytes(b"\n")
    assert "is empty" in refusal(tmp_path)


@pytest.mark.parametrize("content", [b'{"version": 1, "title', b"\xff\xfe\x00", b"not json"])
def test_broken_json_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "report.json").write_bytes(content)
    assert "not valid JSON" in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"[]", b"3", b'{"a": 1}', b"null"])
def test_json_that_is_no_report_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "report.json").write_bytes(content)
    assert "not a deltafine report" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("version", "advice"), [(3, "update deltafine"), (0, "measure again"), ("new", "measure"), (True, "measure")]
)
def test_another_version_is_refused_with_what_to_do(run: Path, version: object, advice: str) -> None:
    message = refusal(changed(run, version=version))
    assert "version" in message
    assert advice in message


def test_a_wrong_field_is_named_and_the_others_counted(run: Path) -> None:
    message = refusal(changed(run, seconds="soon", created=[1], title=3))
    assert "title" in message
    assert "(and 2 more)" in message
    assert "pydantic" not in message


def test_a_report_without_models_is_refused(run: Path) -> None:
    assert "no measured model" in refusal(changed(run, models={}))


def test_figures_that_are_not_finite_survive(tmp_path: Path) -> None:
    report = make_report()
    report.history[0].loss = float("inf")
    write_report(report, tmp_path)
    assert load_report(tmp_path).history[0].loss == float("inf")


def test_an_older_document_without_optional_fields_loads(run: Path) -> None:
    document = json.loads((run / "report.json").read_text("utf-8"))
    for field in ("history", "front", "warnings", "stream_data"):
        del document[field]
    (run / "report.json").write_text(json.dumps(document), "utf-8")
    assert load_report(run).history == []


def with_pictures(*names: str) -> Report:
    return make_report(pictures=[Picture(file=name, video="cone/1.mp4", caption="events of conv1") for name in names])


def drawn(shade: int) -> bytes:
    """A PNG file of one pixel."""
    content = io.BytesIO()
    Image.new("L", (1, 1), shade).save(content, "png")
    return content.getvalue()


def test_pictures_lie_beside_the_report_and_in_the_page(tmp_path: Path) -> None:
    pictures = {"a.png": drawn(1), "b.png": drawn(2)}
    write_report(with_pictures(*pictures), tmp_path, pictures)
    assert (tmp_path / "pictures" / "a.png").read_bytes() == drawn(1)
    assert load_pictures(tmp_path, load_report(tmp_path)) == pictures
    assert (tmp_path / "report.html").read_text("utf-8").count("data:image/png;base64,") == 2
    assert len((tmp_path / "report.json").read_bytes()) < len(make_report().model_dump_json(indent=1)) + 500


@pytest.mark.parametrize("damage", ["cut", "a bit", "longer", "no picture", "a folder"])
def test_a_damaged_picture_is_left_out_and_said(tmp_path: Path, damage: str) -> None:
    pictures = {"a.png": drawn(1), "b.png": drawn(2)}
    write_report(with_pictures(*pictures), tmp_path, pictures)
    file = tmp_path / "pictures" / "a.png"
    content = drawn(1)
    file.unlink()
    if damage == "a folder":
        file.mkdir()
    else:
        bit = content[:45] + bytes([content[45] ^ 1]) + content[46:]
        file.write_bytes({"cut": content[:-5], "a bit": bit, "longer": content + b"x", "no picture": b"text"}[damage])
    with pytest.warns(DeltafineWarning, match=r"^A picture is left out: .*a\.png is no PNG file, or damaged\.$"):
        assert load_pictures(tmp_path, load_report(tmp_path)).keys() == {"b.png"}


def test_a_report_that_was_moved_alone_is_shown_without_its_pictures(tmp_path: Path) -> None:
    write_report(with_pictures("a.png"), tmp_path / "run", {"a.png": drawn(1)})
    (tmp_path / "report.json").write_bytes((tmp_path / "run" / "report.json").read_bytes())
    report = load_report(tmp_path / "report.json")
    assert load_pictures(tmp_path / "report.json", report) == {}
    assert "data:image/png" not in render(report, "html")


def test_a_picture_without_data_is_the_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.png"):
        write_report(with_pictures("a.png"), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../a.png", "/etc/a.png", "a/b.png", ".png", "a.svg", "a.png\n"])
def test_a_picture_cannot_name_a_file_outside_its_folder(name: str) -> None:
    with pytest.raises(ValidationError):
        Picture(file=name, video="v", caption="c")


def test_a_report_of_another_deltafine_that_does_not_fit_says_which_wrote_it(run: Path) -> None:
    versions = make_report().versions.model_dump() | {"deltafine": "9.9.9"}
    assert "deltafine 9.9.9 wrote it" in refusal(changed(run, versions=versions, title=[]))


def test_optional_fields_of_a_newer_version_are_left_out(run: Path) -> None:
    document = json.loads((run / "report.json").read_text("utf-8"))
    document["unheard_of"] = [1]
    document["models"]["refined"]["streams"]["operations"]["fresh"] = 3.0
    document["models"]["refined"]["streams"]["layers"][0]["fresh"] = None
    (run / "report.json").write_text(json.dumps(document), "utf-8")
    assert load_report(run) == make_report()


def test_what_is_made_here_has_no_unknown_fields() -> None:
    with pytest.raises(ValidationError):
        Picture(file="a.png", video="v", caption="c", surprise=1)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("models.refined.streams.frame_accuracy.value", 1.7, "is 1.7, and must be a number from 0 to 1"),
        ("models.refined.clips.operations.mac_density", -0.1, "is -0.1, and must be a number from 0 to 1"),
        ("models.original.streams.layers.2.delta_density", float("nan"), "is nan, and must be"),
        ("models.refined.streams.accuracy_change.low", -1.2, "a number from -1 to 1"),
        ("models.refined.streams.operations.energy_delta", -1e-3, "a finite number that is not negative"),
        ("models.refined.streams.operations.frame_macs_p95", float("inf"), "a finite number"),
        ("models.refined.streams.deltas.0.silent_channels", 2.0, "a number from 0 to 1"),
        ("models.refined.streams.relative_error", -0.5, "a finite number that is not negative"),
        ("model.coverage", 1.1, "a number from 0 to 1"),
        ("model.parameters", 10**400, "a finite number"),
        ("controls.held.0.quality", 1.3, "a number from 0 to 1"),
        ("controls.motion_gate.1.share", 1.1, "a number from 0 to 1"),
        ("controls.refined_held.0.mac_density", -0.1, "a number from 0 to 1"),
    ],
)
def test_a_figure_that_cannot_be_is_refused_by_its_place(run: Path, path: str, value: float, words: str) -> None:
    write_report(make_report(controls=controls()), run)
    document = json.loads((run / "report.json").read_text("utf-8"))
    *way, last = path.split(".")
    part = document
    for step in way:
        part = part[int(step) if step.isdigit() else step]
    part[last] = value
    (run / "report.json").write_text(json.dumps(document), "utf-8")
    message = refusal(run)
    assert path in message
    assert words in message


def test_errors_of_a_model_that_has_diverged_still_load(run: Path) -> None:
    document = json.loads((run / "report.json").read_text("utf-8"))
    document["models"]["refined"]["streams"]["relative_error"] = float("inf")
    (run / "report.json").write_text(json.dumps(document), "utf-8")
    assert load_report(run).models["refined"].streams.relative_error == float("inf")


def test_the_worst_answers_may_be_negative_numbers(run: Path) -> None:
    worst = WorstAnswer(video="a.mp4", frame=3, answer=-1.5, original=-0.25, truth=-2.0, lost=0.5)
    report = make_report()
    report.models["refined"].streams.worst_answers.append(worst)
    write_report(report, run)
    assert load_report(run).models["refined"].streams.worst_answers[-1] == worst


def test_controls_judged_by_an_error_may_be_above_the_whole(run: Path) -> None:
    beside = controls("error")
    beside.held[-1].high = 1.4
    write_report(make_report(controls=beside), run)
    assert load_report(run).controls == beside


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_a_page_in_place_of_its_run_is_refused(run: Path, name: str) -> None:
    assert "give its run directory or the report.json beside it" in refusal(run / name)


def test_a_version_1_report_from_the_first_release_loads() -> None:
    report = load_report(Path(__file__).parent / "report-v1.json")
    assert report.models["refined"].streams.operations.dense_macs == 7_805_440
    assert report.pictures == []

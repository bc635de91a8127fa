"""Lists and HDF5 files that are broken, or made to take the machine: one sentence, at once, and nothing else opened."""

from __future__ import annotations

import json
import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deltafine.errors import DeltafineError
from deltafine.video import Limits, open_dataset
from deltafine.video.layouts import common
from tests.video.painted import SIZE, numbers_of, paint, write_video


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_video(tmp_path / "data/v.avi", 8)
    return tmp_path / "data"


NINES = "9" * 5000  # more digits than Python turns into a number


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("manifest.csv", "path,target\nv.avi,999999999999\n", "line 2, has the target '999999999999'"),
        ("manifest.csv", f"path,target\nv.avi,{NINES}\n", "line 2, has the target '9+…9+'"),
        ("manifest.csv", f"path,label\nv.avi,{'a' * 200_000}\n", "line 2, is not CSV"),
        ("manifest.csv", f"path\n{'x' * 300}.avi\n", "cannot be read: File name too long"),
        ("manifest.csv", "path,label\n", "layout 'manifest', but no video is in it"),
        ("manifest.jsonl", "[" * 200_000, "line 1, is not JSON"),
        ("manifest.jsonl", '{"path": ""}', "line 1, has no path"),
        ("labels.csv", f"video,frame,label\nv.avi,{NINES},a\n", "line 2, needs a video, a frame number"),
        ("train.csv", "label,youtube_id,time_start,time_end\na,v,1e999,2\n", "line 2, needs numbers for time_start"),
    ],
)
def test_a_list_that_claims_too_much(root: Path, name: str, text: str, message: str) -> None:
    (root / name).write_text(text)
    with pytest.raises(DeltafineError, match=message) as caught:
        open_dataset(root)
    assert len(str(caught.value)) < 1000


def test_a_class_list_with_endless_numbers(root: Path) -> None:
    (root / "classInd.txt").write_text(f"{NINES} a\n")
    (root / "trainlist01.txt").write_text("a/v.avi 1\n")
    with pytest.raises(DeltafineError, match="where '<number> <class>' was expected"):
        open_dataset(root)


def test_a_list_of_names_that_no_file_can_have_does_not_matter(root: Path) -> None:
    (root / "train.csv").write_text(f"/{'x' * 5000}.mp4 0\n../{'y' * 5000}.mp4 1\n")
    (note,) = open_dataset(root).notes
    assert note == "Found train.csv, not used because no video that it names is there."


@pytest.mark.parametrize("content", ["Straße,x\n".encode("latin1"), bytes(range(256)), b"a,b\n" + b"x" * 200_000])
def test_tables_that_are_something_else_do_not_matter(root: Path, content: bytes) -> None:
    (root / "notes.csv").write_bytes(content)
    (root / "labels.csv").write_bytes(content)
    assert open_dataset(root).summary().startswith("unlabelled videos: 1 video")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_no_list_is_a_pipe(root: Path) -> None:
    for name in ("train.csv", "manifest.csv", "labels.csv", "set.h5"):
        os.mkfifo(root / name)
    assert open_dataset(root).summary().startswith("unlabelled videos: 1 video")
    os.mkfifo(root / "trainlist01.txt")
    os.mkfifo(root / "classInd.txt")
    with pytest.raises(DeltafineError, match=r"classInd\.txt is not a regular file"):
        open_dataset(root)


def test_a_list_larger_than_any_list(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "MOST_LIST_BYTES", 10)
    (root / "manifest.csv").write_text("path\nv.avi\n")
    with pytest.raises(DeltafineError, match="has 11 bytes, too many for a list"):
        open_dataset(root)


def test_digits_that_are_no_numbers_in_names(tmp_path: Path) -> None:
    for name in ("1²2.avi", "m².avi", "12.avi", "٣.avi"):
        write_video(tmp_path / name, 2)
    assert len(open_dataset(tmp_path).videos) == 4


WORDS = [
    "file_name",
    "label",
    "v.avi",
    "train",
    "id",
    "actions",
    "0",
    "7",
    "-1",
    "1e9",
    "..",
    "/v.avi",
    "a b",
    '"',
    "é",
    "[",
    "{}",
]
PIECES = st.lists(st.sampled_from([*WORDS, ",", ";", "\t", " ", "\n", "\r\n", "\0"]), max_size=40).map("".join)
JSON = st.recursive(
    st.none() | st.integers() | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=3),
).map(json.dumps)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(
    name=st.sampled_from(
        ["train.csv", "metadata.csv", "val_list.txt", "splits/train.json", "labels.json", "labels.csv"]
    ),
    text=PIECES | JSON,
    also=PIECES,
)
def test_whatever_stands_in_a_list_it_is_read_or_refused_in_one_sentence(
    root: Path, name: str, text: str, also: str
) -> None:
    with TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        shutil.copytree(root, data)
        (data / "splits").mkdir()
        (data / name).write_bytes(text.encode())
        (data / "test.csv").write_bytes(also.encode())
        said = []
        try:
            found = open_dataset(data)
            said += found.notes
            missing = {problem.video for problem in found.scan() if problem.kind == "missing"}
            assert {video.name for video in found.videos} - missing == {"v.avi"}
        except DeltafineError as error:
            said.append(str(error))
        assert all(len(text) < 1000 for text in said)


def write_hdf5(path: Path, **content: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, value in content.items():
            if callable(value):
                value(file)
            else:
                file[name] = value
    return path


FRAMES = np.zeros((2, 3, 8, 8, 3), np.uint8)


def group(name: str) -> Callable[[h5py.File], None]:
    return lambda file: file.create_group(name)


def declared(name: str, shape: tuple[int, ...], kind: str = "u1") -> Callable[[h5py.File], None]:
    """A data set that says that it is huge, and takes no room."""
    return lambda file: file.create_dataset(name, shape, kind, chunks=tuple(min(16, side) for side in shape))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"frames": FRAMES, "labels": [0, 10**12]}, "labels that are no class numbers"),
        ({"frames": FRAMES, "labels": [np.nan, 1.0]}, "labels that are no class numbers"),
        ({"frames": FRAMES, "labels": [b"a", b"b"]}, "labels that are no class numbers"),
        ({"frames": FRAMES, "labels": group("labels")}, "something else in 'labels'"),
        ({"frames": FRAMES, "classes": group("classes")}, "something else in 'classes'"),
        ({"frames": FRAMES, "labels": declared("labels", (10**12,), "i8")}, "something else in 'labels'"),
        ({"frames": group("frames")}, "needs frames"),
        ({"frames": declared("frames", (10**12, 3, 8, 8, 3))}, "claims to hold 1000000000000 videos"),
        ({"frames": np.zeros((0, 3, 8, 8, 3), np.uint8)}, "no video is in it"),
        ({"videos": FRAMES}, "holds neither frames"),
        ({"videos": group("videos")}, "no video is in it"),
    ],
)
def test_hdf5_that_holds_something_else(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    with pytest.raises(DeltafineError, match=message):
        open_dataset(write_hdf5(tmp_path / "set.h5", **content))


def test_hdf5_does_not_lead_to_other_files(tmp_path: Path) -> None:
    other = write_hdf5(tmp_path / "other.h5", frames=np.stack([paint(k) for k in range(3)]))
    raw = tmp_path / "raw"
    raw.write_bytes(bytes(12))

    def linked(link: Any) -> Callable[[h5py.File], None]:
        return lambda file: file.create_group("videos").__setitem__("x", link)

    def virtual(file: h5py.File) -> None:
        layout = h5py.VirtualLayout((3, *SIZE, 3), "u1")
        layout[:] = h5py.VirtualSource(str(other), "frames", (3, *SIZE, 3))
        file.create_group("videos").create_virtual_dataset("x", layout)

    def external(file: h5py.File) -> None:
        file.create_dataset("videos/x", (1, 2, 2, 3), "u1", external=[(str(raw), 0, 12)])

    to_other = linked(h5py.ExternalLink(str(other), "frames"))
    for number, refers in enumerate((to_other, linked(h5py.SoftLink("/nowhere")), virtual, external)):
        path = write_hdf5(tmp_path / f"{number}.h5", videos=refers)
        with pytest.raises(DeltafineError, match="only refers to 'x'"):
            open_dataset(path)
    ((_, stream),) = open_dataset(tmp_path / "0.h5", allow_outside=True, validation=1).streams(None, size=SIZE)
    assert numbers_of(next(stream)[0]) == [0, 1, 2]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (declared("videos/x", (3, 10**5, 10**5, 3)), "has pictures of 100000x100000"),
        (declared("videos/x", (10**9, 8, 8, 3)), "has more than 500000 frames"),
        (
            lambda file: file.create_dataset("videos/x", (9000, 256, 256, 3), "u1", chunks=(9000, 256, 256, 3)),
            "is stored in pieces of more than",
        ),
        (lambda file: file.create_dataset("videos/x", data=FRAMES[0]).attrs.__setitem__("rate", "ten"), "rate ten"),
        (lambda file: file.create_dataset("videos/x", data=FRAMES[0]).attrs.__setitem__("rate", 1e-300), "rate 1e-300"),
    ],
)
def test_an_hdf5_video_beyond_the_limits(tmp_path: Path, make: Callable[[h5py.File], None], message: str) -> None:
    (problem,) = open_dataset(write_hdf5(tmp_path / "set.h5", videos=make)).scan()
    assert message in problem.reason


def test_an_hdf5_number_that_no_type_holds(tmp_path: Path) -> None:
    """Of a file with a changed byte; the library raises ``ValueError`` where it reads the type."""
    odd = h5py.h5t.IEEE_F64LE.copy()
    odd.set_ebias(1 << 20)
    for attribute, message in ((b"rate", "cannot be read as HDF5"), (b"label", "is not a sound HDF5 file")):
        path = tmp_path / f"{attribute.decode()}.h5"
        with h5py.File(path, "w") as file:
            video = file.create_dataset("videos/one", data=np.zeros((2, 8, 8, 3), np.uint8))
            h5py.h5a.create(video.id, attribute, odd, h5py.h5s.create(h5py.h5s.SCALAR))
        with pytest.raises(DeltafineError, match=message):
            open_dataset(path).check(0)


def test_an_hdf5_video_may_not_take_for_ever(tmp_path: Path) -> None:
    path = write_hdf5(tmp_path / "set.h5", videos=declared("videos/x", (400, 8, 8, 3)))
    (problem,) = open_dataset(path, limits=Limits(seconds=1e-9)).scan()
    assert problem.reason == "takes longer than 1e-09 seconds of processor time to decode"


def test_large_hdf5_pictures_are_read_a_few_at_a_time(tmp_path: Path) -> None:
    """64 of these at once would take 400 MB."""
    path = write_hdf5(
        tmp_path / "set.h5", videos=lambda file: file.create_dataset("videos/x", (64, 1080, 1920, 3), "u1")
    )
    tracemalloc.start()
    try:
        data = open_dataset(path, validation=1)
        (batch,) = data.clips(None, size=(9, 16), frames=64)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert batch.frames.shape == (1, 64, 9, 16, 3)
    assert peak < 80e6

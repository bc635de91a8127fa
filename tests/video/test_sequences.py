"""Of the images in and beside a folder, the frames become the video; the others are said, and not used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deltafine.errors import DeltafineError
from deltafine.video import Dataset, open_dataset
from deltafine.video.sequences import choose_frames
from tests.video.painted import SIZE, numbers_of, paint, write_video
from tests.video.test_exact_frames import write_image

MASK = np.zeros((*SIZE, 3), np.uint8)


def write_frames(folder: Path, pattern: str = "{:05d}.jpg", count: int = 5, first: int = 0) -> None:
    for number in range(first, first + count):
        write_image(folder / pattern.format(number), paint(number))


def write_masks(folder: Path, pattern: str = "{:05d}.png", count: int = 5, size: tuple[int, int] = SIZE) -> None:
    for number in range(count):
        write_image(folder / pattern.format(number), np.zeros((*size, 3), np.uint8))


def shown(data: Dataset) -> dict[str, list[int]]:
    """The numbers painted into the frames of every video."""
    return {
        video.name: [number for frames, _ in stream for number in numbers_of(frames)]
        for video, stream in data.streams(None, size=SIZE)
    }


def test_the_masks_of_davis_are_no_videos(tmp_path: Path) -> None:
    for name in ("bear", "swan"):
        write_frames(tmp_path / f"JPEGImages/480p/{name}")
        write_masks(tmp_path / f"Annotations/480p/{name}")
    (tmp_path / "ImageSets/480p").mkdir(parents=True)
    (tmp_path / "ImageSets/480p/train.txt").write_text(
        "/JPEGImages/480p/bear/00000.jpg /Annotations/480p/bear/00000.png"
    )
    data = open_dataset(tmp_path)
    assert shown(data) == {f"JPEGImages/480p/{name}": [0, 1, 2, 3, 4] for name in ("bear", "swan")}
    assert data.classes == ()
    said = "Found Annotations with 2 folders of images, not used because these are annotations of JPEGImages."
    assert said in data.notes


def test_masks_of_every_fifth_frame_are_masks_as_well(tmp_path: Path) -> None:
    write_frames(tmp_path / "JPEGImages/bear", count=11)
    for number in (0, 5, 10):
        write_image(tmp_path / f"Annotations/bear/{number:05d}.png", MASK)
    assert list(shown(open_dataset(tmp_path))) == ["JPEGImages/bear"]


def test_the_ground_truth_of_cdnet_is_no_video(tmp_path: Path) -> None:
    scene = tmp_path / "highway"
    write_frames(scene / "input", "in{:06d}.jpg")
    write_masks(scene / "groundtruth", "gt{:06d}.png")
    (scene / "ROI.bmp").write_bytes(b"BM")
    write_image(scene / "ROI.jpg", MASK)
    (scene / "temporalROI.txt").write_text("3 5")
    data = open_dataset(scene)
    assert shown(data) == {"input": [0, 1, 2, 3, 4]}
    assert "Found groundtruth, not used because these are ground truth of input." in data.notes


def test_scenes_of_cdnet_keep_one_video_each(tmp_path: Path) -> None:
    for scene in ("highway", "office"):
        write_frames(tmp_path / scene / "input", "in{:06d}.jpg")
        write_masks(tmp_path / scene / "groundtruth", "gt{:06d}.png")
    assert list(shown(open_dataset(tmp_path))) == ["highway/input", "office/input"]


def test_masks_can_be_used_where_they_are_asked_for(tmp_path: Path) -> None:
    write_frames(tmp_path / "JPEGImages/bear")
    write_masks(tmp_path / "Annotations/bear")
    assert list(shown(open_dataset(tmp_path / "Annotations"))) == ["bear"]
    assert list(shown(open_dataset(tmp_path / "Annotations/bear"))) == ["bear"]


def test_classes_called_like_masks_are_classes(tmp_path: Path) -> None:
    for name in ("mask", "no_mask"):
        write_frames(tmp_path / name / "v0")
        write_frames(tmp_path / name / "v1", first=5)
    data = open_dataset(tmp_path)
    assert data.classes == ("mask", "no_mask")
    assert len(data.videos) == 4
    assert data.notes == ()


def test_optical_flow_beside_frames_makes_no_video_longer(tmp_path: Path) -> None:
    clip = tmp_path / "walk/v0"
    write_frames(clip, "img_{:05d}.jpg")
    write_masks(clip, "flow_x_{:05d}.jpg", 4)
    write_masks(clip, "flow_y_{:05d}.jpg", 4)
    data = open_dataset(tmp_path)
    assert shown(data) == {"walk/v0": [0, 1, 2, 3, 4]}
    assert data.notes == tuple(
        f"Found 4 images flow_{axis}_*.jpg, not used because they are optical flow beside the frames img_*.jpg."
        for axis in "xy"
    )
    assert shown(open_dataset(clip)) == {"v0": [0, 1, 2, 3, 4]}


@pytest.mark.parametrize("pattern", ["{:05d}_thumb.jpg", "thumb_{:05d}.jpg", "a{:05d}.jpg"])
def test_thumbnails_beside_frames_are_no_frames(tmp_path: Path, pattern: str) -> None:
    """By their name, or else by their size."""
    write_frames(tmp_path / "clip")
    write_masks(tmp_path / "clip", pattern, size=(16, 32))
    data = open_dataset(tmp_path / "clip")
    assert shown(data) == {"clip": [0, 1, 2, 3, 4]}
    (note,) = data.notes
    assert "not used" in note


@pytest.mark.parametrize("name", ["thumbnails", "thumbs", ".thumbnails", "@eaDir"])
def test_folders_of_thumbnails_are_no_videos(tmp_path: Path, name: str) -> None:
    write_video(tmp_path / "v0.avi", 5)
    write_masks(tmp_path / name)
    assert list(shown(open_dataset(tmp_path))) == ["v0.avi"]


def test_masks_called_like_their_frames_are_no_frames(tmp_path: Path) -> None:
    write_frames(tmp_path / "clip")
    write_masks(tmp_path / "clip")
    data = open_dataset(tmp_path / "clip")
    assert shown(data) == {"clip": [0, 1, 2, 3, 4]}
    assert data.notes == ("Found 5 images *.png, not used because they are called like the frames *.jpg.",)


def test_a_picture_without_a_number_is_no_frame(tmp_path: Path) -> None:
    write_frames(tmp_path / "clip")
    write_image(tmp_path / "clip/cover.jpg", MASK)
    assert shown(open_dataset(tmp_path / "clip")) == {"clip": [0, 1, 2, 3, 4]}


@pytest.mark.parametrize(
    ("names", "frames"),
    [
        (["b.jpg", "a.jpg"], ["a.jpg", "b.jpg"]),
        (["10-59-58.jpg", "11-00-00.jpg", "10-59-59.jpg"], ["10-59-58.jpg", "10-59-59.jpg", "11-00-00.jpg"]),
        ([f"{digest}.jpg" for digest in ("a1f", "b22c", "c3", "9d", "0e1", "f0f", "aa7", "4b4", "d5e", "ee")], 10),
        (["mask_1.png", "mask_2.png"], ["mask_1.png", "mask_2.png"]),
        (["img_1.jpg", "img_2.jpg", "img_2_mask.jpg"], ["img_1.jpg", "img_2.jpg"]),
        (["f1.png", "f2.jpg", "f3.png"], ["f1.png", "f2.jpg", "f3.png"]),
        (["img1.jpg"], ["img1.jpg"]),
        ([], []),
    ],
)
def test_frames_are_the_series_that_most_images_belong_to(names: list[str], frames: list[str] | int) -> None:
    chosen = choose_frames(names).frames
    assert (len(chosen) if isinstance(frames, int) else chosen) == frames


def test_what_is_no_frame_is_not_in_the_fingerprint(tmp_path: Path) -> None:
    write_frames(tmp_path / "clip", "img_{:05d}.jpg")
    before = open_dataset(tmp_path / "clip").fingerprint()
    write_masks(tmp_path / "clip", "flow_x_{:05d}.jpg", 4)
    assert open_dataset(tmp_path / "clip").fingerprint() == before


def test_a_folder_with_nothing_but_masks_beside_is_said_to_hold_no_video(tmp_path: Path) -> None:
    write_image(tmp_path / "a/1.jpg", MASK)
    with pytest.raises(DeltafineError, match="No videos were found"):
        open_dataset(tmp_path)

"""Labels that are numbers, such as an angle for every frame, are never taken for names of classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deltafine.video import open_dataset
from deltafine.video.labels import label_of, numbers_of, values_of
from tests.video.painted import SIZE, write_video

ANGLES = (0.5, -1.25, 10.0, 2.0, -3.5, 0.25, 7.5, 1.0)


@pytest.fixture
def angles(tmp_path: Path) -> Path:
    rows = ["video,frame,label,split"]
    for name, split in (("a", "train"), ("b", "validation")):
        write_video(tmp_path / f"{name}.avi", 8, first=8 * (name == "b"))
        rows += [f"{name}.avi,{frame},{angle},{split}" for frame, angle in enumerate(ANGLES)]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    return tmp_path


@pytest.mark.parametrize(
    ("classes", "values"),
    [
        (("-0.5", "1"), (-0.5, 1.0)),
        (("1e3", "2"), (1000.0, 2.0)),
        (("0", "1", "10"), ()),  # class numbers, as far as one can see
        (("0.5", "walk"), ()),
        ((), ()),
    ],
)
def test_labels_are_numbers_if_one_of_them_is_not_0_1_2(classes: tuple[str, ...], values: tuple[float, ...]) -> None:
    assert values_of(classes) == values


def test_whole_numbers_are_numbers_where_numbers_are_asked_for() -> None:
    assert numbers_of(("0", "10")) == (0.0, 10.0)


def test_a_data_set_of_angles_has_no_classes_to_speak_of(angles: Path) -> None:
    data = open_dataset(angles)
    assert data.summary() == "streams with frame labels: 2 videos, numbers as labels, 1 train / 1 validation"
    assert sorted(data.values) == sorted(ANGLES)


def test_a_clip_has_a_number_for_every_frame_and_the_middle_one_for_itself(angles: Path) -> None:
    data = open_dataset(angles)
    (batch,) = data.clips("train", size=SIZE, frames=4)
    values = np.array(data.values)
    np.testing.assert_array_equal(values[batch.targets], [ANGLES[:4], ANGLES[4:]])
    np.testing.assert_array_equal(values[batch.labels], [0.5, 0.25])  # the second of four in order


def test_the_label_of_a_window_is_the_commonest_name_or_the_middle_number() -> None:
    labels = np.array([2, 0, 0, 1, -1])
    assert label_of(labels) == 0
    assert label_of(labels, (5.0, -1.0, 9.0)) == 0
    assert label_of(np.array([1, 2, 0]), (9.0, -1.0, 5.0)) == 2
    assert label_of(np.array([-1]), (1.0,)) == -1

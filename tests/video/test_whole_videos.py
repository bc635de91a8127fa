"""Pieces of one file that follow each other are measured as one stream."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deltafine import measure, open_dataset
from deltafine.model import DeltaSettings, find_activations, insert_deltas, select_sites
from deltafine.video.whole_videos import joined
from tests.measurement.test_measure import classifier
from tests.video.painted import write_video
from tests.video.test_list_layouts import write_manifest
from tests.video.test_segments import damage

LONG = "long.mp4"


def pieces_of(folder: Path, *pieces: tuple[Any, ...], unit: str = "_frame") -> Any:
    """A data set of pieces (first, end, label) of one file of 60 frames, all of them to validate on."""
    if not (folder / LONG).exists():
        write_video(folder / LONG, 60)
    rows = [
        {"path": LONG, f"start{unit}": first, f"end{unit}": end, "label": label, "split": "validation"}
        for first, end, label in pieces
    ]
    write_manifest(folder, rows)
    return open_dataset(folder)


def streams_of(data: Any) -> dict[str, tuple[int, list[int]]]:
    """Frames and labels of each stream, whole."""
    found = {}
    for video, pieces in data.streams("validation", size=(24, 32), chunk=7, whole=True):
        shown = [(len(frames), labels.tolist()) for frames, labels in pieces]
        found[video.name] = (sum(count for count, _ in shown), [label for _, labels in shown for label in labels])
    return found


def test_pieces_that_follow_each_other_are_one_stream_with_a_label_per_frame_where_these_differ(tmp_path: Path) -> None:
    data = pieces_of(tmp_path, (30, 40, "b"), (0, 10, "a"), (10, 20, "b"), (45, 60, "a"))
    assert streams_of(data) == {
        f"{LONG} [frames 30-39]": (10, [1] * 10),
        f"{LONG} [frames 0-19]": (20, [0] * 10 + [1] * 10),
        f"{LONG} [frames 45-59]": (15, [0] * 15),
    }
    assert len(data.videos) == 4  # clips are cut from the pieces as before


def test_pieces_in_seconds_join_too_and_the_whole_of_one_label_keeps_it(tmp_path: Path) -> None:
    data = pieces_of(tmp_path, (0, 0.8, "a"), (0.8, 1.6, "a"), (1.6, 2, "b"), unit="")
    pieces = list(data.videos)
    (whole,) = joined(pieces[:2], data.examination)
    assert (whole.name, whole.label, whole.frame_labels) == (f"{LONG} [0-1.6 s]", pieces[0].label, None)
    expected = np.concatenate([data.examination.frame_numbers(piece) for piece in pieces[:2]])
    assert data.examination.frame_numbers(whole).tolist() == expected.tolist()
    assert list(streams_of(data)) == [f"{LONG} [0-2 s]"]


@pytest.mark.parametrize(
    "pieces",
    [
        [(0, 10, "a"), (11, 20, "a")],  # a gap
        [(0, 10, "a"), (9, 20, "a")],  # they overlap
        [(0, 10, "a"), (10, 20, "a"), (10, 30, "a")],  # either may be the continuation
        [(0, 10, "a"), (5, 10, "a"), (10, 20, "a")],
    ],
)
def test_pieces_are_left_as_they_are_where_it_is_not_known_that_they_follow(tmp_path: Path, pieces: Any) -> None:
    assert len(streams_of(pieces_of(tmp_path, *pieces))) == len(pieces)


def test_figures_of_pieces_that_follow_each_other_are_those_of_the_whole(tmp_path: Path) -> None:
    model = classifier()
    coarse = DeltaSettings(initial_threshold={"input": 30.0, "conv": 0.1})
    models = {"original": model, "refined": insert_deltas(model, select_sites(find_activations(model)), coarse)}
    models["original"] = insert_deltas(model, [])
    (tmp_path / "cut").mkdir()
    (tmp_path / "whole").mkdir()
    cut = pieces_of(tmp_path / "cut", (0, 12, "a"), (12, 24, "a"), (24, 40, "a"), (41, 45, "b"))
    whole = pieces_of(tmp_path / "whole", (0, 40, "a"), (41, 45, "b"))
    found, expected = (measure(models, data, frames=4)["refined"].streams for data in (cut, whole))
    assert found.videos == 2
    assert found == expected


def test_pieces_of_a_damaged_file_stay_apart(tmp_path: Path) -> None:
    damage(write_video(tmp_path / LONG, 200, codec="libx264", group=20))
    data = pieces_of(tmp_path, (0, 0.8, "a"), (0.8, 2, "b"), (6, 8, "a"), unit="")
    found = streams_of(data)
    assert found.keys() == {video.name for video in data.videos}
    assert found[f"{LONG} [0.8-2 s]"] == (30, [1] * 30)

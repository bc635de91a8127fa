"""Files are there whole or not at all, whatever goes wrong while they are written."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from deltafine.errors import DeltafineError
from deltafine.storage import hdf5
from deltafine.storage.files import (
    ABANDONED_SECONDS,
    CannotWrite,
    make_folder,
    read_small,
    remove_unfinished,
    write_atomically,
)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    yield from mounted(tmp_path / "disk", "size=1m")


def mounted(place: Path, options: str) -> Iterator[Path]:
    """A file system in memory, for as long as a test lasts."""
    place.mkdir()
    try:
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", place], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def entries(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_bytes_and_functions_make_files_that_are_readable_as_others_are(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("x", "utf-8")
    write_atomically(tmp_path / "a.json", b"new")
    write_atomically(tmp_path / "b.json", lambda path: path.write_bytes(path.suffix.encode()))
    assert (tmp_path / "a.json").read_bytes() == b"new"
    assert (tmp_path / "b.json").read_bytes() == b".json"
    assert len({(tmp_path / name).stat().st_mode for name in ("other", "a.json", "b.json")}) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path, error: type[BaseException]) -> None:
    file = tmp_path / "history.csv"
    write_atomically(file, b"old")

    def fail(path: Path) -> None:
        path.write_text("half", "utf-8")
        raise error

    with pytest.raises(error):
        write_atomically(file, fail)
    assert file.read_bytes() == b"old"
    assert entries(tmp_path) == ["history.csv"]


def test_a_full_disk_is_one_sentence_and_leaves_the_old_file(small_disk: Path) -> None:
    file = small_disk / "report.json"
    write_atomically(file, b"old")
    with pytest.raises(CannotWrite, match=r"report\.json cannot be written: no space is left there; make room"):
        write_atomically(file, bytes(2 << 20))
    assert file.read_bytes() == b"old"
    assert entries(small_disk) == ["report.json"]


def test_hdf5_on_a_disk_that_fills_is_an_error_wherever_it_fills(small_disk: Path) -> None:
    draw = random.Random(0)
    full = 0
    for _ in range(60):
        values, sets = draw.choice([1, 100, 1000, 20_000]), draw.choice([1, 10, 100, 500])

        def fill(file: hdf5.WrittenFile, values: int = values, sets: int = sets) -> None:
            file.attrs["facts"] = "x" * draw.randrange(100_000)
            for number in range(sets):
                file.create_dataset(f"{number:03d}", data=np.full(values, number))

        try:
            hdf5.write(small_disk / "last.h5", fill)
        except CannotWrite:
            full += 1
        else:
            with h5py.File(small_disk / "last.h5") as file:
                assert [int(file[name][0]) for name in sorted(file)] == list(range(sets))
        assert entries(small_disk) in ([], ["last.h5"])
    assert 10 < full < 50


def test_hdf5_can_stop_as_soon_as_the_disk_is_full(small_disk: Path) -> None:
    written = 0

    def fill(file: hdf5.WrittenFile) -> None:
        nonlocal written
        for number in range(100):
            file.create_dataset(str(number), data=np.zeros(100_000, np.uint8))
            file.check_room()
            written += 1

    with pytest.raises(CannotWrite, match="no space is left there"):
        hdf5.write(small_disk / "frames.h5", fill)
    assert 5 < written < 15
    assert entries(small_disk) == []


def test_a_place_that_may_not_be_written_is_one_sentence(tmp_path: Path) -> None:
    for place in mounted(tmp_path / "disk", "ro,size=1m"):
        with pytest.raises(CannotWrite, match="cannot be written: Read-only file system"):
            write_atomically(place / "report.json", b"new")
        with pytest.raises(CannotWrite, match="cannot be made: Read-only file system"):
            make_folder(place / "run" / "checkpoints")


def test_only_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    def die(path: Path) -> None:
        path.write_bytes(b"half")
        os.link(path, tmp_path / f"{path.name[:-3]}.kept.h5")
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 (any will do)
        write_atomically(tmp_path / "last.h5", die)
    assert len(entries(tmp_path)) == 1
    (tmp_path / ".hidden").touch()
    (tmp_path / "writing.h5").touch()
    remove_unfinished(tmp_path)
    assert entries(tmp_path) == [".hidden", "writing.h5"]
    remove_unfinished(tmp_path / "nowhere")


def test_what_earlier_versions_left_is_known_too_and_what_others_call_alike_is_not(tmp_path: Path) -> None:
    left = (
        ".last.writing.h5",
        ".frames-0a1b.h5.4c5d.part",
        ".plan.partial.npz",
        ".plan.partial.json",
        ".marker.1a2b3c4d.writing",
    )
    others = (".film.part", ".partial", ".writing", "frames-1.part", ".handwriting.h5", ".rewriting")
    for name in (*left, *others):
        (tmp_path / name).touch()
    remove_unfinished(tmp_path)
    assert entries(tmp_path) == sorted(others)


def test_where_others_write_only_old_leftovers_are_removed(tmp_path: Path) -> None:
    for name, age in (("old", 100_000), ("new", 10)):
        file = tmp_path / f".{name}.1a2b3c4d.writing.h5"
        file.touch()
        os.utime(file, (time.time() - age, time.time() - age))
    remove_unfinished(tmp_path, older_than=ABANDONED_SECONDS)
    assert entries(tmp_path) == [".new.1a2b3c4d.writing.h5"]


def test_large_files_and_pipes_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(101))
    assert read_small(tmp_path / "large", 101) == bytes(101)
    with pytest.raises(DeltafineError, match="is larger than"):
        read_small(tmp_path / "large", 100)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="is not a regular file"):
        read_small(tmp_path / "pipe", 100)

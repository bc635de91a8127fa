"""A dataset: what videos there are, what they are labelled, what is wrong with them, and ways to read them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from deltafine.errors import DeltafineError
from deltafine.video.augmentation import Augmentation
from deltafine.video.caching import CacheSettings, open_or_build
from deltafine.video.catalogue import SPLITS, Found, Problem, Split, Video
from deltafine.video.clips import ClipSettings, ClipSource
from deltafine.video.continuity import Continuity
from deltafine.video.examination import Examination, count_of
from deltafine.video.frames import FrameIndex, Limits, UnreadableVideo
from deltafine.video.further_values import FurtherValues
from deltafine.video.labels import values_of
from deltafine.video.layouts.common import some
from deltafine.video.meter import Within
from deltafine.video.reading import CachedFrames, DecodedFrames, Reader
from deltafine.video.streams import Stream, iterate_streams
from deltafine.video.whole_videos import joined


def _labelled_by_row(video: Video, first: int) -> Video:
    """The row of each frame as its label, the rows being numbered from ``first`` on."""
    frames = video.frame_rows
    return replace(
        video,
        label=None if video.row is None else video.row + first,
        frame_labels=None if frames is None else np.where(frames < 0, -1, frames + first),
    )


class Dataset:
    """The videos of one path, and ways to read them. Made by ``open_dataset``.

    Attributes:
        path: Where the data lies.
        layout: How it lies there, for the user.
        classes: Class names in the order of the labels; () when unlabelled.
        values: What the labels stand for where they are numbers, such as angles; () where they name classes.
        columns: What a list says of frames beside their labels; None where it says nothing.
        further: The numbers that frames are given with, below their pixels, to a model with further inputs; None for
            pixels alone.
        outputs: Those of a model with several that the labels are for; () where a label is one class or number.
        videos: All videos, bad ones included.
        examination: What is known of each video.
        notes: What the user should know of how the data was read, such as lists that are not used.
        cache: Where decoded frames are kept; None to decode them each time.
    """

    def __init__(self, path: Path, found: Found, limits: Limits) -> None:
        self.path = path
        self.layout = found.layout
        self.classes = found.classes
        self.values = values_of(found.classes) if found.values is None else found.values
        self.columns, self.outputs = found.columns, found.outputs
        self.further: FurtherValues | None = None
        self.videos: tuple[Video, ...] = tuple(found.videos)
        self.notes: tuple[str, ...] = tuple(found.notes)
        self.examination = Examination(limits, found.problems, self.videos)
        self.cache: CacheSettings | None = None
        self._readers: dict[tuple[Split | None, tuple[int, int], int], Reader] = {}
        self._whole: dict[tuple[tuple[int, int], int], Reader] = {}
        self._continuities: dict[tuple[Split | None, tuple[int, int], int, float | None], Continuity] = {}

    @property
    def problems(self) -> list[Problem]:
        """What was found wrong so far; complete for a split once its clips were asked for, or after ``scan``."""
        return self.examination.problems

    def read_labels_as(self, values: tuple[float, ...]) -> None:
        """Have the labels stand for these numbers, one for each class: those that the model's outputs are in."""
        self.values = values

    def label_outputs(self, outputs: tuple[str, ...], first: int, count: int) -> None:
        """Have the rows of ``columns`` be the labels: they are those of a model's outputs.

        Args:
            outputs: Those that have a column here.
            first: Number of the first row; before it come those of other data sets.
            count: Rows in all.
        """
        columns = self.columns
        if columns is None:
            self.videos = tuple(replace(video, label=None, frame_labels=None) for video in self.videos)
            self.classes, self.values = (), ()
            return
        self.leave_out_note(columns.note)
        self.videos = tuple(_labelled_by_row(video, first) for video in self.videos)
        self.classes = (*(str(row) for row in range(first)), *(",".join(row) for row in columns.rows))
        self.values = tuple(map(float, range(count)))
        self.outputs = outputs

    def give_further(self, further: FurtherValues | None) -> None:
        """Give frames with these numbers from now on, see ``further_values``."""
        self.further = further

    def require_further(self, split: Split | None, fps: float | None) -> None:
        """Refuse videos with frames that have no further values, if they are given with some.

        Args:
            split: Of which videos; they were read through.
            fps: At which frames are taken; None for all.

        Raises:
            DeltafineError: Naming the first such frame.
        """
        if self.further is None:
            return
        for video in self.select(split):
            if self.index(video) is not None:
                self.further.at(video, self.examination.frame_numbers(video, fps))

    def leave_out_note(self, note: str) -> None:
        """Forget what the user need not know here."""
        self.notes = tuple(one for one in self.notes if one != note)

    def select(self, split: Split | None) -> tuple[Video, ...]:
        """The videos of a split, or all of them for None."""
        if split is not None and split not in SPLITS:
            raise DeltafineError(f"There is no split '{split}': choose train, validation or test.")
        return tuple(video for video in self.videos if split in (None, video.split))

    def summary(self) -> str:
        """One line, such as "UCF101 layout, split 1: 366 videos, 3 classes, 250 train / 116 validation"."""
        classes = count_of(len(self.classes), "class", "classes") if self.classes else "no labels"
        if self.outputs:
            named = some([f"'{name}'" for name in self.outputs], most=8)
            classes = f"labels of {named}"
        elif self.values:
            classes = "numbers as labels"
        splits = [split for split in SPLITS if split != "test" or self.select(split)]
        return (
            f"{self.layout}: {count_of(len(self.videos), 'video')}, {classes}, "
            f"{' / '.join(f'{len(self.select(split))} {split}' for split in splits)}"
        )

    def fingerprint(self, split: Split | None = None) -> str:
        """Hex digest of classes, names, labels, splits, further values and the bytes of all files."""
        videos = self.select(split)
        digest = self.examination.fingerprint(videos, self.classes)
        if self.further is None:
            return digest
        rows = [(video.row, None if video.frame_rows is None else video.frame_rows.tolist()) for video in videos]
        whole = repr((digest, self.further.digest, None if self.further.constant else rows))
        return hashlib.blake2b(whole.encode(), digest_size=16).hexdigest()

    def use_cache(
        self,
        directory: Path | str,
        *,
        most_bytes: int | None = None,
        announce: Callable[[str], None] = lambda message: None,
        progress: Callable[[int, int], None] = lambda done, total: None,
        within: Within = lambda done, total, words: None,
    ) -> None:
        """Keep decoded frames in a directory from now on: one file for each split and size.

        Args:
            directory: Made when needed. Several processes may use it at the same time.
            most_bytes: Larger caches are not made; None for what the disk has room for.
            announce: Told in one sentence what will be written, or why nothing is.
            progress: Called with the number of videos decoded and of all.
            within: Called with these and, in words, where in a long video it is; from any thread.
        """
        self.cache = CacheSettings(Path(directory), most_bytes, announce, progress, within)
        self._readers.clear()

    def keep_whole(self, *, size: tuple[int, int], channels: int = 3, workers: int = 2) -> None:
        """Read through all videos at once, with their frames into one file of the cache, whatever split they are of.

        Args:
            size, channels: As for ``clips``.
            workers: Threads that read.
        """
        reader = self._reader(None, size, channels, workers)
        if isinstance(reader, CachedFrames):
            self._whole[size, channels] = reader
        else:
            self.cache = None  # there is no room, which was said

    def go_on_from(self, other: Dataset) -> None:
        """Know what another data set of the same files knows, and use its cache."""
        self.examination.adopt(other.examination.indexes)
        self.cache, self._whole = other.cache, dict(other._whole)

    def scan(
        self,
        split: Split | None = None,
        *,
        workers: int = 2,
        progress: Callable[[int, int], None] = lambda done, total: None,
        within: Within = lambda done, total, words: None,
    ) -> list[Problem]:
        """Read through every video of a split (all for None) that was not read yet, and note what is bad.

        Args:
            split: Which videos.
            workers: Number of threads.
            progress: Called with the number of videos done and of all.
            within: Called with these and, in words, where in a long video it is; from any thread.

        Returns:
            All problems known so far.
        """
        self.examination.scan(self.select(split), workers, progress, within)
        return self.problems

    def check(
        self,
        max_bad_videos: int = 0,
        *,
        split: Split | None = None,
        workers: int = 2,
        progress: Callable[[int, int], None] = lambda done, total: None,
        within: Within = lambda done, total, words: None,
    ) -> None:
        """``scan`` a split, and raise when more than ``max_bad_videos`` of its videos are unreadable."""
        self._refuse_bad(max_bad_videos, split)  # what is known already, as of missing files, need not be waited for
        self.scan(split, workers=workers, progress=progress, within=within)
        self._refuse_bad(max_bad_videos, split)

    def _refuse_bad(self, max_bad_videos: int, split: Split | None) -> None:
        names = {video.name for video in self.select(split)}
        bad = [p for p in self.problems if p.kind == "unreadable" and p.video in names]
        if len(bad) > max_bad_videos:
            raise DeltafineError(
                f"{len(bad)} of {len(names)} videos in {self.path} cannot be used, more than the "
                f"{max_bad_videos} allowed ({some(f'{p.video} {p.reason}' for p in bad)}): "
                "mend or remove them, or allow more bad videos."
            )

    def clips(
        self,
        split: Split | None,
        *,
        size: tuple[int, int],
        frames: int = 8,
        channels: int = 3,
        frame_stride: int = 1,
        clip_stride: int | None = None,
        clips_per_video: int | None = None,
        sampling: str = "uniform",
        fps: float | None = None,
        augmentation: Augmentation | None = None,
        batch: int = 16,
        shuffle: bool = False,
        continued: bool = False,
        seed: int = 0,
        epoch: int = 0,
        passes: int = 1,
        workers: int = 2,
        start_batch: int = 0,
        shard: tuple[int, int] | None = None,
        batches: tuple[int, int] = (0, 1),
    ) -> ClipSource:
        """The clips of a split in batches, the same for the same arguments however many threads decode.

        Args:
            split: ``"train"``, ``"validation"``, ``"test"``, or None for all videos.
            size: Height and width of the frames in pixels; pictures are stretched to it.
            frames: Frames in a clip (T).
            channels: 3 for RGB, 1 for grey.
            frame_stride: Step in the video from one frame of a clip to the next.
            clip_stride: Step in the video from one clip to the next; None for clips that do not overlap.
                One more clip ends on the video's last frame where the step does not lead there.
            clips_per_video: Take so many clips of every video instead.
            sampling: ``"uniform"`` spreads these evenly, ``"random"`` draws them again in every epoch.
            fps: Take frames at this rate, by their times, before any stride.
            augmentation: Vary every clip, differently in every epoch; for training.
            batch: Clips in a batch; the last batch holds what is left.
            shuffle: Mix the clips of all videos, differently in every epoch.
            continued: Let each clip of a batch go on where the one in its place in the batch before ended, or in
                a video that begins much like that one ended (see ``Continuity``), from other places in every epoch.
                All batches are full: some clips come twice.
            seed, epoch: Draw the order, the random clips and the augmentation.
            passes: Go through the clips so many times, each time as another epoch would, from epoch 1 on.
            workers: Decoding threads.
            start_batch: Leave out the batches before this one, without decoding them.
            shard: (which, of how many): give and decode this shard of every batch only, for one of several machines.
            batches: (which, every): give and decode this batch, and from there on every so many-th.

        Raises:
            DeltafineError: An argument makes no sense, the split is empty, or none of its videos can be used.
        """
        settings = ClipSettings(
            frames=frames,
            frame_stride=frame_stride,
            clip_stride=clip_stride,
            clips_per_video=clips_per_video,
            sampling=sampling,
            fps=fps,
            augmentation=augmentation,
            batch=batch,
            shuffle=shuffle,
            continued=continued,
            seed=seed,
            epoch=epoch,
            passes=passes,
        )
        reader = self._reader(split, size, channels, workers)
        numbers = [number for number, video in enumerate(self.videos) if split in (None, video.split)]
        source = ClipSource(
            self.examination,
            reader,
            self.videos,
            numbers,
            settings,
            workers=workers,
            start_batch=start_batch,
            shard=shard,
            batches=batches,
            chain=self._continuity(reader, split, fps, workers).chain if continued else None,
            values=self.values,
            in_rows=bool(self.outputs),
            further=self.further,
        )
        if not source.clips:
            raise DeltafineError(self._why_nothing(split))
        return source

    def streams(
        self,
        split: Split | None,
        *,
        size: tuple[int, int],
        channels: int = 3,
        chunk: int = 32,
        frame_stride: int = 1,
        fps: float | None = None,
        seed: int | None = None,
        continued: bool = False,
        whole: bool = False,
        workers: int = 2,
    ) -> Iterator[tuple[Video, Stream]]:
        """Every video of a split as a whole, from its first frame to its last.

        Args:
            split: ``"train"``, ``"validation"``, ``"test"``, or None for all videos.
            size: Height and width of the frames in pixels.
            channels: 3 for RGB, 1 for grey.
            chunk: Frames that are given at a time; the last chunk holds what is left.
            frame_stride: Take every so many-th frame.
            fps: Take frames at this rate, by their times, before any stride.
            seed: Draws the order of the videos; None keeps that of ``videos``.
            continued: Order them so that each begins much like the one before ends (see ``Continuity``).
            whole: Pieces of one file that follow each other are one video (see ``joined``).
            workers: Threads that read through the videos beforehand.

        Yields:
            A video and an iterator over (frames (t, H, W, C) uint8, labels (t,) int64), the frames with the lines of
            their further values if they are given with some. The labels are None
            for unlabelled videos, and the video's own label, repeated, where the data does not label frames.

        Raises:
            DeltafineError: The split is empty, or none of its videos can be used.
        """
        if chunk < 1 or frame_stride < 1:
            raise DeltafineError("chunk and frame_stride must be at least 1.")
        reader = self._reader(split, size, channels, workers)
        videos = [video for video in self.select(split) if self.index(video) is not None]
        if not videos:
            raise DeltafineError(self._why_nothing(split))
        if whole:
            videos = joined(videos, self.examination)
        if continued:
            videos = [self.videos[number] for number in self._continuity(reader, split, fps, workers).chain]
        elif seed is not None:
            videos = [videos[place] for place in np.random.default_rng(seed).permutation(len(videos))]
        return iterate_streams(self.examination, reader, videos, chunk, frame_stride, fps, self.further)

    def frame(
        self, video: Video, number: int, *, size: tuple[int, int], channels: int = 3, fps: float | None = None
    ) -> np.ndarray | None:
        """One frame (H, W, C) uint8 of a video's stream, the first is 0; None if it cannot be read any more.

        Args:
            video: One of ``videos``.
            number: Of the frames that are taken at this rate.
            size, channels, fps: As for ``streams``.
        """
        reader = self._reader(video.split, size, channels, 1)
        out = np.empty((1, *size, channels), np.uint8)
        try:
            reader.read(video, self.examination.frame_numbers(video, fps)[number : number + 1], out)
        except UnreadableVideo as error:
            self.examination.note_problem(video, str(error))
            return None
        return out[0]

    def index(self, video: Video) -> FrameIndex | None:
        """What reading through a video has shown: frames, times, size, codec; None when it is bad."""
        return self.examination.index(video)

    def frame_labels(self, video: Video) -> np.ndarray:
        """(frames,) int64 labels of all frames of a video's file, -1 for those without."""
        return self.examination.frame_labels(video)

    def _continuity(self, reader: Reader, split: Split | None, fps: float | None, workers: int) -> Continuity:
        key = (split, reader.size, reader.channels, fps)
        if key not in self._continuities:
            videos = {number: video for number, video in enumerate(self.videos) if split in (None, video.split)}
            self._continuities[key] = Continuity(self.examination, reader, videos, fps, workers)
        return self._continuities[key]

    def _reader(self, split: Split | None, size: tuple[int, int], channels: int, workers: int) -> Reader:
        """Frames of a split at one size, all of its videos having been read through."""
        if channels not in (1, 3):
            raise DeltafineError(f"channels is {channels}: videos give 3 (RGB) or 1 (grey).")
        if min(size) < 1:
            raise DeltafineError(f"The frame size is {size}: both sides must be at least 1.")
        if (size, channels) in self._whole:
            return self._whole[size, channels]
        key = (split, size, channels)
        if key in self._readers:
            self.scan(split, workers=workers)
            return self._readers[key]
        decoded = DecodedFrames(self.examination, size, channels)
        reader: Reader = decoded
        videos = self.select(split)
        cache = None
        if self.cache is not None and videos:
            cache = open_or_build(self.examination, videos, self.classes, decoded, self.cache, workers)
        if cache is not None:
            self.examination.adopt(cache.indexes)
            reader = CachedFrames(cache, decoded)
        told = CacheSettings(self.path) if self.cache is None else self.cache
        self.examination.scan(videos, workers, told.progress, told.within, decoded.sees)
        self._readers[key] = reader  # where there was no room for a cache, that was said, and is not tried again
        return reader

    def _why_nothing(self, split: Split | None) -> str:
        what = f"{split} videos" if split else "videos"
        names = {video.name for video in self.select(split)}
        if not names:
            return f"There are no {what} in {self.path}: change the validation share or the split lists."
        reasons = some(f"{p.video} {p.reason}" for p in self.problems if p.video in names)
        return f"None of the {len(names)} {what} in {self.path} can be used ({reasons})."

"""Batches of clips: a fixed plan of which clip comes when, read ahead in threads.

The plan is made before anything is read, from the seed and the epoch alone, so that neither the number of
threads nor where an iteration starts changes what a batch holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from deltafine.errors import DeltafineError
from deltafine.video.augmentation import Augmentation
from deltafine.video.catalogue import Video
from deltafine.video.examination import Examination
from deltafine.video.frames import UnreadableVideo
from deltafine.video.further_values import FurtherValues, lines_for, packed
from deltafine.video.labels import label_of
from deltafine.video.prefetch import background, ordered
from deltafine.video.reading import Reader
from deltafine.video.windows import random_starts, span, window_frames, window_starts

if TYPE_CHECKING:
    import tensorflow as tf


READ_BYTES = 16 << 20
"""Most bytes of pictures that one read of a video gives, so that memory does not grow with its length."""
NEAR_FRAMES = 32
"""Frames between two clips up to which one read gives both: going to a key frame costs about as much as so many."""
MIXING = 1
"""Tells what is drawn for mixing a clip from what is drawn for varying it."""
SHOWN_AT_HAND = 8
"""Videos of which the numbers of all frames are held, so that a clip costs the same in a long one."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Clips to train or test on.

    Attributes:
        frames: (B, T, H, W, C) uint8, RGB or grey, 0 to 255; with the lines of their further values, if any.
        labels: (B,) int64 class indices, -1 where unlabelled. Where the data labels frames, the commonest
            label in the clip, or that of the middle number where labels stand for numbers; of the frame in its
            middle where they are rows of labels.
        videos: (B,) int64, index of the clip's video in the dataset's ``videos``.
        starts: (B,) int64, the number in its file of the clip's first frame.
        frame_labels: (B, T) int64 where the data labels frames, -1 for a frame without; None elsewhere.
        first: place of the first of these clips in the whole batch, of which they may be a shard.
        numbers: whether labels stand for numbers.
        mirrored: (B,) bool, whether the clip is mirrored.

    Clips that are mixed with another have no labels.
    """

    frames: np.ndarray
    labels: np.ndarray
    videos: np.ndarray
    starts: np.ndarray
    frame_labels: np.ndarray | None = None
    first: int = 0
    numbers: bool = False
    mirrored: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def clips(self) -> list[tuple[int, int, bool]]:
        """Which clips they are: the video and the first frame of each, and whether it is mirrored."""
        mirrored = [False] * len(self) if self.mirrored is None else self.mirrored.tolist()
        return list(zip(self.videos.tolist(), self.starts.tolist(), mirrored, strict=True))

    @property
    def targets(self) -> np.ndarray:
        """What every frame is to be answered with: (B,) labels, or (B, T) where each frame has a number of its own."""
        return self.frame_labels if self.numbers and self.frame_labels is not None else self.labels


@dataclass(frozen=True, kw_only=True)
class ClipSettings:
    """How clips are cut and ordered; see ``Dataset.clips`` for the meaning of each."""

    frames: int
    frame_stride: int
    clip_stride: int | None
    clips_per_video: int | None
    sampling: str
    fps: float | None
    augmentation: Augmentation | None
    batch: int
    shuffle: bool
    continued: bool
    seed: int
    epoch: int
    passes: int = field(default=1, repr=False)  # the plan shows them: digests of earlier versions stay the same

    def __post_init__(self) -> None:
        for name in ("frames", "frame_stride", "clip_stride", "clips_per_video", "batch", "passes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DeltafineError(f"{name} is {value}: it must be at least 1.")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise DeltafineError(f"fps is {self.fps:g}: it must be above 0 and at most 1000.")
        if self.sampling not in ("uniform", "random"):
            raise DeltafineError(f"There is no sampling '{self.sampling}': choose uniform or random.")
        if self.sampling == "random" and self.clips_per_video is None:
            raise DeltafineError("Random sampling needs the number of clips to draw from every video.")


class ClipSource:
    """The clips of one split, in batches. Iterate it as often as needed: every time gives the same.

    ``len()`` is the number of batches of a whole iteration, ``start_batch`` being 0. Should a file turn
    bad *after* it was found sound, its clips are missing from their batches and the dataset's problems say so.

    With ``shard`` (which, of how many) it gives a shard of every batch, which may be empty, and reads no more than
    that; the shards together are the batches that are given without. With ``batches`` it gives whole ones, but not all.

    Continued clips go through the videos in the order of ``chain``, which holds their numbers. ``values`` are what
    labels stand for, where they are numbers; ``in_rows``: whether they are rows of labels of several outputs;
    ``further``: the numbers that frames are given with, below their pixels.
    """

    def __init__(
        self,
        examination: Examination,
        reader: Reader,
        videos: Sequence[Video],
        numbers: list[int],
        settings: ClipSettings,
        *,
        workers: int,
        start_batch: int,
        shard: tuple[int, int] | None = None,
        batches: tuple[int, int] = (0, 1),
        chain: Sequence[int] | None = None,
        values: Sequence[float] = (),
        in_rows: bool = False,
        further: FurtherValues | None = None,
    ) -> None:
        self.settings = settings
        self.start_batch = start_batch
        self.shard = shard
        self.batches = batches
        self._examination = examination
        self._reader = reader
        self._all = videos
        self._values, self._in_rows = values, in_rows
        self._further = further
        self._workers = workers
        self._shown = lru_cache(SHOWN_AT_HAND)(lambda video: examination.frame_numbers(videos[video], settings.fps))
        self._videos, self._starts = _plan(examination, videos, numbers if chain is None else chain, settings)

    @property
    def clips(self) -> int:
        """Number of clips of a whole iteration."""
        return len(self._starts)

    def __len__(self) -> int:
        return -(-self.clips // self.settings.batch)

    def __iter__(self) -> Iterator[Batch]:
        return background(self._batches())

    def digest(self) -> str:
        """Hex digest of which clip comes when."""
        names = [self._all[video].name for video in np.unique(self._videos)]
        digest = hashlib.blake2b(repr((self.settings, names)).encode("utf-8", "surrogateescape"), digest_size=16)
        for plan in (self._videos, self._starts):
            digest.update(np.ascontiguousarray(plan, "<i8").tobytes())
        return digest.hexdigest()

    def _batches(self) -> Iterator[Batch]:
        size = self.settings.batch
        if self._reader.cheap:
            made = ordered(self._read, map(self._positions, self._wanted), workers=self._workers)
            yield from (batch for batch in made if batch is not None)
            return
        pending: list[_Clip] = []
        reached = self.start_batch
        for clips in ordered(self._read_run, self._runs(), workers=self._workers):
            for clip in clips:
                while clip.position // size > reached:
                    if (batch := self._assemble(reached, pending)) is not None:
                        yield batch
                    pending, reached = [], reached + 1
                pending.append(clip)
            del clips
        for number in range(reached, len(self)):
            if (batch := self._assemble(number, pending if number == reached else [])) is not None:
                yield batch

    @property
    def _wanted(self) -> range:
        """Numbers of the batches that are given."""
        which, every = self.batches
        return range(self.start_batch + which, len(self), every)

    def _positions(self, number: int) -> range:
        """Places in the plan of the clips of a batch, or of the shard of it that is given."""
        size = self.settings.batch
        begin = number * size
        count = min(size, self.clips - begin)
        which, of = self.shard or (0, 1)
        return range(begin + count * which // of, begin + count * (which + 1) // of)

    def as_tf_dataset(self) -> tf.data.Dataset:
        """The same batches as a ``tf.data.Dataset`` of (frames, labels), two of them read ahead."""
        import tensorflow as tf

        settings, reader = self.settings, self._reader
        height, width = reader.size
        if self._further is not None:
            height += lines_for(len(self._further.wanted), width * reader.channels)
        signature = (
            tf.TensorSpec((None, settings.frames, height, width, reader.channels), tf.uint8),
            tf.TensorSpec((None,), tf.int64),
        )
        batches = tf.data.Dataset.from_generator(
            lambda: ((batch.frames, batch.labels) for batch in self), output_signature=signature
        )
        count = max(0, len(self) - self.start_batch)
        return batches.apply(tf.data.experimental.assert_cardinality(count)).prefetch(2)

    def _runs(self) -> Generator[range]:
        """Cut the plan into stretches of one video each, short enough to decode in one go."""
        settings, starts, videos = self.settings, self._starts, self._videos
        picture = self._reader.size[0] * self._reader.size[1] * self._reader.channels
        room = max(settings.frames, READ_BYTES // picture)
        reach = span(settings.frames, settings.frame_stride)
        begin = last = -1
        for position in chain.from_iterable(map(self._positions, self._wanted)):
            if begin >= 0 and (
                position != last + 1
                or videos[position] != videos[begin]
                or starts[position] < starts[last]
                or starts[position] > starts[last] + reach + NEAR_FRAMES
                or starts[position] + reach - starts[begin] > room
            ):
                yield range(begin, last + 1)
                begin = position
            begin, last = position if begin < 0 else begin, position
        if begin >= 0:
            yield range(begin, last + 1)

    def _numbers(self, position: int) -> np.ndarray:
        """(T,) numbers in their file of the frames of the clip at this position of the plan."""
        settings = self.settings
        shown = self._shown(int(self._videos[position]))
        return shown[window_frames(int(self._starts[position]), settings.frames, settings.frame_stride)]

    def _read(self, positions: range) -> Batch | None:
        """Read the clips of a batch one by one, into its array; without those whose video has turned bad."""
        shape = (self.settings.frames, *self._reader.size, self._reader.channels)
        room = np.empty((len(positions), *shape), np.uint8)
        clips: list[_Clip] = []
        for position in positions:
            video = self._all[int(self._videos[position])]
            numbers = self._numbers(position)
            try:
                self._reader.read(video, numbers, room[len(clips)])
            except UnreadableVideo as error:
                self._examination.note_problem(video, str(error))
                continue
            if self.settings.augmentation is not None:
                room[len(clips)] = self._vary(room[len(clips)], position)
            clips.append(_Clip(position, room[len(clips)], numbers))
        return self._assemble(positions.start // self.settings.batch, clips, room[: len(clips)])

    def _read_run(self, positions: range) -> list[_Clip]:
        """Read clips of one video in one go; none when it has turned bad."""
        video = self._all[int(self._videos[positions[0]])]
        numbers = [self._numbers(position) for position in positions]
        wanted = np.unique(np.concatenate(numbers))
        pictures = np.empty((len(wanted), *self._reader.size, self._reader.channels), np.uint8)
        try:
            self._reader.read(video, wanted, pictures)
        except UnreadableVideo as error:
            self._examination.note_problem(video, str(error))
            return []
        clips = []
        for position, of_clip in zip(positions, numbers, strict=True):
            places = np.searchsorted(wanted, of_clip)
            neighbours = bool((np.diff(places) == 1).all())  # a view then, and no copy
            frames = pictures[places[0] : places[-1] + 1] if neighbours else pictures[places]
            if self.settings.augmentation is not None:
                frames = self._vary(frames, position)
            clips.append(_Clip(position, frames, of_clip))
        return clips

    def _further_of(self, clips: Sequence[_Clip], videos: Sequence[Video]) -> np.ndarray:
        """(clips, T, values) float32 of the frames of clips, each of one of these videos."""
        assert self._further is not None
        values = np.empty((len(clips), self.settings.frames, len(self._further.wanted)), np.float32)
        for place, (clip, video) in enumerate(zip(clips, videos, strict=True)):
            values[place] = self._further.at(video, clip.numbers)
        return values

    def _vary(self, frames: np.ndarray, position: int) -> np.ndarray:
        assert self.settings.augmentation is not None
        return self.settings.augmentation(frames, self._generator(position))

    def _generator(self, position: int, *more: int) -> np.random.Generator:
        """Of what is varied in the clip at this position of the plan; ``more`` numbers give another one."""
        settings = self.settings
        # What goes on in the next batch has to go on in the same way.
        clip = [int(self._videos[position]), int(self._starts[position])]
        key = [settings.seed, settings.epoch, *([position % settings.batch] if settings.continued else clip)]
        if settings.passes > 1:
            key.append(position * settings.passes // self.clips)
        return np.random.default_rng([*key, *more])

    def _mix(self, clips: Sequence[_Clip], frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Frames of a batch or shard, some with a rectangle of the next clip in it; and which: (B,) bool."""
        augmentation, mixed, found = self.settings.augmentation, frames, np.zeros(len(clips), bool)
        assert augmentation is not None
        for place, clip in enumerate(clips if len(clips) > 1 else ()):
            part = augmentation.mixed_part(*self._reader.size, self._generator(clip.position, MIXING))
            if part is None:
                continue
            mixed = frames.copy() if mixed is frames else mixed
            mixed[place, :, *part] = frames[(place + 1) % len(clips), :, *part]
            found[place] = True
        return mixed, found

    def _assemble(self, number: int, clips: list[_Clip], frames: np.ndarray | None = None) -> Batch | None:
        """The batch of these clips, ``frames`` being theirs where they lie in one array already."""
        if not clips and self.shard is None:
            return None
        videos = self._videos[np.array([clip.position for clip in clips], np.int64)]
        of_videos = [self._all[video] for video in videos]
        frame_labels = None
        labels = np.array([-1 if video.label is None else video.label for video in of_videos], np.int64)
        if any(video.frame_labels is not None for video in of_videos):
            frame_labels = np.stack(
                [video.labels_at(clip.numbers) for video, clip in zip(of_videos, clips, strict=True)]
            )
            labels = np.array([label_of(row, self._values, in_rows=self._in_rows) for row in frame_labels], np.int64)
        augmentation, mirrored = self.settings.augmentation, None
        if augmentation is not None and augmentation.flip:
            mirrored = np.array([augmentation.mirrors(self._generator(clip.position)) for clip in clips], bool)
        starts = np.array([clip.numbers[0] for clip in clips], np.int64)
        if frames is None:
            shape = (self.settings.frames, *self._reader.size, self._reader.channels)
            frames = np.stack([clip.frames for clip in clips]) if clips else np.empty((0, *shape), np.uint8)
        if augmentation is not None and augmentation.mix:
            frames, mixed = self._mix(clips, frames)
            labels[mixed] = -1
            if frame_labels is not None:
                frame_labels[mixed] = -1
        if self._further is not None:
            frames = packed(frames, self._further_of(clips, of_videos))
        first = self._positions(number).start - number * self.settings.batch
        return Batch(frames, labels, videos, starts, frame_labels, first, bool(self._values), mirrored)


@dataclass(frozen=True, eq=False)
class _Clip:
    """A clip that was read: its place in the plan, its frames, and their numbers in the file."""

    position: int
    frames: np.ndarray
    numbers: np.ndarray


def _plan(
    examination: Examination, videos: Sequence[Video], numbers: Sequence[int], settings: ClipSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Videos (by their numbers in ``videos``) and first frames of all clips, in the order in which they come.

    Each pass is in the order of an epoch that has it alone.
    """
    begin = settings.passes * (settings.epoch - 1) + 1
    of_passes = [
        _one_pass(examination, videos, numbers, replace(settings, epoch=begin + number, passes=1))
        for number in range(settings.passes)
    ]
    joined, firsts = zip(*of_passes, strict=True)
    return np.concatenate(joined), np.concatenate(firsts)


def _one_pass(
    examination: Examination, videos: Sequence[Video], numbers: Sequence[int], settings: ClipSettings
) -> tuple[np.ndarray, np.ndarray]:
    of_videos = [np.empty(0, np.int64)]
    all_starts = [np.empty(0, np.int64)]
    for number in numbers:
        video = videos[number]
        if examination.index(video) is None:
            continue
        shown = examination.frame_numbers(video, settings.fps)
        part = np.searchsorted(examination.breaks(video), shown, side="right")
        pieces = np.split(np.arange(len(shown)), np.flatnonzero(np.diff(part)) + 1)
        starts = _starts(pieces, settings, [settings.seed, settings.epoch, number])
        if not len(starts):
            examination.note_short(video, len(shown), span(settings.frames, settings.frame_stride))
        of_videos.append(np.full(len(starts), number, np.int64))
        all_starts.append(starts)
    joined, firsts = np.concatenate(of_videos), np.concatenate(all_starts)
    if settings.shuffle:
        order = np.random.default_rng([settings.seed, settings.epoch]).permutation(len(firsts))
        joined, firsts = joined[order], firsts[order]
    if settings.continued and len(firsts):
        order = _side_by_side(len(firsts), settings)
        joined, firsts = joined[order], firsts[order]
    return joined, firsts


def _starts(pieces: list[np.ndarray], settings: ClipSettings, seed: list[int]) -> np.ndarray:
    """First frames of a video's clips, none of which goes across damage: from one of the pieces to the next."""
    shape = {"frames": settings.frames, "frame_stride": settings.frame_stride}
    if settings.clips_per_video is None:
        of_pieces = [piece[window_starts(len(piece), **shape, clip_stride=settings.clip_stride)] for piece in pieces]
        return np.concatenate(of_pieces)
    reach = span(**shape)
    places = np.concatenate([piece[: max(0, len(piece) - reach + 1)] for piece in pieces])
    if settings.sampling == "random":
        generator = np.random.default_rng(seed)
        drawn = random_starts(
            len(places), frames=1, frame_stride=1, clips=settings.clips_per_video, generator=generator
        )
    else:
        drawn = window_starts(len(places), frames=1, clips=settings.clips_per_video)
    starts: np.ndarray = places[drawn]
    return starts


def _side_by_side(clips: int, settings: ClipSettings) -> np.ndarray:
    """(n,) numbers of clips, in an order in which batches go through all of them at several places at once."""
    places = min(settings.batch, clips)
    each = -(-clips // places)
    begin = np.random.default_rng([settings.seed, settings.epoch]).integers(clips)
    return ((begin + np.arange(places * each)) % clips).reshape(places, each).T.ravel()

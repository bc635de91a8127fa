"""A refined model on videos, cameras and streams, frame by frame."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

from deltafine.errors import DeltafineError
from deltafine.jobs.answers import OutputKind, outputs_of
from deltafine.jobs.model_files import frame_size_of, trust_in
from deltafine.jobs.played import Dropped, Over, Played, Said, Tally
from deltafine.settings import checked

if TYPE_CHECKING:
    from deltafine.jobs.feed import Feed, Waiting
    from deltafine.runtime.runtime import DeltaRuntime, DeltaStream
    from deltafine.video.named_source import NamedSource
    from deltafine.video.raw_frames import RawFormat

CALIBRATION_FRAMES = 20
SECONDS_TO_CALIBRATE = 5.0
"""How long a live source may take to show so many frames; it is played without a choice otherwise."""
SECONDS_TO_CLOSE = 1.0

Event = Played | Dropped | Said | Over


class Playing:
    """Some sources that are played by one model, whose weights they share. A context manager.

    Each source is read by a thread of its own, and as many frames at a time go through the network as there are
    processors. Iterating gives what becomes of the frames, as it happens, until all sources are over.

    Attributes:
        runtime: the model.
        outputs: what its outputs are.
        tallies: what was played of each source, by its label.
        whole: the same of all sources.
    """

    def __init__(
        self,
        runtime: DeltaRuntime,
        outputs: list[OutputKind],
        sources: Sequence[NamedSource],
        *,
        raw: RawFormat | None = None,
        frames: int | None = None,
        fps: float | None = None,
    ) -> None:
        from deltafine.jobs.feed import Feed
        from deltafine.runtime.plan_cache import available_cores

        self.runtime, self.outputs = runtime, outputs
        self.tallies = {source.label: Tally() for source in sources}
        self.whole = Tally()
        self._frames = frames
        self._ready: queue.SimpleQueue[Feed | None] = queue.SimpleQueue()
        at_once = min(len(sources), available_cores())
        self._happened: queue.Queue[Event | BaseException] = queue.Queue(at_once)  # no more, lest frames grow old in it
        self._over = threading.Event()
        height, width, channels = runtime.plan.input_shape
        self._feeds = {
            source.label: Feed(
                source,
                (height, width),
                channels,
                raw,
                ready=self._ready,
                say=lambda text, label=source.label: self._tell(Said(label, text)),  # type: ignore[misc]
                fps=fps,
                insist=len(sources) > 1,
            )
            for source in sources
        }
        self._players = {label: _Player(label, runtime.stream(), runtime.every) for label in self._feeds}
        self._threads = [
            threading.Thread(target=self._work, name=f"deltafine-player-{number}", daemon=True)
            for number in range(at_once)
        ]

    def __enter__(self) -> Playing:
        for feed in self._feeds.values():
            feed.start()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        for feed in self._feeds.values():
            feed.stop()
        for _ in self._threads:
            self._ready.put(None)
        until = time.monotonic() + SECONDS_TO_CLOSE
        for thread in self._threads:
            thread.join(max(until - time.monotonic(), 0.0))
        for feed in self._feeds.values():
            feed.join(until - time.monotonic())  # who waits for a camera cannot be woken
        self._count_feeds()

    def __iter__(self) -> Iterator[Event]:
        left = len(self._feeds)
        while left:
            event = self._happened.get()
            if isinstance(event, BaseException):
                raise event
            if isinstance(event, Played):
                self.tallies[event.source].add(event, self.whole)
            elif isinstance(event, Dropped):
                self.tallies[event.source].dropped += 1
                self.whole.dropped += 1
            elif isinstance(event, Over):
                left -= 1
            yield event

    def _count_feeds(self) -> None:
        for name in ("skipped", "reconnections"):
            for label, feed in self._feeds.items():
                setattr(self.tallies[label], name, getattr(feed, name))
            setattr(self.whole, name, sum(getattr(tally, name) for tally in self.tallies.values()))

    def _tell(self, event: Event | BaseException) -> None:
        """Wait until somebody hears it: who reads slowly has live frames skipped, and recordings wait."""
        while not self._over.is_set():
            with suppress(queue.Full):
                self._happened.put(event, timeout=0.2)
                return

    def _work(self) -> None:
        from deltafine.jobs.feed import Waiting

        while (feed := self._ready.get()) is not None and not self._over.is_set():
            label = feed.source.label
            player = self._players[label]
            try:
                taken = feed.take()
                if not isinstance(taken, Waiting):
                    self._tell(Over(label, taken.failure))
                    continue
                self._tell(player.play(taken))
                if player.played == self._frames:
                    feed.stop()
                    self._tell(Over(label, ""))
                    continue
                feed.done()
            except BaseException as error:  # whoever iterates must hear of it
                self._tell(error)


class _Player:
    """One source on a stream of its own; used by one thread at a time."""

    def __init__(self, label: str, stream: DeltaStream, every: int) -> None:
        self._label, self._stream, self._every = label, stream, every
        self._pixels: Any = None
        self.played = 0

    def play(self, frame: Waiting) -> Played | Dropped:
        from deltafine.video.frames import UnreadableVideo

        held = self.played % self._every > 0
        begin = time.perf_counter()
        try:
            if not held:
                self._pixels = frame.shot.pixels()
            scaled = time.perf_counter()
            sensitivity = self._stream.sensitivity  # a budget moves it behind the frame
            prediction = self._stream.step(self._pixels)
        except (DeltafineError, UnreadableVideo) as error:
            return Dropped(self._label, frame.number, str(error).rstrip("."))
        done = time.perf_counter()
        counts = self._stream.counts
        assert counts is not None  # of the step just taken
        events = counts.events().values()
        sent, values = (sum(column) for column in zip(*events, strict=True)) if events else (0, 0)
        self.played += 1
        return Played(
            self._label,
            frame.number,
            frame.shot.time,
            frame.arrived,
            prediction,
            held,
            sent,
            values,
            counts.total("needed_macs"),
            sensitivity,
            frame.shot.decoding,
            1e3 * (scaled - begin),
            1e3 * (done - scaled),
        )


def play(
    run: str | os.PathLike[str],
    sources: Sequence[str],
    *,
    raw: str | None = None,
    frames: int | None = None,
    every: int = 1,
    budget_ms: float | None = None,
    budget_macs: float | None = None,
    fps: float | None = None,
    calibrate: bool = True,
    precision: str = "float32",
    **settings: Any,
) -> Playing:
    """Play videos, cameras and streams with a refined model, computing only what changed.

    Args:
        run: a run directory, or a model file.
        sources: video files, folders of images or of videos, cameras (a number, or /dev/video0), addresses
            (rtsp://, http://, ...), and "-" for raw frames on standard input.
        raw: what the raw frames are, as ``640x480:bgr24`` or ``float32``; default: bytes of the model's size.
        frames: stop after so many of each source.
        every: run on every k-th frame, and hold the prediction between.
        budget_ms, budget_macs: what a frame of each source may take in the mean, as for ``DeltaRuntime``.
        fps: play at most so many frames in a second: recordings take their time, of live sources others are left out.
        calibrate: find out on the first frames, once, which way to compute each convolution is faster here.
        precision: ``"float32"`` or ``"int8"``; the ranges that int8 needs are found on the first frames, once.
        settings: ``size``, ``custom_objects`` and ``unsafe_lambda`` of ``deltafine.settings.RefineSettings``.

    Returns:
        What plays them, to be entered and iterated.

    Raises:
        DeltafineError: the model or a source cannot be used as they are.
    """
    from deltafine.runtime.runtime import DeltaRuntime
    from deltafine.video.named_source import STANDARD_INPUT, named_sources
    from deltafine.video.raw_frames import raw_format

    given = checked(**settings)
    form = None if raw is None else raw_format(raw)
    if form is not None and STANDARD_INPUT not in sources:
        raise DeltafineError("--raw says what standard input holds, which is not played: give - as a source.")
    named = named_sources(list(sources))
    budgets: Any = {"budget_ms": budget_ms, "budget_macs": budget_macs}
    how: Any = {"frame_size": frame_size_of(given), "every": every, "precision": precision}
    runtime = DeltaRuntime(run, **how, **budgets, **trust_in(given))
    if len(runtime.plan.input_shape) != 3:
        raise DeltafineError(
            f"Model '{runtime.plan.name}' takes {runtime.plan.input_shape} at a time, and a video gives frames of "
            "(height, width, channels): feed deltafine.DeltaRuntime yourself."
        )
    if calibrate and not runtime.calibrated:
        _calibrate(runtime, named[0])
    if precision == "int8" and not runtime.calibrated:
        raise DeltafineError(
            f"The ranges of values, which int8 needs, are not known, and {named[0].label} shows no frames before it is "
            "played: run on a video first, with calibration."
        )
    return Playing(runtime, outputs_of(runtime.plan, run), named, raw=form, frames=frames, fps=fps)


def _calibrate(runtime: DeltaRuntime, source: NamedSource) -> None:
    """Choose on the first frames of a source, which is opened once more for it; standard input cannot be."""
    from deltafine.video.frames import UnreadableVideo
    from deltafine.video.live import opened

    if source.kind == "input":
        return
    height, width, channels = runtime.plan.input_shape
    patience = (SECONDS_TO_CALIBRATE, SECONDS_TO_CALIBRATE)
    first = []
    # What is wrong with the source is said when it is played.
    with suppress(UnreadableVideo), opened(source, (height, width), channels, patience=patience) as found:
        until = time.monotonic() + SECONDS_TO_CALIBRATE
        for shot in islice(found.shots, CALIBRATION_FRAMES):
            first.append(shot.pixels())
            if found.live and time.monotonic() > until:
                break
    if len(first) == CALIBRATION_FRAMES or (first and runtime.precision == "int8"):
        runtime.calibrate(first)

"""A refined model on videos, cameras and streams, frame by frame."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

from deltafine.errors import DeltafineError
from deltafine.jobs.answers import OutputKind, outputs_of
from deltafine.jobs.model_files import frame_size_of, trust_in
from deltafine.jobs.played import Dropped, Over, Played, Said, Tally
from deltafine.jobs.source_inputs import Inputs, inputs_of_sources, nothing_beside
from deltafine.settings import checked

if TYPE_CHECKING:
    from deltafine.jobs.feed import Feed, Waiting
    from deltafine.runtime.delta_stream import DeltaStream
    from deltafine.runtime.runtime import DeltaRuntime
    from deltafine.video.named_source import NamedSource
    from deltafine.video.raw_frames import RawFormat

CALIBRATION_FRAMES = 20
SECONDS_TO_CALIBRATE = 5.0
"""How long a live source may take to show so many frames; it is played without a choice otherwise."""
SECONDS_TO_CLOSE = 1.0
MOST_TOGETHER = 16
"""Frames of different sources that are computed at once: more would gain little, and the first wait for the last."""

Event = Played | Dropped | Said | Over


class Playing:
    """Some sources that are played by one model, whose weights they share. A context manager.

    Each source is read by a thread of its own. As many threads as there are processors share the frames that are due,
    and each computes its own ones together. Iterating gives what becomes of the frames, as it happens, until all
    sources are over.

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
        inputs: Mapping[str, Inputs] | None = None,
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
        beside = inputs or {}
        self._players = {
            label: _Player(label, runtime.stream(), runtime.every, beside.get(label, nothing_beside))
            for label in self._feeds
        }
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
        for player in self._players.values():
            player.stream.release_threads()

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
        while feeds := self._due():
            try:
                self._play_together(feeds)
            except BaseException as error:  # whoever iterates must hear of it
                self._tell(error)

    def _due(self) -> list[Feed]:
        """What waits to be played, this thread's share of it; nothing once all is over."""
        feed = self._ready.get()
        most = min(1 + self._ready.qsize() // len(self._threads), MOST_TOGETHER)
        feeds: list[Feed] = []
        while feed is not None and not self._over.is_set():
            feeds.append(feed)
            if len(feeds) == most:
                return feeds
            try:
                feed = self._ready.get_nowait()
            except queue.Empty:
                return feeds
        return []

    def _play_together(self, feeds: Sequence[Feed]) -> None:
        from deltafine.jobs.feed import Waiting

        due: dict[_Player, Waiting] = {}
        waiting = {}
        for feed in feeds:
            taken = feed.take()
            player = self._players[feed.source.label]
            failure = player.look_up(taken.number) if isinstance(taken, Waiting) else taken.failure
            if isinstance(taken, Waiting) and not failure:
                due[player], waiting[player] = taken, feed
            else:
                feed.stop()
                self._tell(Over(feed.source.label, failure))
        for player, event in _played(self.runtime, due):
            self._tell(event)
            feed = waiting[player]
            if player.played == self._frames:
                feed.stop()
                self._tell(Over(feed.source.label, ""))
            else:
                feed.done()


class _Player:
    """One source on a stream of its own; used by one thread at a time."""

    def __init__(self, label: str, stream: DeltaStream, every: int, inputs: Inputs) -> None:
        self.label, self.stream, self._every, self._inputs = label, stream, every, inputs
        self.beside: Mapping[str, Any] = {}
        self.pixels: Any = None
        self.played = 0
        self._scaling = 0.0

    @property
    def held(self) -> bool:
        """Whether the next frame is one that is not looked at."""
        return self.played % self._every > 0

    def look_up(self, number: int) -> str:
        """Find what comes with a frame that is looked at; returns why there is nothing, "" if there is."""
        try:
            self.beside = self.beside if self.held else self._inputs(number)
        except DeltafineError as error:
            return str(error)
        return ""

    def scale(self, frame: Waiting) -> None:
        """Make pixels of a frame that is looked at."""
        begin = time.perf_counter()
        if not self.held:
            self.pixels = frame.shot.pixels()
        self._scaling = 1e3 * (time.perf_counter() - begin)

    def has_played(self, frame: Waiting, prediction: Any, sensitivity: float, milliseconds: float) -> Played:
        """What the step just taken was."""
        counts = self.stream.counts
        assert counts is not None
        events = counts.events().values()
        sent, values = (sum(column) for column in zip(*events, strict=True)) if events else (0, 0)
        held = self.held
        self.played += 1
        return Played(
            self.label,
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
            self._scaling,
            milliseconds,
        )


def _played(runtime: DeltaRuntime, due: Mapping[_Player, Waiting]) -> Iterator[tuple[_Player, Played | Dropped]]:
    """Play a frame of each of some sources; those that cannot be used are dropped, and change no others."""
    from deltafine.video.frames import UnreadableVideo

    scaled = {}
    for player, frame in due.items():
        try:
            player.scale(frame)
        except (DeltafineError, UnreadableVideo) as error:
            yield player, _dropped(player, frame, error)
        else:
            scaled[player] = frame
    sensitivities = {player: player.stream.sensitivity for player in scaled}  # a budget moves them behind the frame
    begin = time.perf_counter()
    try:
        predictions = runtime.step_many(
            {player.stream: player.pixels for player in scaled}, {player.stream: player.beside for player in scaled}
        )
    except DeltafineError as error:
        if len(scaled) == 1:
            yield from ((player, _dropped(player, frame, error)) for player, frame in scaled.items())
        else:
            for player, frame in scaled.items():
                yield from _played(runtime, {player: frame})
        return
    milliseconds = 1e3 * (time.perf_counter() - begin) / max(len(scaled), 1)
    for player, frame in scaled.items():
        prediction = predictions[player.stream]
        yield player, player.has_played(frame, prediction, sensitivities[player], milliseconds)


def _dropped(player: _Player, frame: Waiting, error: Exception) -> Dropped:
    return Dropped(player.label, frame.number, str(error).rstrip("."))


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
    threads: int = 1,
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
        calibrate: find out on the first frames, once, which way to compute each convolution is faster here; not while
            the kernels are still to be compiled.
        precision: ``"float32"`` or ``"int8"``; the ranges that int8 needs are found on the first frames, once.
        threads: that compute a frame; of all sources together no more than there are processors.
        settings: ``size``, ``input``, ``custom_objects`` and ``unsafe_lambda`` of
            ``deltafine.settings.RefineSettings``.

    Returns:
        What plays them, to be entered and iterated.

    Raises:
        DeltafineError: the model or a source cannot be used as they are.
    """
    from deltafine.runtime.plan_cache import available_cores
    from deltafine.runtime.runtime import DeltaRuntime
    from deltafine.video.named_source import STANDARD_INPUT, named_sources
    from deltafine.video.raw_frames import raw_format

    given = checked(**settings)
    form = None if raw is None else raw_format(raw)
    if form is not None and STANDARD_INPUT not in sources:
        raise DeltafineError("--raw says what standard input holds, which is not played: give - as a source.")
    named = named_sources(list(sources))
    budgets: Any = {"budget_ms": budget_ms, "budget_macs": budget_macs}
    if threads < 1:
        raise DeltafineError(f"threads is {threads}: give a whole number from 1 on.")
    how: Any = {"frame_size": frame_size_of(given), "every": every, "precision": precision}
    how["threads"] = max(min(threads, available_cores() // len(named)), 1)
    runtime = DeltaRuntime(run, **how, **budgets, **trust_in(given))
    if len(runtime.plan.input_shape) != 3:
        raise DeltafineError(
            f"Model '{runtime.plan.name}' takes {runtime.plan.input_shape} at a time, and a video gives frames of "
            "(height, width, channels): feed deltafine.DeltaRuntime yourself."
        )
    inputs = inputs_of_sources(runtime.plan, named, given.get("input", ()))
    # Ways to compute are timed at the next start, where NumPy answers for now.
    if calibrate and not runtime.calibrated and (precision == "int8" or not runtime.compiling):
        _calibrate(runtime, named[0])
    if precision == "int8" and not runtime.calibrated:
        raise DeltafineError(
            f"The ranges of values, which int8 needs, are not known, and {named[0].label} shows no frames before it is "
            "played: run on a video first, with calibration."
        )
    return Playing(runtime, outputs_of(runtime.plan, run), named, raw=form, frames=frames, fps=fps, inputs=inputs)


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

"""What becomes of the frames of some sources: one by one, and summed up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from deltafine.jobs.frame_times import FrameTimes


@dataclass(frozen=True)
class Played:
    """One frame that was played.

    Attributes:
        source: label of where it came from.
        number: of the frame in its source, from 0 on.
        time: seconds, by the clock of the source; None where it has none.
        arrived: when it was decoded, seconds since 1970.
        prediction: of the model.
        held: whether that is the prediction of an earlier frame, as every k-th frame runs.
        sent: values that were sent, of so many values.
        values: that could have been sent.
        macs: multiply-accumulates that were needed.
        sensitivity: that the thresholds were multiplied with in it.
        decoding, scaling, milliseconds: that passed to decode it, to scale it, and in the network.
    """

    source: str
    number: int
    time: float | None
    arrived: float
    prediction: Any
    held: bool
    sent: int
    values: int
    macs: int
    sensitivity: float
    decoding: float
    scaling: float
    milliseconds: float


@dataclass(frozen=True)
class Dropped:
    """A frame that was not played, and why; the next is compared with the one before it."""

    source: str
    number: int
    reason: str


@dataclass(frozen=True)
class Said:
    """Something about a source that stops nothing, such as that it is connected to again."""

    source: str
    text: str


@dataclass(frozen=True)
class Over:
    """A source has no more frames. ``failure`` is the sentence that says why, if that is not as it should be."""

    source: str
    failure: str


@dataclass
class Tally:
    """What was played of one source, or of several.

    Attributes:
        frames: that were played.
        skipped: of a live source, because a newer one was there before anybody could take them.
        dropped: because they could not be used.
        reconnections: how often the source was connected to again.
        times: in the network, of all frames but the first of each source.
        first: milliseconds of the first frame.
        needed: MACs of all frames but the first of each source.
        rest: how many frames these are.
        network: milliseconds in the network of these frames, held ones included.
        sensitivities: of these frames, summed up.
    """

    frames: int = 0
    skipped: int = 0
    dropped: int = 0
    reconnections: int = 0
    times: FrameTimes = field(default_factory=FrameTimes)
    first: float | None = None
    needed: int = 0
    rest: int = 0
    network: float = 0.0
    sensitivities: float = 0.0

    def add(self, frame: Played, whole: Tally) -> None:
        """Count a frame of this source, which is counted in the ``whole`` of all sources as well."""
        first = self.first is None
        for tally in (self, whole):
            tally.frames += 1
            if first:
                tally.first = frame.milliseconds if tally.first is None else tally.first
                continue
            tally.rest += 1
            tally.needed += frame.macs
            tally.network += frame.milliseconds
            tally.sensitivities += frame.sensitivity
            if not frame.held:
                tally.times.add(frame.milliseconds)

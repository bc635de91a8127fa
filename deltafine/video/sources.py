"""Which way to read a video."""

from __future__ import annotations

from deltafine.video.arrays import ArrayVideo
from deltafine.video.catalogue import Video
from deltafine.video.encoded import EncodedVideo
from deltafine.video.frames import FrameSource
from deltafine.video.images import ImageFolder


def source_of(video: Video) -> FrameSource:
    """The frames of a video of a catalogue."""
    if video.entry is not None:
        return ArrayVideo(video.path, video.entry)
    if video.path.is_dir():
        return ImageFolder(video.path)
    return EncodedVideo(video.path)

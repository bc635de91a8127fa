"""Videos as the settings say, for jobs that take frames from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deltafine.refinement.listener import Listener
    from deltafine.settings import GivenSettings
    from deltafine.video import Dataset
    from deltafine.video.catalogue import Split, Video
    from deltafine.video.further_values import Wanted
    from deltafine.video.streams import Stream

_OPENING = ("layout", "split", "classes", "validation", "seed", "allow_outside")
_LIMITS = {"max_frames": "frames", "max_seconds": "seconds"}


def how_to_open(settings: GivenSettings) -> GivenSettings:
    """Arguments of ``open_dataset``."""
    how = {name: settings[name] for name in _OPENING if name in settings}
    limits = {name: settings[setting] for setting, name in _LIMITS.items() if settings.get(setting) is not None}
    if limits:
        from deltafine.video import Limits

        how["limits"] = Limits(**limits)
    return how


def frames_of_videos(
    path: Path,
    settings: GivenSettings,
    listener: Listener,
    *,
    size: tuple[int, int],
    channels: int,
    wanted: Sequence[Wanted] = (),
    **how: Any,
) -> tuple[Dataset, Iterator[tuple[Video, Stream]]]:
    """A data set and all its videos in turn; with a cache the validation videos, as a refinement keeps these.

    Frames come with the numbers ``wanted`` by a model with further inputs, from columns or the setting ``input``.
    """
    from deltafine.video import open_for_frames
    from deltafine.video.further_values import given_values, values_for

    data = open_for_frames(path, **how_to_open(settings))
    constants = given_values(settings.get("input", ()), wanted)
    data.give_further(values_for(wanted, data.columns, constants, str(path)))
    read = partial(listener.progress, "reading through the videos")
    if (tolerated := settings.get("max_bad_videos")) is not None:
        data.check(tolerated, progress=read, within=read)
    split: Split | None = None
    if (cache := settings.get("cache")) is not None:
        data.use_cache(cache, announce=listener.say, progress=read, within=read)
        split = "validation" if data.select("validation") else None
    else:
        data.scan(progress=read, within=read)
    return data, data.streams(split, size=size, channels=channels, fps=settings.get("fps"), **how)

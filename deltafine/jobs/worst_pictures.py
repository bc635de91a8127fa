"""Pictures of the frames at which a model is worst, with what was answered."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from deltafine.document.report import Picture
from deltafine.report.text import clean, share, significant
from deltafine.video.whole_videos import joined

if TYPE_CHECKING:
    from deltafine.document.figures import Figures, WorstAnswer
    from deltafine.video import Dataset

WIDEST, NARROWEST = 320, 160
"""Pixels of a picture: larger frames are made smaller, smaller ones a whole number of times larger."""
COLOURS = 128
"""In the palette of a picture: more are hard to tell apart and make it twice as large."""


def worst_pictures(
    model: str,
    figures: Figures,
    data: Dataset,
    *,
    shape: tuple[int, int, int],
    fps: float | None = None,
    numbers: bool = False,
) -> list[tuple[Picture, bytes]]:
    """The frames that ``figures.worst_answers`` names, the worst first.

    Args:
        model: name of the model that was measured.
        figures: its own, on streams.
        data: where the streams came from.
        shape: height, width and channels of the frames that the model takes.
        fps: at which frames were taken; None for all.
        numbers: whether answers are numbers.

    Returns:
        Each picture with its PNG; those of videos that cannot be read any more are left out.
    """
    by_name = {video.name: video for video in [*data.videos, *joined(data.select("validation"), data.examination)]}
    found: list[tuple[Picture, bytes]] = []
    for worst in figures.worst_answers:
        video = by_name.get(worst.video)
        frame = None if video is None else data.frame(video, worst.frame, size=shape[:2], channels=shape[2], fps=fps)
        if frame is None:
            continue
        caption = caption_of(model, worst, () if numbers else data.classes, numbers=numbers)
        file = f"worst-{len(found) + 1}.png"
        found.append((Picture(file=file, video=clean(worst.video), caption=caption, kind="worst"), png_of(frame)))
    return found


def caption_of(model: str, worst: WorstAnswer, classes: Sequence[str], *, numbers: bool = False) -> str:
    """What was answered about a frame, and what would have been right."""

    def said(answer: float) -> str:
        if numbers:
            return significant(answer)
        index = int(answer)
        return f"'{clean(classes[index])}'" if index < len(classes) else f"class {index}"

    where = f"Frame {worst.frame} (the first is 0)"
    if worst.answer is None:
        differs = f"differs by {significant(worst.lost)}" if numbers else f"differs at {share(worst.lost)} of positions"
        return f"{where}: the {model} model's answer {differs} from the original's."
    told = []
    if worst.truth is not None and worst.truth != worst.original:
        told.append(f"right is {said(worst.truth)}")
    if worst.original is not None:
        told.append(f"the original answers {said(worst.original)}")
        told[-1] += ", which is right" if worst.truth == worst.original and not numbers else ""
    return f"{where}: {', '.join([*told, f'the {model} model {said(worst.answer)}'])}."


def png_of(frame: np.ndarray) -> bytes:
    """A frame (height, width, 1 or 3) uint8 as a small PNG."""
    from PIL import Image  # comes with matplotlib

    height, width, channels = frame.shape
    picture = Image.fromarray(np.ascontiguousarray(np.repeat(frame, 3 // channels, axis=-1)))
    factor = max(1, round(NARROWEST / width)) if width <= WIDEST else WIDEST / width
    size = (round(width * factor), max(1, round(height * factor)))
    resized = picture.resize(size, Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.BILINEAR)
    buffer = BytesIO()
    resized.quantize(COLOURS, method=Image.Quantize.FASTOCTREE).save(buffer, "png", optimize=True)
    return buffer.getvalue()

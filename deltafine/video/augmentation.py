"""Variation of training clips, the same for all frames of a clip.

Varying frames one by one would move what stands still, and with it destroy the temporal sparsity that is
being trained for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from deltafine.errors import DeltafineError
from deltafine.video.conversion import LUMA, Converter, array_frame

LEAST_AREA, MOST_AREA = 0.15, 0.6
"""Of a frame, that come from another clip where two are mixed."""
LONGER = 1.0
"""How far the logarithm of the rectangle's proportions varies, compared with the frame's."""


@dataclass(frozen=True)
class Augmentation:
    """What is varied, and how far. All of it off by default.

    Attributes:
        flip: Mirror left and right, every second clip.
        crop: Cut out a rectangle of this share of the height and width, somewhere, and enlarge it; 1 is all.
        scale: Let the rectangle's share vary down to ``crop / (1 + scale)``.
        brightness: Add up to this share of the full range, up or down.
        contrast: Stretch around the middle by up to this share, up or down.
        saturation: Strengthen or weaken colours by up to this share.
        mix: Give this share of the clips a rectangle of another clip of the batch.
    """

    flip: bool = False
    crop: float = 1.0
    scale: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    mix: float = field(default=0.0, repr=False)  # digests of earlier versions stay the same

    def __post_init__(self) -> None:
        if not 0 < self.crop <= 1:
            raise DeltafineError(f"The crop is {self.crop}: it must be above 0 and at most 1.")
        for name in ("scale", "brightness", "contrast", "saturation", "mix"):
            if not 0 <= getattr(self, name) <= 1:
                raise DeltafineError(f"The {name} is {getattr(self, name)}: it must lie between 0 and 1.")

    @property
    def mirrors_alone(self) -> bool:
        """Whether clips are mirrored, and nothing else is varied."""
        return self == Augmentation(flip=True)

    def mirrors(self, generator: np.random.Generator) -> bool:
        """Whether a clip is mirrored that is varied with this generator."""
        return self.flip and float(generator.random()) < 0.5

    def mixed_part(self, height: int, width: int, generator: np.random.Generator) -> tuple[slice, slice] | None:
        """Rows and columns of a clip that come from another one; None where it stays whole.

        A network follows its teacher on clips that are made of two without having learnt any label of theirs.
        Source: CutMix, Yun et al. 2019, arXiv 1905.04899; without its labels.
        """
        mixed, area, shape, top, left = generator.random(5)
        if mixed >= self.mix:
            return None
        side = math.sqrt(LEAST_AREA + (MOST_AREA - LEAST_AREA) * area)
        longer = math.exp(LONGER * (shape - 0.5))
        rows = max(1, min(height, round(height * side * longer)))
        columns = max(1, min(width, round(width * side / longer)))
        first_row, first_column = round(top * (height - rows)), round(left * (width - columns))
        return slice(first_row, first_row + rows), slice(first_column, first_column + columns)

    def __call__(self, clip: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """A varied copy of a clip (T, H, W, C) uint8.

        The draws are made in a fixed number and order, so that switching one variation on leaves the others
        as they were.
        """
        mirrored, share, top, left, light, stretch, colour = generator.random(7)
        clip = self._cut(clip, self.crop / (1 + self.scale * share), top, left)
        if self.flip and mirrored < 0.5:
            clip = clip[:, :, ::-1]
        if self.saturation and clip.shape[-1] == 3:
            grey = (clip @ LUMA)[..., None]
            factor = np.float32(1 + self.saturation * (2 * colour - 1))
            clip = np.clip(grey + factor * (clip - grey) + 0.5, 0, 255).astype(np.uint8)
        if self.brightness or self.contrast:
            shift = 255 * self.brightness * (2 * light - 1)
            factor = 1 + self.contrast * (2 * stretch - 1)
            table = np.clip(127.5 + factor * (np.arange(256) - 127.5) + shift + 0.5, 0, 255).astype(np.uint8)
            clip = table[clip]
        return np.ascontiguousarray(clip)

    def _cut(self, clip: np.ndarray, share: float, top: float, left: float) -> np.ndarray:
        height, width, channels = clip.shape[1:]
        rows, columns = max(1, round(height * share)), max(1, round(width * share))
        if (rows, columns) == (height, width):
            return clip
        first_row, first_column = round(top * (height - rows)), round(left * (width - columns))
        cut_out = clip[:, first_row : first_row + rows, first_column : first_column + columns]
        convert = Converter((height, width), channels)
        return np.stack([convert(array_frame(picture)) for picture in cut_out])

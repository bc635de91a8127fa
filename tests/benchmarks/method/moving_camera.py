"""The demo's shapes before a camera that pans and zooms: every pixel changes in every frame."""

from __future__ import annotations

import numpy as np

from deltafine.jobs.demo import SIZE, Scene

WALL = 192
"""Side of the background, which repeats."""
PAN, TURN = (0.5, 2.0), 0.15
"""Pixels in a frame, the least and the most; radians that the direction changes by, standard deviation."""
ZOOM, ZOOM_FRAMES = 0.25, (40, 90)
"""Logarithm of the scale that a zoom reaches; frames of a zoom to and fro."""


class MovingScene(Scene):
    """A textured wall that a camera wanders over, with the demo's light, noise and shape."""

    def __init__(self, random: np.random.Generator) -> None:
        super().__init__(random)
        self._wall = sum(
            _smooth(random.uniform(-1, 1, (cells, cells, 3))) * amplitude for cells, amplitude in ((6, 60), (24, 30))
        )
        self._wall = np.clip(125 + self._wall, 0, 255)
        self._camera, self._direction = random.uniform(0, WALL, 2), random.uniform(0, 2 * np.pi)
        self._pan = random.uniform(*PAN)
        self._phase, self._period = random.uniform(0, 2 * np.pi), random.uniform(*ZOOM_FRAMES)
        self._still_radius = self._radius

    def frame(self, shape: str) -> np.ndarray:
        """The next frame, (64, 64, 3) uint8, with this shape."""
        self._direction += self._random.normal(0, TURN)
        self._camera += self._pan * np.array([np.cos(self._direction), np.sin(self._direction)])
        self._phase += 2 * np.pi / self._period
        scale = np.exp(ZOOM * np.sin(self._phase))
        self._radius = self._still_radius * scale
        places = (np.arange(SIZE) - SIZE / 2) / scale
        self._background = _sampled(self._wall, self._camera[0] + places, self._camera[1] + places)
        return super().frame(shape)


def _smooth(coarse: np.ndarray) -> np.ndarray:
    """A repeating picture (WALL, WALL, 3) through coarse values (cells, cells, 3)."""
    places = np.arange(WALL) * len(coarse) / WALL
    return _sampled(coarse, places, places)


def _sampled(picture: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """A repeating picture (height, width, 3) at (rows) x (columns), linear between its pixels."""
    for axis, places in enumerate((rows, columns)):
        left = np.floor(places).astype(int)
        part = (places - left).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        size = picture.shape[axis]
        picture = np.take(picture, left % size, axis) * (1 - part) + np.take(picture, (left + 1) % size, axis) * part
    return picture

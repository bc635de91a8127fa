"""The built-in example: videos of moving shapes, and a small model trained on them.

A textured background stands still under sensor noise; one shape moves over it, and its kind is the class. In the
clips there is one shape from beginning to end. In the streams another one takes over every few seconds, so that a
model which stops looking is found out.
"""

from __future__ import annotations

import csv
import io
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deltafine.errors import DeltafineError
from deltafine.storage.files import make_folder, write_atomically

if TYPE_CHECKING:
    import keras

    from deltafine.refinement.listener import Listener

SHAPES = ("circle", "square", "triangle")
SIZE = 64
CLIP_FRAMES, STREAM_FRAMES, FRAMES_PER_SHAPE = 24, 160, 40
CLIPS_PER_CLASS, STREAMS = 24, 6
FRAME_RATE = 25
SENSOR_NOISE = 6.0
FLICKER, STEADINESS = 0.015, 0.9
"""Of the light: how much it changes from frame to frame, and how much of that stays."""
PICTURES, BASELINE_EPOCHS = 3000, 8
MARKER = "made-by-deltafine-demo"


@dataclass(frozen=True)
class Example:
    """Where the files of the example lie."""

    model: Path
    data: Path
    streams: Path


def prepare(out: Path, *, overwrite: bool, listener: Listener, scene: type[Scene] | None = None) -> Example:
    """Write the videos and the trained baseline under ``out``.

    Args:
        out: a new folder, or that of an earlier demo.
        overwrite: whether it may be that of an earlier demo.
        listener: told how far it is.
        scene: what the camera sees; default: :class:`Scene`.

    Raises:
        DeltafineError: ``out`` exists and may not be overwritten, or is not a demo's directory.
    """
    if out.exists():
        if not overwrite:
            raise DeltafineError(f"{out} exists already: give --overwrite, or another --out.")
        if not (out / MARKER).exists():
            raise DeltafineError(f"{out} was not made by the demo, so it is not overwritten: choose another --out.")
        shutil.rmtree(out)
    example = Example(out / "baseline.keras", out / "videos", out / "streams")
    make_folder(out)
    write_atomically(out / MARKER, b"")
    listener.say(
        f"The demo writes {len(SHAPES) * CLIPS_PER_CLASS} clips and {STREAMS} streams of moving shapes, trains a small "
        "model on them, and refines it: about 3 minutes on 2 cores."
    )
    write_videos(example, listener, scene or Scene)
    train_baseline(example, listener, scene or Scene)
    return example


def write_videos(example: Example, listener: Listener, make_scene: type[Scene]) -> None:
    """Clips in a folder per class, and streams with a label per frame."""
    random = np.random.default_rng(0)
    total = len(SHAPES) * CLIPS_PER_CLASS + STREAMS
    for index, name in enumerate(name for name in SHAPES for _ in range(CLIPS_PER_CLASS)):
        scene = make_scene(random)
        write_video(example.data / name / f"{name}_{index:03d}.mp4", [scene.frame(name) for _ in range(CLIP_FRAMES)])
        listener.progress("writing videos", index + 1, total)
    rows: list[tuple[str, int, str]] = []
    for index in range(STREAMS):
        scene = make_scene(random)
        order = random.permutation(len(SHAPES))
        names = [SHAPES[order[frame // FRAMES_PER_SHAPE % len(SHAPES)]] for frame in range(STREAM_FRAMES)]
        file = f"stream_{index}.mp4"
        write_video(example.streams / "videos" / file, [scene.frame(name) for name in names])
        rows += [(file, frame, name) for frame, name in enumerate(names)]
        listener.progress("writing videos", total - STREAMS + index + 1, total)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("video", "frame", "label"), *rows])
    write_atomically(example.streams / "labels.csv", text.getvalue().encode())


class Scene:
    """One camera: a background that stands still, unsteady light, noise, and a shape that moves and bounces."""

    def __init__(self, random: np.random.Generator) -> None:
        self._random = random
        coarse = random.uniform(60, 190, (9, 9, 3))
        weights = np.linspace(0, 8, SIZE)
        left = np.minimum(weights.astype(int), 7)
        fraction = (weights - left)[:, None, None]
        rows = coarse[left] * (1 - fraction) + coarse[left + 1] * fraction
        columns = fraction.reshape(1, SIZE, 1)
        self._background = rows[:, left] * (1 - columns) + rows[:, left + 1] * columns
        self._background += random.normal(0, 10, (SIZE, SIZE, 1))
        self._radius = random.uniform(9, 13)
        self._place = random.uniform(16, SIZE - 16, 2)
        angle = random.uniform(0, 2 * np.pi)
        self._speed = random.uniform(0.4, 1.2) * np.array([np.cos(angle), np.sin(angle)])
        self._light = 0.0
        self._colour = np.where(random.random(3) < 0.5, random.uniform(0, 40, 3), random.uniform(215, 255, 3))

    def frame(self, shape: str) -> np.ndarray:
        """The next frame, (64, 64, 3) uint8, with this shape."""
        for axis in range(2):
            if not self._radius <= self._place[axis] + self._speed[axis] <= SIZE - self._radius:
                self._speed[axis] *= -1
        self._place += self._speed
        y, x = np.mgrid[:SIZE, :SIZE] - self._place[:, None, None]
        inside = {
            "circle": np.hypot(x, y) <= self._radius,
            "square": np.maximum(abs(x), abs(y)) <= 0.85 * self._radius,
            "triangle": (y <= 0.7 * self._radius) & (abs(x) * 1.6 <= y + self._radius),
        }[shape]
        picture = np.where(inside[..., None], self._colour, self._background)
        self._light = STEADINESS * self._light + self._random.normal(0, FLICKER)
        picture = picture * (1 + self._light) + self._random.normal(0, SENSOR_NOISE, picture.shape)
        return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def write_video(path: Path, frames: list[np.ndarray]) -> None:
    """Encode frames (height, width, 3) uint8 as H.264."""
    import av

    def encode(temporary: Path) -> None:
        with av.open(str(temporary), "w") as container:
            stream = container.add_stream("libx264", rate=FRAME_RATE, options={"crf": "18", "preset": "veryfast"})
            stream.height, stream.width = frames[0].shape[:2]
            stream.pix_fmt = "yuv420p"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())

    make_folder(path.parent)
    write_atomically(path, encode)


def train_baseline(example: Example, listener: Listener, make_scene: type[Scene]) -> None:
    """Train a small per-frame classifier on still pictures and save it: the pretrained model of the example."""
    import keras

    keras.utils.set_random_seed(0)
    random = np.random.default_rng(1)
    labels = np.arange(PICTURES) % len(SHAPES)
    pictures = np.stack([make_scene(random).frame(SHAPES[label]) for label in labels])
    model = baseline()
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])

    class Tell(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            words = f"accuracy {(logs or {})['accuracy']:.3f}"
            listener.progress("training the baseline", epoch + 1, BASELINE_EPOCHS, words)

    model.fit(pictures, labels, epochs=BASELINE_EPOCHS, batch_size=32, verbose=0, callbacks=[Tell()])
    write_atomically(example.model, model.save)


def baseline() -> keras.Model:
    """Four plain convolutions on 64x64 frames, pixels 0 to 255."""
    import keras
    from keras import layers

    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.Rescaling(1 / 255)(inputs)
    for index, filters in enumerate((16, 32, 48, 64)):
        x = layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False, name=f"conv_{index}")(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.Activation("relu", name=f"relu_{index}")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(len(SHAPES), activation="softmax", name="shape")(x))

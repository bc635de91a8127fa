"""A model and videos so small that a whole run takes seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.video.painted import write_video

SIZE = 16
FRAMES = 12
CLASSES = ("dark", "light")
FAST: dict[str, Any] = {"frames": 4, "batch": 4, "relative_threshold": 0.5}
"""Settings that leave out the search for steps."""


def small_model(classes: int = 2) -> Any:
    """Two convolutions on 16x16 frames, pixels 0 to 255, with weights that tell brightness apart."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.Rescaling(1 / 255, name="scale")(inputs)
    x = layers.Conv2D(4, 3, strides=2, use_bias=False, name="conv1")(x)
    x = layers.BatchNormalization(name="norm1")(x)
    x = layers.ReLU(name="relu1")(x)
    x = layers.Conv2D(6, 3, activation="relu", name="conv2")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(classes, activation="softmax", name="head")(x), name="small")


def write_small_model(path: Path, classes: int = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    small_model(classes).save(path)
    return path


def write_small_video(path: Path, light: bool, seed: int, frames: int = FRAMES) -> Path:
    """A noisy surface, dark or light, over which a bright square wanders."""
    random = np.random.default_rng(seed)
    surface = random.normal(170 if light else 70, 15, (32, 32, 3))
    pictures = []
    for frame in range(frames):
        picture = surface + random.normal(0, 3, surface.shape)
        picture[8:16, 2 * frame % 24 :][:, :8] += 60
        pictures.append(np.clip(picture, 0, 255).astype(np.uint8))
    return write_video(path, pictures=pictures)


def write_small_videos(root: Path, per_class: int = 5) -> Path:
    """A folder per class; a fifth of each is kept for validation."""
    for light, name in enumerate(CLASSES):
        for number in range(per_class):
            write_small_video(root / name / f"{name}{number}.avi", bool(light), seed=10 * light + number)
    return root

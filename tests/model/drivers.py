"""A small network with further inputs of every kind, and what it is driven by."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

from deltafine.model.further_inputs import further_inputs
from tests.model.small_models import randomise

SHAPE = (12, 10, 3)
COMMANDS = 3


def driver(form: str = "list", seed: int = 0, embedded: bool = True) -> Any:
    """Frames, a speed, a command through an embedding, a goal of two numbers, and a weight that scales channels."""
    keras.utils.set_random_seed(seed)
    frames = keras.Input(SHAPE, name="frames")
    speed = keras.Input((1,), name="speed")
    command = keras.Input((), dtype="int32", name="command")
    goal = keras.Input((2,), name="goal")
    x = layers.Conv2D(4, 3, activation="relu", name="conv1")(layers.Rescaling(1 / 255)(frames))
    gate = layers.Dense(4, activation="sigmoid", name="gate")(goal)
    x = layers.Multiply()([x, layers.Reshape((1, 1, 4))(gate)])
    x = layers.Conv2D(5, 3, strides=2, activation="relu", name="conv2")(x)
    x = layers.GlobalAveragePooling2D()(x)
    told = layers.Embedding(COMMANDS, 3, name="told")(command)
    if not embedded:
        told = layers.Rescaling(0.5)(layers.Reshape((1,))(command))
    pace = layers.Dense(6, activation="relu", name="pace")(speed)
    x = layers.Concatenate()([x, told, pace])
    answer = layers.Dense(2, name="answer")(layers.Dense(8, activation="relu", name="hidden")(x))
    inputs: Any = [frames, speed, command, goal]
    if form == "last":
        inputs = [speed, command, goal, frames]
    if form == "dict":
        inputs = {"frames": frames, "speed": speed, "command": command, "goal": goal}
    return randomise(keras.Model(inputs, answer, name="driver"))


def drive(frames: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (time, height, width, channels) uint8, and (time, 4): speed, command and goal, often as before."""
    random = np.random.default_rng(seed)
    pictures = np.repeat(random.integers(0, 256, (1, *SHAPE), dtype=np.uint8), frames, axis=0)
    values = np.zeros((frames, 4), np.float32)
    for number in range(frames):
        if number % 2:
            pictures[number:, number : number + 3] = random.integers(0, 256, 3)
        if number % 3 != 1:
            values[number:, 0] = random.normal()
        values[number:, 1] = number // 2 % COMMANDS
        values[number:, 2:] = number // 4
    return pictures, values


def given(pictures: np.ndarray, values: np.ndarray, form: str) -> Any:
    """The same as Keras takes it."""
    parts = {"speed": values[..., :1], "command": values[..., 1].astype("int32"), "goal": values[..., 2:]}
    frames = pictures.astype("float32")
    if form == "dict":
        return {"frames": frames, **parts}
    return [*parts.values(), frames] if form == "last" else [frames, *parts.values()]


def in_order(model: Any, values: np.ndarray) -> np.ndarray:
    """The values in the order of the model's inputs."""
    places = {"speed": [0], "command": [1], "goal": [2, 3]}
    return values[..., [place for one in further_inputs(model) for place in places[one.name]]]

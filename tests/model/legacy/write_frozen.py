"""Write what Keras 2 (the package ``tf_keras``) stores of nested models that are frozen in part, as ``frozen.json.gz``.

``python -m tests.model.legacy.write_frozen`` needs ``pip install tf_keras``; the tests write the files anew from it.
"""

from __future__ import annotations

import gzip
import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tf_keras as keras
from tf_keras import layers

from tests.model.legacy.files import FROZEN, as_plain

SHAPE = (3, 3, 3)


def weighted(base: Any) -> list[Any]:
    return [layer for layer in base.layers if layer.weights]


def free(base: Any) -> None:
    """As it was made."""


def frozen(base: Any) -> None:
    base.trainable = False


def last_thawed(base: Any) -> None:
    base.trainable = False
    weighted(base)[-1].trainable = True


def first_thawed(base: Any) -> None:
    base.trainable = False
    weighted(base)[0].trainable = True


def middle_thawed(base: Any) -> None:
    base.trainable = False
    weighted(base)[len(weighted(base)) // 2].trainable = True


def half_thawed(base: Any) -> None:
    base.trainable = False
    for layer in weighted(base)[len(weighted(base)) // 2 :]:
        layer.trainable = True


def last_frozen(base: Any) -> None:
    weighted(base)[-1].trainable = False


FREEZING = (free, frozen, last_thawed, first_thawed, middle_thawed, half_thawed, last_frozen)
KINDS = ("sequential", "functional")


def stacked(kind: str, parts: list[Any], name: str) -> Any:
    if kind == "sequential":
        return keras.Sequential([keras.Input(SHAPE), *parts], name=name)
    value = inputs = keras.Input(SHAPE)
    for part in parts:
        value = part(value)
    return keras.Model(inputs, value, name=name)


def model_of(base_kind: str, normalised: bool, freeze: Any, outer_kind: str, compiled: bool) -> Any:
    """Three convolutions of the same shape inside, so that no shape tells them apart."""
    inside: list[Any] = []
    for _ in range(3):
        inside.append(layers.Conv2D(3, 1, activation="relu"))
        if normalised:
            inside.append(layers.BatchNormalization())
    base = stacked(base_kind, inside, "base")
    model = stacked(outer_kind, [layers.Conv2D(3, 1), base, layers.GlobalAveragePooling2D(), layers.Dense(2)], "whole")
    freeze(base)
    if compiled:
        model.compile("sgd", "mse")
    return model


def main() -> None:
    generator, cases = np.random.default_rng(0), {}
    inputs = generator.uniform(-1, 1, (2, *SHAPE)).round(3).astype("float32")
    for choice in itertools.product(KINDS, (False, True), FREEZING, KINDS, (False, True)):
        keras.backend.clear_session()
        model = model_of(*choice)
        for weight in model.weights:
            low, high = (0.5, 1.5) if "variance" in weight.name else (-0.5, 0.9)
            weight.assign(generator.uniform(low, high, weight.shape).round(3))
        base_kind, normalised, freeze, outer_kind, compiled = choice
        words = [base_kind, "norms" if normalised else "plain", freeze.__name__, f"in {outer_kind}"]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.h5")
            model.save(path)
            with h5py.File(path, "r") as file:
                stored = as_plain(file)
        outputs = model.predict(inputs, verbose=0).tolist()
        cases[", ".join(words + ["compiled"] * compiled)] = {"file": stored, "outputs": outputs}
    text = json.dumps({"inputs": inputs.tolist(), "cases": cases})
    FROZEN.write_bytes(gzip.compress(text.encode(), mtime=0))


if __name__ == "__main__":
    main()

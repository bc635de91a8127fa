"""A few training steps on one device or on several virtual CPUs, in a process of its own; prints JSON.

TensorFlow takes the number of devices only before it has computed anything.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deltafine import workers
from deltafine.measurement.parts import OutputPart, PartLabels
from deltafine.model import DeltaSettings, find_activations, insert_deltas, select_sites
from deltafine.model.clip_model import with_time
from deltafine.refinement.training.losses import ClassificationLoss, RegressionLoss
from deltafine.refinement.training.step import Trainer
from deltafine.refinement.training.teaching import Features
from deltafine.settings import resolve
from tests.small_runs import SIZE, small_model

SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "labels alone": {"distill": 0.0},
    "everything": {"accumulate": 2, "threshold_learning_rate": 0.01, "weight_decay": 0.01, "freeze_batchnorm": True},
    "sgd": {"optimizer": "sgd"},
    "half": {"mixed_precision": True},
    "carried": {"start": "carried"},
    "outputs": {"distill": 0.5},
}
SIZES = (6, 6, 5, 1, 2, 6)


def regularised_model() -> Any:
    """The small model with a penalty on its weights and a bound on them."""
    plain = small_model()
    config = plain.get_config()
    for layer in config["layers"]:
        if layer["class_name"] == "Conv2D":
            layer["config"]["kernel_regularizer"] = keras.regularizers.serialize(keras.regularizers.L2(0.01))
            layer["config"]["kernel_constraint"] = keras.constraints.serialize(keras.constraints.MaxNorm(0.5))
    model = keras.Model.from_config(config)
    model.set_weights(plain.get_weights())
    return model


def batches() -> list[tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(0)
    made = []
    for size in SIZES:
        labels = random.integers(-1, 2, size)
        frames = random.integers(0, 120, (size, 5, SIZE, SIZE, 3)) + 100 * np.abs(labels)[:, None, None, None, None]
        made.append((frames.astype(np.uint8), labels.astype(np.int64)))
    return made


def labelled_by_frame(batch: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The same with a label for each frame, those of one clip in four without any."""
    frames, labels = batch
    by_frame = labels[:, None] + np.arange(frames.shape[1]) % 2
    by_frame[::4] = -1
    return frames, by_frame


def outputs_loss(teacher: Any) -> RegressionLoss:
    """Of two outputs, of which the first has labels for some frames."""
    parts = (OutputPart("first", (1,), labels=PartLabels()), OutputPart("second", (1,)))
    frames = np.concatenate([frames for frames, _ in batches()]).astype(np.float32)
    answers = np.asarray(with_time(teacher)(frames, training=False)).reshape(-1, 2)
    return RegressionLoss(answers, 0.5, parts=parts, truth=np.array([[0.1, np.nan], [0.9, np.nan], [np.nan, np.nan]]))


def train(name: str, devices: int) -> dict[str, Any]:
    """Losses of every step, and the weights at the end."""
    keras.utils.set_random_seed(0)
    team = workers.all_devices()
    assert team.replicas == devices
    settings = resolve(model="m", data="d", warmup=0.2, **SETTINGS[name])
    model = regularised_model() if name == "everything" else small_model()
    sites = select_sites(find_activations(model))
    with team.scope():
        student = insert_deltas(
            model,
            sites,
            DeltaSettings(
                initial_threshold=0.2, train_threshold=settings.rate_of_thresholds > 0, random_start=settings.noisy
            ),
        )
        teacher = insert_deltas(model, []) if settings.teaching else None
    if settings.freezes_batchnorm:
        for layer in student.layers:
            layer.trainable = layer.trainable and not isinstance(layer, keras.layers.BatchNormalization)
    shares = {site.delta_name: site.mac_share for site in sites if site.selected}
    loss = outputs_loss(teacher) if name == "outputs" else ClassificationLoss(True, settings.teaching)
    features = None
    if teacher is not None and name == "everything":
        videos = [frames[0].astype(np.float32) for frames, _ in batches()]
        features = Features.measured(0.5, teacher, student, videos)
    trainer = Trainer(student, teacher, loss, shares, settings, len(SIZES), team, features)
    given = [labelled_by_frame(batch) for batch in batches()] if name == "outputs" else batches()
    figures = [trainer.train_on_batch(*batch, 20.0) for batch in given]
    return {"figures": figures, "weights": [np.asarray(variable).tolist() for variable in student.variables]}


if __name__ == "__main__":
    devices, *names = sys.argv[1:]
    if int(devices) > 1:
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * int(devices)
        )
    print(json.dumps({name: train(name, int(devices)) for name in names or SETTINGS}))

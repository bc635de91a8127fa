"""``DeltaRuntime(..., precision="int8")``: what it needs, what it keeps, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from deltafine import DeltaRuntime
from deltafine.errors import DeltafineError, DeltafineWarning
from deltafine.runtime.lowering.lower import compile_model
from tests.kept_plans import SIZE, write_played_run
from tests.runtime.int8.plans import byte_plan, video
from tests.runtime.models import MODELS, refined

FRAMES = list(video((SIZE, SIZE, 3), 12, 0))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_played_run(tmp_path / "run")


def runtime_of(source: Any, **how: Any) -> DeltaRuntime:
    return DeltaRuntime(source, precision="int8", **how)


def test_it_needs_frames_first_and_says_so(run: Path) -> None:
    runtime = runtime_of(run)
    assert not runtime.calibrated
    for use in (lambda: runtime.step(FRAMES[0]), runtime.stream, runtime.sent, lambda: runtime.sensitivity):
        with pytest.raises(DeltafineError, match="which int8 needs, are not known yet"):
            use()
    with pytest.raises(DeltafineError, match="there are none"):
        runtime.calibrate([])
    with pytest.raises(DeltafineError, match="one of float32, int8, not 'int4'"):
        DeltaRuntime(run, precision="int4")


@pytest.mark.parametrize("engine", ["numpy", "numba"])
def test_ranges_are_kept_with_the_plan(run: Path, engine: str) -> None:
    first = runtime_of(run, engine=engine)
    first.calibrate(FRAMES)
    answers = [first.step(frame) for frame in FRAMES]
    again = runtime_of(run, engine=engine)
    assert again.calibrated
    assert np.array_equal([again.step(frame) for frame in FRAMES], answers)
    exact = DeltaRuntime(run, engine=engine)
    right = [exact.step(frame) for frame in FRAMES]
    assert not np.array_equal(answers, right)
    assert np.allclose(answers, right, atol=0.1)
    assert again.plan.dense_macs() == exact.plan.dense_macs()


def test_damaged_ranges_are_found_again_and_others_are_not_used(run: Path) -> None:
    runtime_of(run).calibrate(FRAMES)
    kept = run / "runtime" / "ranges.json"
    whole = kept.read_text("utf-8")
    for damaged in ("{", "[]", whole.replace("[", "", 1), whole.replace("ranges", "angers")):
        kept.write_text(damaged, "utf-8")
        with pytest.warns(DeltafineWarning, match=r"ranges\.json"):
            assert not runtime_of(run).calibrated
    kept.write_text(whole.replace('"source": "', '"source": "0'), "utf-8")
    assert not runtime_of(run).calibrated  # of another model: nothing is wrong with it
    runtime_of(run).calibrate(FRAMES)
    assert runtime_of(run).calibrated


def test_streams_have_states_of_their_own(run: Path) -> None:
    runtime = runtime_of(run)
    runtime.calibrate(FRAMES)
    one, other = runtime.stream(), runtime.stream()
    for frame in FRAMES:
        one.step(frame)
    assert np.array_equal(other.step(FRAMES[-1]), one.step(FRAMES[-1]))
    assert runtime.memory["state"] < DeltaRuntime(run).memory["state"] * 2


@pytest.mark.parametrize("name", ["plain", "sums", "blocks", "with_unknown_layers"])
def test_what_has_no_form_in_int8_is_named_and_stays_in_floating_point(name: str) -> None:
    model = refined(MODELS[name](), "send-on-delta")
    exact = DeltaRuntime(model)
    frames = list(video(exact.plan.input_shape, 10, 1))
    runtime = runtime_of(model)
    runtime.calibrate(frames)
    notes = " ".join(runtime.plan.notes())
    assert ("In float32" in notes) == (name != "plain")
    assert ("'norm' (LayerNormalization)" in notes) == (name == "blocks")
    right, found = (np.array([one.step(frame) for frame in frames]) for one in (exact, runtime))
    assert np.abs(right - found).max() < 0.15 * np.abs(right).max()


def resnext() -> keras.Model:
    """Convolutions in groups, beside a pyramid of max pooling and an enlarged picture, side by side."""
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(32, 3, strides=2, activation="silu")(inputs)
    for width, groups in ((4, 8), (8, 4), (16, 2), (24, 4)):
        y = layers.Conv2D(width * groups, 1, activation="relu")(x)
        y = layers.Conv2D(width * groups, 3, padding="same", groups=groups, activation="gelu")(y)
        x = layers.Add()([x, layers.Conv2D(32, 1)(y)])
    x = layers.Activation("silu")(x)
    large = layers.MaxPooling2D(5, strides=1, padding="same")(x)
    small = layers.UpSampling2D(3)(layers.MaxPooling2D(3, padding="same")(layers.Conv2D(6, 1, activation="tanh")(x)))
    x = layers.Concatenate()([large, small, x])
    return keras.Model(inputs, layers.Dense(7)(layers.GlobalAveragePooling2D()(layers.Conv2D(20, 3)(x))))


@pytest.mark.parametrize(
    "network", ["MobileNet", "MobileNetV2", "MobileNetV3Small", "EfficientNetB0", "ResNet50", "DenseNet121", "resnext"]
)
def test_whole_networks_are_in_int8(network: str) -> None:
    keras.utils.set_random_seed(0)
    if network == "resnext":
        model = resnext()
    else:
        model = getattr(keras.applications, network)(weights=None, input_shape=(32, 32, 3), classes=7)
    plan = compile_model(model).plan
    found = byte_plan(plan, list(video((32, 32, 3), 1, 0)))
    assert [operation.name for operation in found.in_floating_point if operation.layer != "Softmax"] == []
    products = [one for one in found.operations if one.kind in ("conv", "depthwise")]
    assert products
    assert all(found.on_bytes(one) for one in products)
    assert [one for one in products if found.steps[one.output].in_floats] == products[-1:]

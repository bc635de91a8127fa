from __future__ import annotations

import json
import subprocess
import sys

import keras
import numpy as np
import pytest

from deltafine.errors import DeltafineError
from deltafine.exporting.forms import export_plain, frames_of
from deltafine.exporting.tflite import compare, to_tflite
from deltafine.exporting.thresholds import threshold_table
from deltafine.model import DeltaSettings, delta_layers, find_activations, insert_deltas
from tests.layers.own_rules import Halfway, Hysteresis, Truncated
from tests.model import small_models


def refined(name="plain", frames=None, **settings):
    """A clip model whose weights and steps are not those of the original."""
    model = getattr(small_models, name)()
    options = {"rule": "quantize", "initial_threshold": 0.05, **settings}
    return insert_deltas(model, find_activations(model), DeltaSettings(**options), frames=frames)


def per_frame(clip_model, clips):
    model = keras.Model(clip_model.input, clip_model.get_layer("frame_predictions").output)
    return model.predict(clips, verbose=0).reshape(-1, clip_model.output_shape[-1])


@pytest.mark.parametrize("name", ["plain", "nested", "sequential"])
def test_the_stripped_form_is_the_network_without_steps(name):
    clips, original = small_models.clips(), getattr(small_models, name)()
    exported = export_plain(refined(name), "stripped")
    frames = clips.reshape(6, 12, 10, 3)
    np.testing.assert_array_equal(exported.predict(frames, verbose=0), original.predict(frames, verbose=0))


@pytest.mark.parametrize(
    ("name", "threshold_per"),
    [
        ("plain", "layer"),
        ("plain", "channel"),
        ("nested", "neuron"),
        ("shared_layer", "channel"),
        ("sequential", "layer"),
    ],
)
def test_the_quantized_form_predicts_what_the_refined_model_predicts(name, threshold_per, tmp_path):
    model, clips = refined(name, threshold_per=threshold_per), small_models.clips()
    for index, layer in enumerate(delta_layers(model).values()):
        layer.set_threshold(
            np.linspace(0.02, 0.3, layer.threshold.shape.num_elements() or 1).reshape(layer.threshold.shape) + index
        )
    exported = export_plain(model, "quantized")
    exported.save(tmp_path / "plain.keras")
    for plain in (exported, keras.models.load_model(tmp_path / "plain.keras")):
        found = plain.predict(clips.reshape(6, 12, 10, 3), verbose=0)
        np.testing.assert_array_equal(found, per_frame(model, clips))


@pytest.mark.parametrize(
    ("name", "granularity"), [("plain", "element"), ("nested", "pixel"), ("shared_layer", "element")]
)
def test_values_held_from_frame_to_frame_need_a_clip(name, granularity, tmp_path):
    clips, steps = small_models.clips(), {"input": 60.0}
    model = refined(name, rule="send-on-delta", granularity=granularity, initial_threshold=steps)
    with pytest.raises(DeltafineError, match="give --frames"):
        export_plain(model, "quantized")
    export_plain(model, "quantized", frames=3).save(tmp_path / "plain.keras")
    exported = keras.models.load_model(tmp_path / "plain.keras")
    np.testing.assert_array_equal(exported.predict(clips, verbose=0), model.predict(clips, verbose=0))
    assert not np.array_equal(per_frame(model, clips), per_frame(refined(name, rule="identity"), clips))


def test_an_exported_model_loads_without_deltafine(tmp_path):
    export_plain(refined("nested"), "quantized").save(tmp_path / "plain.keras")
    program = (
        "import sys; sys.modules['deltafine'] = None\n"
        f"import keras; model = keras.models.load_model({str(tmp_path / 'plain.keras')!r})\n"
        "print(model.output_shape)"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "(None, 3)"


def test_mixed_precision_is_exported_bit_by_bit_operation_by_operation():
    """Compiled, TensorFlow fuses the two graphs in different ways, and bfloat16 shows it; one by one they agree."""
    inputs = keras.Input((12, 10, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu", dtype="mixed_bfloat16", name="conv")(inputs)
    x = keras.layers.Dense(3, name="head")(keras.layers.Flatten()(x))
    model = small_models.randomise(keras.Model(inputs, x))
    clip_model = insert_deltas(model, find_activations(model), DeltaSettings(rule="quantize", initial_threshold=0.3))
    clips = small_models.clips()
    frames = keras.Model(clip_model.input, clip_model.get_layer("frame_predictions").output)
    found = export_plain(clip_model, "quantized")(clips.reshape(6, 12, 10, 3), training=False)
    np.testing.assert_array_equal(found, np.reshape(frames(clips, training=False), (6, 3)))


def test_the_steps_are_written_as_plain_values():
    table = threshold_table(refined("nested", threshold_per="channel", initial_threshold=0.25))
    assert json.loads(json.dumps(table)) == table
    first = next(layer for layer in table["layers"] if layer["name"] == "backbone/conv_delta")
    assert first["threshold"] == pytest.approx([0.25] * 4)
    assert (first["rule"], first["granularity"], first["threshold_per"]) == ("quantize", "element", "channel")


@pytest.mark.parametrize(
    ("form", "rule"), [("stripped", "quantize"), ("quantized", "quantize"), ("quantized", "send-on-delta")]
)
def test_a_tflite_file_agrees_with_the_exported_model(form, rule):
    exported = export_plain(refined("plain", rule=rule), form, frames=3)
    agreement = compare(to_tflite(exported), exported, frames_of(small_models.clips(), exported))
    assert agreement.frames == (2 if rule == "send-on-delta" else 6)
    assert agreement.largest_difference < 1e-2
    if form == "stripped":
        assert agreement.largest_difference < 1e-5
        assert agreement.same_class == 1.0


def test_a_tflite_file_of_another_model_does_not_agree():
    exported = export_plain(refined("plain"), "stripped")
    content = to_tflite(exported)
    exported.get_layer("conv1").kernel.assign(exported.get_layer("conv1").kernel * -1)
    inputs = frames_of(small_models.clips(), exported)
    assert compare(content, exported, inputs).largest_difference > 1e-3


def test_what_cannot_be_exported_is_refused():
    with pytest.raises(DeltafineError, match="form must be one of"):
        export_plain(refined(), "squeezed")
    with pytest.raises(DeltafineError, match="has no delta layers"):
        export_plain(small_models.plain())
    with pytest.raises(DeltafineError, match="at least one frame"):
        compare(b"", None, [])


@pytest.mark.parametrize("granularity", ["element", "pixel"])
@pytest.mark.parametrize("rule", [Truncated(), Hysteresis(0.4), Halfway()])
def test_rules_of_ones_own_are_exported_with_plain_operations(rule, granularity, tmp_path):
    model, clips = refined("plain", rule=rule, granularity=granularity, initial_threshold=0.1), small_models.clips()
    exported = export_plain(model, "quantized", frames=3)
    exported.save(tmp_path / "plain.keras")
    plain = keras.models.load_model(tmp_path / "plain.keras", custom_objects={})
    if rule.has_memory:
        np.testing.assert_array_equal(plain.predict(clips, verbose=0), model.predict(clips, verbose=0))
    else:
        found = plain.predict(clips.reshape(6, 12, 10, 3), verbose=0)
        np.testing.assert_array_equal(found, per_frame(model, clips))
    config = json.dumps(plain.get_config())
    assert "deltafine" not in config
    assert "own_rules" not in config


def test_a_rule_with_memory_needs_a_clip_length_and_is_named():
    with pytest.raises(DeltafineError, match=r"The rule hysteresis holds values .*: give --frames"):
        export_plain(refined("plain", rule=Hysteresis()), "quantized")


def test_the_threshold_table_says_what_a_rule_of_ones_own_is():
    (first, *_) = threshold_table(refined("plain", rule=Hysteresis(0.4)))["layers"]
    assert first["rule"] == "hysteresis"
    assert first["rule_config"]["class_name"] == "Hysteresis"
    assert first["rule_config"]["config"] == {"margin": 0.4}
    assert "rule_config" not in threshold_table(refined("plain", rule="quantize"))["layers"][0]

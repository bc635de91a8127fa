"""What the probe counts, against brute force, layer by layer and frame by frame."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from deltafine.errors import DeltafineError
from deltafine.measurement import Probe
from deltafine.model import DeltaSettings, find_activations, insert_deltas, select_sites
from tests.measurement.by_hand import changes, collect, macs_that_meet, sparse_video, stages, whole_numbers

FRAME = (9, 8, 4)
COVERED = {
    "valid": layers.Conv2D(6, 3),
    "same": layers.Conv2D(6, (2, 3), padding="same", activation="relu"),
    "strided": layers.Conv2D(6, 3, strides=(2, 3), padding="same"),
    "strided_valid": layers.Conv2D(5, (4, 2), strides=3),
    "dilated": layers.Conv2D(6, 3, dilation_rate=2),
    "dilated_same": layers.Conv2D(6, 3, dilation_rate=(1, 2), padding="same"),
    "grouped": layers.Conv2D(6, 3, groups=2, padding="same"),
    "grouped_strided": layers.Conv2D(8, 3, groups=4, strides=2),
    "pointwise": layers.Conv2D(7, 1, use_bias=False),
    "depthwise": layers.DepthwiseConv2D(3, padding="same"),
    "depthwise_strided": layers.DepthwiseConv2D(3, strides=2, depth_multiplier=3),
    "depthwise_dilated": layers.DepthwiseConv2D(2, dilation_rate=3, padding="same"),
    "separable": layers.SeparableConv2D(5, 3, padding="same", depth_multiplier=2),
    "separable_strided": layers.SeparableConv2D(5, 3, strides=2),
    "transposed": layers.Conv2DTranspose(3, 3, strides=2, padding="same"),
    "transposed_sparse": layers.Conv2DTranspose(3, 2, strides=3),
    "transposed_padded": layers.Conv2DTranspose(3, 3, strides=2, padding="same", output_padding=1),
    "dense_of_pixels": layers.Dense(5),
    "einsum": layers.EinsumDense("bhwc,wcd->bhd", (None, 5)),
    "dense": layers.Dense(5),
    "causal": layers.Conv1D(6, 3, padding="causal", dilation_rate=2),
    "row_depthwise": layers.DepthwiseConv1D(3, strides=2, padding="same"),
    "row_separable": layers.SeparableConv1D(6, 3, padding="same"),
    "row_transposed": layers.Conv1DTranspose(6, 3, strides=2),
    "volume": layers.Conv3D(3, (3, 2, 3), strides=(2, 1, 1), padding="same"),
}
SHAPES = {
    "dense": (288,), "volume": (9, 8, 4, 1),
    **dict.fromkeys(["causal", "row_depthwise", "row_separable", "row_transposed"], (9, 32)),
}  # fmt: skip
CLIPS = sparse_video((2, 4, *FRAME))


@pytest.fixture(scope="module")
def measured():
    """All layers side by side on one input: their places and counts by path."""
    frames = keras.Input(FRAME)
    branches = []
    for name, layer in COVERED.items():
        layer.name = name
        branches.append(layers.Flatten()(layer(layers.Reshape(SHAPES.get(name, FRAME))(frames))))
    model = whole_numbers(keras.Model(frames, layers.Concatenate()(branches)))
    clip_model = insert_deltas(model, [])
    probe = Probe(clip_model)
    piece = probe.run(CLIPS)
    assert len(probe.layers) == len(piece.counts) == len(COVERED) + 3
    return clip_model, {place.name: (place, counts) for place, counts in zip(probe.layers, piece.counts, strict=True)}


@pytest.mark.parametrize("name", COVERED)
def test_counts_equal_brute_force(name, measured):
    clip_model, places = measured
    layer = clip_model.get_layer(name)
    inputs = CLIPS.reshape(8, *SHAPES.get(name, FRAME))
    parts = stages(layer, inputs)
    for suffix, (part, x) in zip(["/depthwise", "/pointwise"] if len(parts) > 1 else [""], parts, strict=True):
        place, counts = places[name + suffix]
        clips = x.reshape(2, 4, *x.shape[1:])
        changed, space = changes(clips), tuple(range(2, clips.ndim))
        np.testing.assert_array_equal(counts.nonzero, (clips != 0).sum(space))
        np.testing.assert_array_equal(counts.changed, changed.sum(space))
        np.testing.assert_array_equal(counts.changed_positions, changed.any(-1).sum(space[:-1]))
        by_frame = [macs_that_meet(part, mask.reshape(x.shape)).reshape(2, 4) for mask in (changed, clips != 0)]
        np.testing.assert_array_equal(counts.macs_delta, by_frame[0])
        np.testing.assert_array_equal(counts.macs_spatial, by_frame[1])
        assert 0 < counts.macs_delta.sum() < counts.macs_spatial.sum()
        assert place.dense_macs == macs_that_meet(part, np.ones((1, *x.shape[1:])))[0]
        assert (place.elements, place.positions) == (x[0].size, x[0].size // x.shape[-1])
        assert all(np.asarray(value).dtype == np.int64 for value in (counts.macs_delta, counts.macs_spatial))


def chain():
    """Pooling, padding, normalisation and a residual sum between delta layers and what they feed."""
    frames = keras.Input((12, 10, 3))
    x = layers.Conv2D(8, 3, padding="same", name="first")(frames)
    x = layers.ReLU(name="relu1")(layers.BatchNormalization(name="norm")(x))
    y = layers.MaxPooling2D(2)(layers.ZeroPadding2D(1)(x))
    y = layers.Conv2D(8, 3, padding="same", activation="relu", name="second")(y)
    z = layers.Add()([layers.Conv2D(8, 1, name="third")(y), y])
    z = layers.Conv2D(8, 3, strides=2, activation="relu", name="fourth")(layers.ReLU(name="relu2")(z))
    z = layers.Dense(3, name="head")(layers.Flatten()(z))
    keras.utils.set_random_seed(1)
    model = keras.Model(frames, z)
    generator = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(generator.uniform(0.1, 1, weight.shape) if "variance" in weight.path else
                      generator.normal(0, 0.3, weight.shape))  # fmt: skip
    return model


@pytest.fixture(scope="module")
def chain_with_deltas():
    model = chain()
    return insert_deltas(
        model, select_sites(find_activations(model)), DeltaSettings(initial_threshold=0.4, granularity="element")
    )


def test_layers_are_counted_at_their_own_inputs_whatever_lies_before_them(chain_with_deltas):
    clip_model = chain_with_deltas
    clips = np.random.default_rng(0).normal(0, 0.3, (2, 5, 12, 10, 3)).cumsum(axis=1).astype("float32")
    probe = Probe(clip_model)
    piece = probe.run(clips)
    names = [place.name for place in probe.layers]
    assert names == ["first", "second", "third", "fourth", "head"]
    inside = keras.Model(clip_model.inputs[0], [clip_model.get_layer(name).input for name in names])(clips)
    for name, x, counts in zip(names, inside, piece.counts[: len(names)], strict=True):
        x = np.asarray(x)
        mask = changes(x.reshape(2, 5, *x.shape[1:]))
        expected = macs_that_meet(clip_model.get_layer(name), mask.reshape(x.shape)).reshape(2, 5)
        np.testing.assert_array_equal(counts.macs_delta, expected)
        assert 0 < mask[:, 1:].mean() < 1


def test_delta_layers_are_counted_at_their_outputs(chain_with_deltas):
    clips = np.random.default_rng(0).normal(0, 0.3, (2, 5, 12, 10, 3)).cumsum(axis=1).astype("float32")
    probe = Probe(chain_with_deltas)
    piece = probe.run(clips)
    names = [place.name for place in probe.deltas]
    assert names == ["input_delta", "relu1_delta", "second_delta", "relu2_delta", "fourth_delta"]
    outputs = keras.Model(chain_with_deltas.inputs[0], [chain_with_deltas.get_layer(name).output for name in names])(
        clips
    )
    inputs = [chain_with_deltas.get_layer(name).input[0] for name in names]
    true = keras.Model(chain_with_deltas.inputs[0], inputs)(clips)
    for sent, before, place, counts in zip(outputs, true, probe.deltas, piece.counts[len(probe.layers) :], strict=True):
        sent, before = (np.asarray(value).reshape(2, 5, *value.shape[1:]) for value in (sent, before))
        changed = changes(sent)
        np.testing.assert_array_equal(counts.changed, changed.sum((2, 3, 4)))
        np.testing.assert_array_equal(counts.changed_positions, changed.any(-1).sum((2, 3)))
        np.testing.assert_array_equal(counts.channel_changed, changed.sum((2, 3)))
        distance = np.abs(sent - before).sum((2, 3, 4)) / 0.4
        np.testing.assert_allclose(counts.staleness, distance, rtol=1e-5)
        assert place.elements == sent[0, 0].size


def test_counting_in_the_graph_gives_the_same_over_pieces_of_a_stream(chain_with_deltas):
    clips = np.random.default_rng(0).normal(0, 0.3, (2, 5, 12, 10, 3)).cumsum(axis=1).astype("float32")
    both = [Probe(chain_with_deltas), Probe(chain_with_deltas, in_graph=True)]
    states = [None, None]
    for part in (clips[:, :2], clips[:, 2:]):
        pieces = [probe.run(part, state) for probe, state in zip(both, states, strict=True)]
        states = [piece.state for piece in pieces]
        for ours, theirs in zip(pieces[0].counts, pieces[1].counts, strict=True):
            for name, value in vars(ours).items():
                if name == "staleness":
                    assert (value is None) == (theirs.staleness is None)
                    assert value is None or np.allclose(value, theirs.staleness, rtol=1e-5)
                else:
                    np.testing.assert_array_equal(value, getattr(theirs, name), err_msg=name)


def test_a_layer_called_twice_has_a_place_for_each_call():
    frames = keras.Input((6, 6, 2))
    twice = layers.Conv2D(2, 3, padding="same", name="twice")
    model = whole_numbers(keras.Model(frames, layers.Flatten()(twice(twice(frames)))))
    clips = sparse_video((1, 3, 6, 6, 2))
    probe = Probe(insert_deltas(model, []))
    piece = probe.run(clips)
    assert [place.name for place in probe.layers] == ["twice", "twice#1"]
    between = np.asarray(model.get_layer("twice")(clips[0]))[None]
    for x, counts in zip([clips, between], piece.counts, strict=True):
        mask = changes(x)
        np.testing.assert_array_equal(counts.macs_delta[0], macs_that_meet(twice, mask[0]))


def test_measuring_does_not_change_what_the_model_predicts(chain_with_deltas):
    clips = np.random.default_rng(0).normal(0, 0.3, (2, 5, 12, 10, 3)).astype("float32")
    piece = Probe(chain_with_deltas).run(clips)
    np.testing.assert_allclose(piece.predictions.mean(axis=1), chain_with_deltas(clips), rtol=1e-4, atol=1e-5)
    assert piece.steady.tolist() == [[False, True, True, True, True]] * 2


def test_broken_values_count_as_changes():
    model = keras.Sequential([keras.Input((2, 2, 1)), layers.Conv2D(1, 1)])
    clips = np.ones((1, 4, 2, 2, 1), "float32")
    clips[0, 1:3, 0, 0] = np.nan
    counts = Probe(insert_deltas(model, [])).run(clips).counts[0]
    assert counts.changed.tolist() == [[0, 1, 1, 1]]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_models_in_mixed_precision_are_measured(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = keras.Sequential([keras.Input((6, 6, 2)), layers.Conv2D(8, 3, activation="relu"), layers.Conv2D(8, 3)])
    finally:
        keras.config.set_dtype_policy(before)
    sites = select_sites(find_activations(model))
    collector = collect(
        insert_deltas(model, sites, DeltaSettings(initial_threshold=0.5)), [sparse_video((2, 4, 6, 6, 2))]
    )
    assert 0 < collector.operations().mac_density < 1
    assert all(0 <= delta.staleness < 1 for delta in collector.deltas())


def test_counts_beyond_32_bits_are_exact():
    model = keras.Sequential([keras.Input((64, 64, 1)), layers.Conv2D(2**20, 1, use_bias=False)])
    place = Probe(insert_deltas(keras.Sequential([keras.Input((1, 1, 1)), layers.Conv2D(1, 1)]), [])).layers[0]
    assert place.dense_macs == 1
    from deltafine.model import dense_macs

    assert dense_macs(model.layers[0], (64, 64, 1)) == 2**32


def test_a_model_that_is_no_clip_model_is_refused():
    with pytest.raises(DeltafineError, match="insert_deltas"):
        Probe(keras.Sequential([keras.Input((6, 6, 2)), layers.Conv2D(3, 3)]))


def test_a_model_without_multiplications_has_no_operations_to_report():
    model = keras.Sequential([keras.Input((6, 6, 2)), layers.MaxPooling2D()])
    with pytest.raises(DeltafineError, match="no layer"):
        collect(insert_deltas(model, []), [np.zeros((1, 3, 6, 6, 2))]).operations()


def test_changes_of_single_frames_cannot_be_measured():
    model = keras.Sequential([keras.Input((6, 6, 2)), layers.Conv2D(3, 3)])
    with pytest.raises(DeltafineError, match="second frame"):
        collect(insert_deltas(model, []), [np.zeros((4, 1, 6, 6, 2))]).operations()

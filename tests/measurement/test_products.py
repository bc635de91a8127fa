"""What is counted inside attention, recurrent layers and layers made of others, against brute force on their values."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers, ops

from deltafine.layers import DeltaActivation, Stream
from deltafine.measurement import Probe, product_counting
from deltafine.measurement.collector import Collector
from deltafine.model import DeltaSettings, find_activations, graph, insert_deltas, mac_layers, select_sites
from deltafine.model.tensor_products import Product
from tests.layers.recurrent_by_hand import Held, by_hand
from tests.measurement.by_hand import changes, macs_that_meet
from tests.model.small_models import randomise
from tests.model.test_uncovered import Block

LABELS = "abcde"


def everywhere(mask: np.ndarray, own: str, sizes: dict[str, int]) -> np.ndarray:
    """A mask (batch, time, own labels...) spread over all labels."""
    order = sorted(sizes)
    spread = mask.transpose(0, 1, *(2 + own.index(name) for name in order if name in own))
    spread = spread.reshape(*mask.shape[:2], *(sizes[name] if name in own else 1 for name in order))
    return np.broadcast_to(spread, (*mask.shape[:2], *(sizes[name] for name in order)))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_counts_in_a_product_equal_brute_force(data):
    sizes = {name: data.draw(st.integers(1, 3)) for name in LABELS}
    own = [data.draw(st.permutations(LABELS).map(lambda names: "".join(names[:3]))) for _ in range(2)]
    sizes = {name: size for name, size in sizes.items() if name in own[0] + own[1]}
    constant = data.draw(st.sampled_from([(False, False), (True, False), (False, True)]))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    continued = data.draw(st.booleans())
    arrays, starts, masks = [], [], []
    for labels, fixed in zip(own, constant, strict=True):
        shape = tuple(sizes[name] for name in labels)
        values = random.integers(0, 3, (2, 4, *shape)).astype("float32")
        if fixed:
            values = np.broadcast_to(values[:1, :1], values.shape)
        changed = changes(values)
        arrays.append(values[0, 0] if fixed else values)
        starts.append(random.integers(0, 3, (2, *shape)).astype("float32") if continued and not fixed else None)
        if (before := starts[-1]) is not None:
            changed[:, 0] = values[:, 0] != before
        masks.append((everywhere(changed, labels, sizes), everywhere(values != 0, labels, sizes)))
    product = Product((own[0], own[1]), sizes, constant)
    rows = product_counting.count(product, arrays, starts)
    axes = tuple(range(2, 2 + len(sizes)))
    np.testing.assert_array_equal(rows[6], (masks[0][0] | masks[1][0]).sum(axis=axes))
    np.testing.assert_array_equal(rows[5], (masks[0][1] & masks[1][1]).sum(axis=axes))
    assert product.dense_macs == np.prod(list(sizes.values()))


def transformer(dropout=0.0):
    inputs = keras.Input((8, 8, 3))
    x = layers.Reshape((16, 5), name="tokens")(layers.Conv2D(5, 2, 2, activation="relu", name="patches")(inputs))
    x = layers.Add()([x, layers.MultiHeadAttention(2, 3, dropout=dropout, name="attention")(x, x)])
    return randomise(keras.Model(inputs, layers.Dense(2, name="head")(layers.GlobalAveragePooling1D()(x))))


def streams(model, video, step=0.3, **choice):
    sites = select_sites(find_activations(model), **choice)
    refined = insert_deltas(
        model, sites, DeltaSettings(initial_threshold=step), frames=video.shape[1] if "at" in choice else None
    )
    collector = Collector(Probe(refined))
    piece = collector.probe.run(video)
    collector.update(piece)
    return refined, collector, dict(zip([place.name for place in collector.probe.layers], piece.counts, strict=False))


def still_corner(shape, seed=0):
    """Noise of which a part holds still."""
    random = np.random.default_rng(seed)
    video = np.repeat(random.uniform(0, 2, (shape[0], 1, *shape[2:])), shape[1], axis=1)
    video[:, :, : shape[2] // 2] = random.uniform(0, 2, (*shape[:2], shape[2] // 2, *shape[3:]))
    return video.astype("float32")


def test_attention_is_counted_product_by_product():
    model, video = transformer(), still_corner((2, 4, 8, 8, 3))
    refined, collector, counts = streams(model, video, skip=["attention/*"])
    attention = refined.get_layer("attention")
    tokens = keras.Model(refined.inputs, refined.get_layer("tokens").output)
    x = np.asarray(tokens(video)).reshape(2, 4, 16, 5)
    flat = x.reshape(8, 16, 5)
    query, key, value = (
        np.asarray(dense(flat)).reshape(2, 4, 16, 2, 3)
        for dense in (attention._query_dense, attention._key_dense, attention._value_dense)
    )
    _, scores = attention(flat, flat, return_attention_scores=True)
    scores = np.asarray(scores).reshape(2, 4, 2, 16, 16)
    for name, size in (("query", 6), ("key", 6), ("value", 6)):
        np.testing.assert_array_equal(counts[f"attention/{name}"].macs_delta, changes(x).sum((2, 3)) * size)
    q, k = (changes(part).transpose(0, 1, 3, 2, 4) for part in (query, key))
    met = q[:, :, :, :, None] | k[:, :, :, None]  # heads, queries, keys, size
    first, second = (found for name, found in counts.items() if "einsum" in name)
    np.testing.assert_array_equal(first.macs_delta, met.sum((2, 3, 4, 5)))
    s, v = changes(scores), changes(value).transpose(0, 1, 3, 2, 4)
    met = s[..., None] | v[:, :, :, None]
    np.testing.assert_array_equal(second.macs_delta, met.sum((2, 3, 4, 5)))
    assert 0 < first.macs_delta[:, 1:].mean() < first.macs_delta.shape[0] * 2 * 16 * 16 * 3
    dense = {layer.name: layer.dense_macs for layer in collector.layers()}
    assert sum(dense.values()) == sum(entry.dense_macs for entry in mac_layers(model))


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_delta_layers_inside_attention_hold_what_its_products_and_its_last_layer_read(dropout):
    model, video = transformer(dropout), still_corner((2, 4, 8, 8, 3))
    refined, collector, counts = streams(model, video, step=0.03)
    inside = refined.get_layer("attention")
    deltas = [layer for layer in inside.layers if isinstance(layer, DeltaActivation)]
    assert len(deltas) == 4
    sent = {}
    with Stream(measuring=True):
        graph.run(refined, [video], lambda path, layer, args, kwargs, outputs: sent.update({path: outputs}))
    query, key, value, attended = (np.asarray(sent[f"attention/{delta.name}"]).reshape(2, 4, 16, 2, 3)
                                   for delta in sorted(deltas, key=_role))  # fmt: skip
    for part in (query, key, value, attended):
        assert 0 < changes(part)[:, 1:].mean() < 1
    q, k = (changes(part).transpose(0, 1, 3, 2, 4) for part in (query, key))
    products = [found for name, found in counts.items() if "einsum" in name]
    np.testing.assert_array_equal(products[0].macs_delta, (q[:, :, :, :, None] | k[:, :, :, None]).sum((2, 3, 4, 5)))
    last = counts["attention/attention_output"]
    np.testing.assert_array_equal(last.macs_delta, changes(attended).sum((2, 3, 4)) * 5)
    dense = {layer.name: layer.dense_macs for layer in collector.layers()}
    assert sum(dense.values()) == sum(entry.dense_macs for entry in mac_layers(model))
    whole = {layer.name for layer in streams(model, video, skip=["attention/*"])[1].layers()}
    assert whole == set(dense)


def _role(delta):
    """Queries, keys, values, what is attended to; where Keras scales queries first, these are a product."""
    names = ["query", "multiply", "key", "value", "dotproductattention", "einsum"]
    return next(place for place, name in enumerate(names) if delta.name.startswith(name))


@pytest.mark.parametrize("causal", [False, True])
def test_heads_that_share_keys_are_counted_token_by_token(causal):
    """By a loop over all MACs; masked ones are computed by the layer, too, so they count."""
    inputs = keras.Input((6, 4, 1))
    grouped = layers.GroupQueryAttention(2, 4, 2, name="attention")
    x = layers.Reshape((6, 4), name="tokens")(inputs)
    model = randomise(keras.Model(inputs, layers.Flatten()(grouped(x, x, use_causal_mask=causal))))
    video = np.random.default_rng(0).uniform(-1, 1, (1, 3, 6, 4, 1)).astype("float32")
    video[:, 1, :4], video[:, 2, 1:] = video[:, 0, :4], video[:, 1, 1:]
    _, collector, counts = streams(model, video, step=1e-9)
    moved = [set(), {4, 5}, {0}]  # tokens
    for name, heads in (("query", 4), ("key", 2), ("value", 2)):
        found = counts[f"attention/{name}"].macs_delta[0].tolist()
        assert found == [len(tokens) * 4 * heads * 2 for tokens in moved]
    first, second = (counts[name].macs_delta[0].tolist() for name in counts if "einsum" in name)
    queries_meet_keys = [
        sum((q in tokens or k in tokens) * 2 for q in range(6) for k in range(6) for _ in range(4)) for tokens in moved
    ]
    assert first == queries_meet_keys
    # A changed key changes every score of the queries that may look at it, and so does a changed query.
    scores = [
        {q for q in range(6) if q in tokens or any(k in tokens for k in range(q + 1 if causal else 6))}
        for tokens in moved
    ]
    looks_at = [{(q, k) for q in rows for k in range(q + 1 if causal else 6)} for rows in scores]
    scores_meet_values = [
        sum(((q, k) in pairs or k in tokens) * 2 for q in range(6) for k in range(6) for _ in range(4))
        for pairs, tokens in zip(looks_at, moved, strict=True)
    ]
    assert second == scores_meet_values
    assert sum(layer.dense_macs for layer in collector.layers()) == mac_layers(model)[0].dense_macs


@pytest.mark.parametrize("causal", [False, True])
def test_the_operation_of_keras_for_attention_is_counted_by_its_two_products(causal):
    inputs = keras.Input((6, 8, 1))
    x = layers.Reshape((6, 4, 2), name="heads")(inputs)
    model = keras.Model(inputs, layers.Flatten()(ops.dot_product_attention(x, x, x, is_causal=causal)))
    video = np.random.default_rng(0).uniform(-1, 1, (1, 3, 6, 8, 1)).astype("float32")
    video[:, 1, :4], video[:, 2, 1:] = video[:, 0, :4], video[:, 1, 1:]
    _, collector, counts = streams(model, video, step=1e-9)
    first, second = (found.macs_delta[0].tolist() for name, found in counts.items() if "einsum" in name)
    assert first == [0, 4 * 2 * (36 - 16), 4 * 2 * (36 - 25)]
    # A score of a changed query or of one that looks at a changed key, or a changed value.
    assert second == ([0, 4 * 2 * 20, 4 * 2 * 21] if causal else [0, 4 * 2 * 36, 4 * 2 * 36])
    assert sum(layer.dense_macs for layer in collector.layers()) == 2 * 4 * 2 * 36


@pytest.mark.parametrize(
    ("equation", "shape", "weights_met"),
    [("btd,dhe->bthe", (None, 2, 3), 6), ("btd,td->bt", (6,), 1), ("btd,tde->bte", (6, 5), 5)],
)
def test_dense_layers_of_any_equation_are_counted_by_the_weights_that_an_element_meets(equation, shape, weights_met):
    inputs = keras.Input((6, 4, 1))
    x = layers.EinsumDense(equation, shape, name="dense")(layers.Reshape((6, 4))(inputs))
    video = still_corner((2, 4, 6, 4, 1))
    _, _, counts = streams(randomise(keras.Model(inputs, layers.Flatten()(x))), video, step=1e-9)
    expected = changes(video).sum((2, 3, 4)) * weights_met
    np.testing.assert_array_equal(counts["dense"].macs_delta, expected)


def kept_in_a_cell(x):
    return layers.RNN(layers.GRUCell(4), name="whole")(x)


def starting_with_a_state(x):
    return layers.GRU(4, name="whole")(x, initial_state=ops.zeros_like(x[:, 0]))


def comparing_all_positions(x):
    return layers.Flatten()(layers.AdditiveAttention(name="whole")([x, x]))


@pytest.mark.parametrize("layer", [kept_in_a_cell, starting_with_a_state, comparing_all_positions])
def test_where_needed_macs_are_not_known_all_of_them_count_in_frames_whose_input_changes(layer):
    inputs = keras.Input((6, 4, 1))
    model = randomise(keras.Model(inputs, layers.Dense(2, name="head")(layer(layers.Reshape((6, 4))(inputs)))))
    (dense,) = (entry.dense_macs for entry in mac_layers(model) if entry.path == "whole")
    video = np.random.default_rng(0).uniform(-1, 1, (1, 4, 6, 4, 1)).astype("float32")
    video[:, 2] = video[:, 1]
    _, collector, counts = streams(model, video, step=1e-9)
    assert counts["whole"].macs_delta[0].tolist() == [0, dense, 0, dense]
    assert counts["whole"].macs_spatial[0].tolist() == [dense] * 4
    assert collector.operations().dense_macs == sum(entry.dense_macs for entry in mac_layers(model))


def test_in_a_window_a_layer_over_time_whose_needed_macs_are_not_known_counts_once():
    inputs = keras.Input((3, 6, 6, 2))
    x = layers.TimeDistributed(layers.Conv2D(3, 3, activation="relu"), name="frames")(inputs)
    x = layers.RNN(layers.LSTMCell(4), name="whole")(layers.TimeDistributed(layers.Flatten(), name="flat")(x))
    model = randomise(keras.Model(inputs, layers.Dense(2, name="head")(x)))
    (dense,) = (entry.dense_macs for entry in mac_layers(model) if entry.path == "whole")
    probe = Probe(insert_deltas(model, []))
    window = np.random.default_rng(0).uniform(0, 1, (1, 3, 6, 6, 2)).astype("float32")
    pieces = [probe.run(window)]
    for clip in (window, window[:, ::-1]):
        pieces.append(probe.run(clip, pieces[-1].state))
    index = [place.name for place in probe.layers].index("whole")
    assert [piece.counts[index].macs_delta.tolist() for piece in pieces] == [[[0]], [[0]], [[dense]]]
    assert probe.layers[index].dense_macs == dense


def test_the_names_of_what_is_inside_are_the_same_every_time():
    video = still_corner((1, 2, 8, 8, 3))
    names = [list(streams(transformer(), video)[2]) for _ in range(2)]
    assert names[0] == names[1]


@pytest.mark.parametrize(("layer", "gates"), [(layers.LSTM, 4), (layers.GRU, 3), (layers.SimpleRNN, 1)])
@pytest.mark.parametrize("both_ways", [False, True])
def test_recurrent_layers_are_counted_step_by_step(layer, gates, both_ways):
    inputs = keras.Input((5, 6, 6, 2))
    x = layers.TimeDistributed(layers.Conv2D(3, 3, strides=2, activation="relu"), name="frames")(inputs)
    x = layers.TimeDistributed(layers.GlobalMaxPooling2D(), name="pool")(x)
    inner = layer(4, name="steps")
    x = layers.Bidirectional(inner, name="steps")(x) if both_ways else inner(x)
    model = randomise(keras.Model(inputs, layers.Dense(2, name="head")(x)))
    video = still_corner((2, 5, 6, 6, 2))
    refined, collector, counts = streams(model, video, at=["activations-only"])
    recurrent = refined.get_layer("steps")
    pooled = np.asarray(keras.Model(refined.inputs, recurrent.input)(video))
    ways = (
        [("forward/", recurrent.forward_layer), ("backward/", recurrent.backward_layer)]
        if both_ways
        else [("", recurrent)]
    )
    for name, way in ways:
        x = pooled[:, ::-1] if way.go_backwards else pooled
        way.return_sequences = True
        states = np.asarray(way(pooled))
        before = np.concatenate([np.zeros_like(states[:, :1]), states[:, :-1]], axis=1)
        for kind, values in (("input", x), ("state", before)):
            found = counts[f"steps/{name}{kind}"]
            np.testing.assert_array_equal(found.macs_delta, changes(values).sum(2) * gates * 4)
            np.testing.assert_array_equal(found.macs_spatial, (values != 0).sum(2) * gates * 4)
    dense = {found.name: found.dense_macs for found in collector.layers()}
    assert sum(dense.values()) == sum(entry.dense_macs for entry in mac_layers(model))


HELD = {
    "LSTM": (lambda: layers.LSTM(4, name="steps"), {"input": 16, "state": 16}),
    "GRU": (lambda: layers.GRU(4, name="steps"), {"input": 12, "state": 12}),
    "GRU, reset before": (
        lambda: layers.GRU(4, reset_after=False, name="steps"),
        {"input": 12, "state": 8, "gated": 4},
    ),
    "SimpleRNN": (lambda: layers.SimpleRNN(4, name="steps"), {"input": 4, "state": 4}),
}


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("kind", HELD)
def test_products_of_input_and_state_count_what_was_sent_in_every_step(kind, held):
    make, weights_met = HELD[kind]
    inputs = keras.Input((5, 6, 6, 2))
    x = layers.TimeDistributed(layers.GlobalMaxPooling2D(), name="pool")(inputs)
    model = randomise(keras.Model(inputs, layers.Dense(2, name="head")(make()(x))))
    video = still_corner((2, 5, 6, 6, 2))
    places = [f"steps/{name}" for name in weights_met if name != "input"] if held else []
    refined, collector, counts = streams(model, video, at=["input", "pool", *places])
    steps = refined.get_layer("steps")
    pooled = np.asarray(keras.Model(refined.inputs, steps.input)(video))
    state, gated = (Held(0.3 if held else 0.0) for _ in range(2))
    by_hand(steps)(steps, pooled.astype("float64"), state, gated)
    multiplied = {"input": pooled, "state": state.all(), **({"gated": gated.all()} if gated.sent else {})}
    assert set(multiplied) == set(weights_met)
    for name, weights in weights_met.items():
        expected = changes(multiplied[name].astype("float32")).sum(2) * weights
        np.testing.assert_array_equal(counts[f"steps/{name}"].macs_delta, expected)
    if held:
        deltas = dict(zip([place.name for place in collector.probe.deltas], collector.deltas(), strict=True))
        found = deltas["steps/state_delta"]
        assert found.delta_density == pytest.approx(changes(state.all())[:, 1:].mean())
        assert 0 < found.delta_density < 0.9
    dense = {layer.name: layer.dense_macs for layer in collector.layers()}
    assert sum(dense.values()) == sum(entry.dense_macs for entry in mac_layers(model))
    assert dense["steps/input"] + dense["steps/state"] + dense.get("steps/gated", 0) == 5 * sum(
        (2 if name == "input" else 4) * weights for name, weights in weights_met.items()
    )


def test_the_zeros_that_a_state_begins_with_need_no_macs_in_any_window():
    inputs = keras.Input((3, 6, 6, 2))
    x = layers.TimeDistributed(layers.Flatten(), name="flat")(inputs)
    model = randomise(keras.Model(inputs, layers.Dense(2, name="head")(layers.LSTM(4, name="steps")(x))))
    probe = Probe(insert_deltas(model, []))
    video = np.random.default_rng(0).uniform(0, 1, (1, 6, 6, 6, 2)).astype("float32")
    first = probe.run(video[:, :3])
    second = probe.run(video[:, 3:], first.state)
    index = [place.name for place in probe.layers].index("steps/state")
    for piece in (first, second):
        assert piece.counts[index].macs_delta.tolist() == [[0, 16 * 4, 16 * 4]]
    of_input = second.counts[index - 1].macs_delta
    np.testing.assert_array_equal(of_input, (video[:, 3:] != video[:, 2:5]).sum((2, 3, 4)) * 16)


@pytest.mark.parametrize("options", [{}, {"strides": 2, "padding": "same"}])
@pytest.mark.parametrize("held", [False, True])
def test_convolutional_recurrent_layers_are_counted_like_their_convolutions(options, held):
    inputs = keras.Input((4, 7, 6, 2))
    x = layers.ConvLSTM2D(3, 3, name="steps", **options)(inputs)
    model = randomise(keras.Model(inputs, layers.Dense(2, name="head")(layers.GlobalAveragePooling2D()(x))))
    video = still_corner((2, 4, 7, 6, 2))
    refined, collector, counts = streams(model, video, step=0.1, at=["input", *["steps/state"] * held])
    recurrent = refined.get_layer("steps")
    sent = np.asarray(keras.Model(refined.inputs, recurrent.input)(video))
    state = Held(0.1 if held else 0.0)
    by_hand(recurrent)(recurrent, sent.astype("float64"), state, Held(0.0))
    before = state.all().astype("float32")
    of_input, of_state = layers.Conv2D(12, 3, **options), layers.Conv2D(12, 3, padding="same")
    for kind, convolution, values in (("input", of_input, sent), ("state", of_state, before)):
        convolution.build((None, *values.shape[2:]))
        mask = changes(values)
        expected = macs_that_meet(convolution, mask.reshape(8, *mask.shape[2:])).reshape(2, 4)
        np.testing.assert_array_equal(counts[f"steps/{kind}"].macs_delta, expected)
    assert collector.operations().dense_macs == sum(entry.dense_macs for entry in mac_layers(model))


def test_layers_made_of_others_are_counted_inside(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, activation="relu", name="first")(inputs)
    x = layers.SpectralNormalization(layers.Conv2D(5, 3, name="inner"), name="wrapped")(x)
    x = ops.matmul(layers.Flatten()(x), np.ones((80, 3), "float32"))
    model = randomise(keras.Model(inputs, layers.Dense(2, name="head")(x)))
    video = still_corner((1, 3, 8, 8, 3))
    refined, _, counts = streams(model, video)
    inner = keras.Model(refined.inputs, refined.get_layer("wrapped").input)
    mask = changes(np.asarray(inner(video)).reshape(1, 3, 6, 6, 4))
    expected = macs_that_meet(refined.get_layer("wrapped").layer, mask.reshape(3, 6, 6, 4)).reshape(1, 3)
    np.testing.assert_array_equal(counts["wrapped/inner"].macs_delta, expected)
    assert next(found for name, found in counts.items() if "matmul" in name).macs_delta[0, 1:].sum() > 0


def test_what_is_inside_a_layer_inside_a_layer_is_counted_too():
    inputs = keras.Input((8, 8, 3))
    x = layers.Reshape((16, 8))(layers.Conv2D(8, 2, 2, activation="relu", name="patches")(inputs))
    x = Block(name="block")(x)
    model = randomise(keras.Model(inputs, layers.Dense(2, name="head")(layers.GlobalAveragePooling1D()(x))))
    _, collector, counts = streams(model, still_corner((1, 3, 8, 8, 3)))
    names = [name for name in counts if name.startswith("block/")]
    assert [name for name in names if name.endswith(("/query", "/key", "/value"))]
    assert collector.operations().dense_macs == sum(entry.dense_macs for entry in mac_layers(model))


def test_a_stream_in_pieces_counts_as_in_one():
    model, video = transformer(), still_corner((1, 6, 8, 8, 3))
    refined = insert_deltas(model, find_activations(model), DeltaSettings(initial_threshold=0.3))
    whole, pieces = Collector(Probe(refined)), Collector(Probe(refined))
    whole.update(whole.probe.run(video))
    state = None
    for start in (0, 2, 4):
        piece = pieces.probe.run(video[:, start : start + 2], state)
        state = piece.state
        pieces.update(piece)
    found = [{layer.name: layer.effective_macs_delta for layer in one.layers()} for one in (whole, pieces)]
    assert found[0] == found[1]

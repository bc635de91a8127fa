"""What DeltaRuntime answers where it is easy to answer wrongly: the Keras model on the same frame is right."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from keras import layers, ops

from deltafine import DeltafineError, DeltaRuntime, find_activations, insert_deltas
from deltafine.exporting.forms import export_plain
from deltafine.model import DeltaSettings, graph, mac_layers
from deltafine.runtime.autotuning import can_run_by_events
from tests.cli.running import Command
from tests.runtime.random_networks import Fragile, Trained, Unlike
from tests.small_runs import write_small_video

ENGINES = ("numba", "numpy")
SHAPE = (6, 7, 3)


def pictures(shape: tuple[int, ...], number: int = 5, seed: int = 0) -> Iterator[np.ndarray]:
    """Noise of which a few values change."""
    draw = np.random.default_rng(seed)
    picture = draw.uniform(0, 255, shape).astype(np.float32)
    for _ in range(number):
        yield picture
        picture = np.where(draw.random(shape) < 0.1, draw.uniform(0, 255, shape), picture).astype(np.float32)


def keras_answer(model: Any, frame: np.ndarray) -> Any:
    answer = model(np.stack([frame, frame]), training=False)  # Keras' Add of a batch of one may go wrong
    return keras.tree.map_structure(lambda part: np.asarray(part)[0], answer)


def assert_as_keras(model: Any, engine: str = "numba", **settings: Any) -> None:
    runtime = DeltaRuntime(model, engine=engine)
    for frame in pictures(runtime.plan.input_shape, **settings):
        ours, theirs = runtime.step(frame), keras_answer(model, frame)
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=max(1e-4, 1e-6 * np.abs(theirs).max()))


def model_of(make: Callable[[Any], Any], shape: tuple[int, ...] = SHAPE, **settings: Any) -> Any:
    inputs = keras.Input(shape, **settings)
    return keras.Model(inputs, make(inputs))


# Outputs


def _ends() -> tuple[Any, Any, Any]:
    inputs = keras.Input(SHAPE)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu")(inputs))
    return inputs, layers.Dense(2)(x), layers.Dense(7)(x)


STRUCTURES: dict[str, Callable[[Any, Any], Any]] = {
    "dict": lambda small, big: {"small": small, "big": big},
    "tuple": lambda small, big: (big, small),
    "list": lambda small, big: [big, small],
    "nested": lambda small, big: {"z": [small, (big,)], "a": {"y": big, "x": small}},
    "one in a dict": lambda small, big: {"big": big},
    "one in a list": lambda small, big: [big],
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_outputs_have_the_names_the_order_and_the_structure_of_the_model(name: str, tmp_path: Path) -> None:
    inputs, small, big = _ends()
    model = keras.Model(inputs, STRUCTURES[name](small, big))
    sites = find_activations(model)
    models = [model, export_plain(insert_deltas(model, sites, DeltaSettings(rule="identity")))]
    models += [
        insert_deltas(model, sites, DeltaSettings(rule="identity"), clip_output=head) for head in ("mean", "per-frame")
    ]
    frame = next(pictures(SHAPE))
    expected = keras_answer(model, frame)
    for number, one in enumerate(models):
        for engine in ENGINES:
            assert_same_structure(DeltaRuntime(one, engine=engine).step(frame), expected)
        file = tmp_path / f"{number}.keras"
        one.save(file)  # Keras makes lists of tuples in it
        expected_of_file = keras_answer(keras.saving.load_model(tmp_path / "0.keras"), frame)
        for _ in ("compiled", "as it was kept"):
            assert_same_structure(DeltaRuntime(file).step(frame), expected_of_file)


def assert_same_structure(ours: Any, theirs: Any) -> None:
    assert type(ours) is type(theirs)
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        ours, theirs = list(ours.values()), list(theirs.values())
    if isinstance(theirs, tuple | list):
        for one, other in zip(ours, theirs, strict=True):
            assert_same_structure(one, other)
    else:
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_kept_plan_names_the_outputs_without_tensorflow(tmp_path: Path) -> None:
    inputs, small, big = _ends()
    keras.Model(inputs, {"small": small, "big": [big, small]}).save(tmp_path / "two.keras")
    DeltaRuntime(tmp_path / "two.keras")
    code = (
        "import sys, numpy as np, deltafine\n"
        f"answer = deltafine.DeltaRuntime({str(tmp_path / 'two.keras')!r}).step(np.zeros({SHAPE}, 'float32'))\n"
        "print(list(answer), [part.shape for part in answer['big']], 'tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "['small', 'big'] [(7,), (2,)] False", done.stderr


def test_run_says_the_outputs_by_their_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, small, big = _ends()
    keras.Model(inputs, {"small": small, "big": [big, small]}).save(tmp_path / "two.keras")
    film = write_small_video(tmp_path / "film.avi", light=True, seed=0, frames=3)
    done = Command(capsys, monkeypatch)("run", tmp_path / "two.keras", film)
    assert done.code == 0, done
    assert done.output.splitlines()[0].startswith("frame 0: small: [")
    assert ", big/0: [" in done.output.splitlines()[0]


def test_run_refuses_a_model_of_no_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model_of(layers.Dense(2), (5,)).save(tmp_path / "vectors.keras")
    film = write_small_video(tmp_path / "film.avi", light=True, seed=0, frames=3)
    assert "(5,)" in Command(capsys, monkeypatch)("run", tmp_path / "vectors.keras", film).refusal


# Frames that no camera should give


def _by_events(model: Any) -> DeltaRuntime:
    runtime = DeltaRuntime(model)
    convolutions = [operation.name for operation in runtime.plan.operations if can_run_by_events(operation)]
    runtime._choose(dict.fromkeys(convolutions, 0.0))
    return runtime


def _two_convolutions(start: Callable[[Any], Any] = lambda x: x / 255.0) -> Any:
    keras.utils.set_random_seed(0)
    return model_of(lambda x: layers.Conv2D(3, 3)(layers.Conv2D(4, 3, activation="relu")(start(x))))


RUNTIMES: dict[str, Callable[[Any], DeltaRuntime]] = {
    "rows": lambda model: DeltaRuntime(model, engine="numba"),
    "events": _by_events,
    "numpy": lambda model: DeltaRuntime(model, engine="numpy"),
}


@pytest.mark.parametrize("name", RUNTIMES)
@pytest.mark.parametrize(("value", "dtype"), [(np.nan, "float32"), (-np.inf, "float16"), (1e300, "float64")])
def test_a_frame_that_is_not_finite_is_left_out(name: str, value: float, dtype: str) -> None:
    model = _two_convolutions()
    runtime = RUNTIMES[name](model)
    for frame in pictures(SHAPE, 8):
        ours = runtime.step(frame)
        np.testing.assert_allclose(ours, keras_answer(model, frame), rtol=1e-4, atol=1e-4)
        broken = frame.astype(dtype)
        broken[2, 3, 1] = value
        with pytest.raises(DeltafineError, match=r"1 values that are not finite .* \(2, 3, 1\)"):
            runtime.step(broken)
        np.testing.assert_array_equal(runtime.step(frame), ours)
        assert runtime.counts is not None
        assert runtime.counts.total("executed_macs") == 0  # the state is that of the frame before


@pytest.mark.parametrize("name", RUNTIMES)
@pytest.mark.parametrize("huge", [1e12, -1e20, 3e38])
@pytest.mark.parametrize("length", [1, 5])
def test_after_huge_values_the_answers_are_right_again(name: str, huge: float, length: int) -> None:
    model = _two_convolutions()
    runtime = RUNTIMES[name](model)
    for number, frame in enumerate(pictures(SHAPE, 30)):
        bad = 8 <= number < 8 + length
        if bad:
            frame = frame.copy()
            frame[2, 3] = huge
        ours = runtime.step(frame)
        if not bad:
            np.testing.assert_allclose(ours, keras_answer(model, frame), rtol=1e-4, atol=1e-4, err_msg=str(number))


def test_values_that_fade_from_huge_to_small_are_right_at_the_end() -> None:
    model = _two_convolutions()
    runtime = _by_events(model)
    draw = np.random.default_rng(0)
    picture = draw.uniform(0.5, 1, SHAPE)
    for number in range(1200):
        frame = (picture * 1e20 * 0.95**number).astype(np.float32)
        ours = runtime.step(frame)
    np.testing.assert_allclose(ours, keras_answer(model, frame), rtol=1e-3, atol=1e-4 * np.abs(ours).max())


@pytest.mark.parametrize("name", RUNTIMES)
def test_infinity_inside_the_network_stays_in_its_frame(name: str) -> None:
    model = _two_convolutions(lambda x: ops.log(x) / 5.0)
    runtime = RUNTIMES[name](model)
    for number, frame in enumerate(pictures(SHAPE, 20)):
        if number == 8:
            frame = frame.copy()
            frame[2, 3] = 0
        ours = runtime.step(frame)
        if number != 8:
            np.testing.assert_allclose(ours, keras_answer(model, frame), rtol=1e-4, atol=1e-4)


def test_by_events_it_stays_by_events() -> None:
    """The sums are given up for values out of range, and not else."""
    model = _two_convolutions()
    runtime = _by_events(model)
    by_events = 0
    for frame in pictures(SHAPE, 200):
        runtime.step(frame)
        assert runtime.counts is not None
        by_events += runtime.counts.total("event_macs") > 0
    assert by_events >= 195


# Steps that break off


@pytest.mark.parametrize("reason", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("engine", ENGINES)
def test_after_a_step_that_broke_off_the_next_one_starts_anew(engine: str, reason: type[BaseException]) -> None:
    model = model_of(lambda x: layers.Conv2D(4, 3)(Fragile()(layers.Conv2D(4, 3)(x / 255.0))))
    runtime = DeltaRuntime(model, engine=engine)
    first, second = list(pictures(SHAPE, 2))
    runtime.step(first)
    Fragile.breaks = reason
    try:
        with pytest.raises(reason):
            runtime.step(second)
        assert runtime.counts is None
        with pytest.raises(reason):
            runtime.step(second)
    finally:
        Fragile.breaks = None
    np.testing.assert_allclose(runtime.step(second), keras_answer(model, second), atol=1e-5)
    np.testing.assert_allclose(runtime.step(first), keras_answer(model, first), atol=1e-5)


# Shapes

AFTER_A_RESHAPE: dict[str, Callable[[Any], Any]] = {
    "Softmax": layers.Softmax(axis=1),
    "UnitNormalization": lambda x: layers.UnitNormalization(axis=1)(x),
    "cumsum": lambda x: ops.cumsum(x, axis=1),
    "GRU": lambda x: layers.GRU(4)(x),
    "attention": lambda x: layers.MultiHeadAttention(1, 2)(x, x),
    "Permute": lambda x: layers.Permute((2, 1))(x),
    "Normalization": lambda x: layers.Normalization(axis=1, mean=np.arange(8.0), variance=np.arange(1.0, 9))(x),
    "BatchNormalization": lambda x: layers.BatchNormalization(axis=1)(x),
    "nothing": lambda x: x,
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", AFTER_A_RESHAPE)
def test_a_layer_behind_a_reshape_sees_the_shape_that_keras_sees(name: str, engine: str) -> None:
    assert_as_keras(
        model_of(lambda x: AFTER_A_RESHAPE[name](layers.Reshape((8, 3))(layers.Rescaling(0.01)(x))), (1, 8, 3)), engine
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_one_value_in_two_shapes(engine: str) -> None:
    def both(x: Any) -> Any:
        x = layers.Conv2D(3, 3, strides=(6, 1))(x)
        along = layers.Softmax(axis=1)(layers.Reshape((5, 3))(x))
        return layers.Concatenate()([layers.Flatten()(x), layers.Flatten()(along)])

    assert_as_keras(model_of(both), engine)


@pytest.mark.parametrize("keepdims", [True, False])
def test_flattening_what_was_pooled_gives_a_vector(keepdims: bool) -> None:
    assert_as_keras(model_of(lambda x: layers.Flatten()(layers.GlobalAveragePooling2D(keepdims=keepdims)(x))))


# Training


def test_layers_left_to_keras_do_what_they_do_when_they_are_used() -> None:
    assert_as_keras(model_of(lambda x: Trained()(x)))
    assert_as_keras(model_of(lambda x: Trained()(x, training=True)))
    assert_as_keras(model_of(lambda x: layers.RandomCrop(4, 5)(x)))
    assert_as_keras(model_of(lambda x: layers.Solarization(value_range=(0, 255))(x)))
    assert_as_keras(model_of(lambda x: layers.Dropout(0.5)(x, training=True)))


def test_a_walk_through_the_graph_runs_it_as_it_is_used() -> None:
    model = model_of(lambda x: Trained()(x, training=True))
    frame = next(pictures(SHAPE))
    (answer,) = graph.run(model, [frame[None]], lambda *_: None)
    np.testing.assert_allclose(answer[0], keras_answer(model, frame))


def test_a_class_of_ones_own_is_not_taken_for_the_layer_that_it_is_made_of() -> None:
    assert_as_keras(model_of(lambda x: Unlike(0.5)(x)))


# Masks

MASKED: dict[str, Callable[[Any], Any]] = {
    "pooling": lambda x: layers.GlobalAveragePooling1D()(layers.Dense(5)(x)),
    "LSTM": lambda x: layers.LSTM(3)(x),
    "GRU": lambda x: layers.GRU(3, return_sequences=True)(layers.Dropout(0.5)(x)),
    "attention, handed over": lambda x: layers.Attention()([x, x], mask=[None, ops.any(x > 0, axis=-1)]),
    "batch normalisation": lambda x: layers.GlobalAveragePooling1D()(layers.BatchNormalization()(x)),
    "a convolution, which loses it": lambda x: layers.GlobalAveragePooling1D()(layers.Conv1D(2, 3)(x)),
    "an operation, which loses it": lambda x: layers.GlobalAveragePooling1D()(x * 2.0),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", MASKED)
def test_masks_are_honoured(name: str, engine: str) -> None:
    model = model_of(lambda x: MASKED[name](layers.Masking(0.0)(x)), (10, 4))
    runtime = DeltaRuntime(model, engine=engine)
    for frame in pictures((10, 4)):
        frame = frame / 255
        frame[7:] = 0
        np.testing.assert_allclose(runtime.step(frame), keras_answer(model, frame), atol=1e-5)


def test_the_mask_of_an_embedding_is_honoured() -> None:
    def words(x: Any) -> Any:
        return layers.LSTM(3)(layers.Embedding(5, 4, mask_zero=True)(ops.cast(x / 64.0, "int32")))

    assert_as_keras(model_of(words, (9,)))


ATTENDED: dict[str, Callable[[Any], Any]] = {
    "attention": lambda x: layers.MultiHeadAttention(1, 2)(x, x),
    "attention, causal or not": lambda x: layers.GroupQueryAttention(2, 2, 1)(x, x, use_causal_mask=False),
    "attention, and another mask": lambda x: layers.MultiHeadAttention(1, 2)(
        x, x, attention_mask=ops.ones((1, 10, 10), "bool")
    ),
    "attention to masked values": lambda x: layers.MultiHeadAttention(1, 2)(x * 1.0, x),
}


@pytest.mark.parametrize("place", ["inside", "outside", *ATTENDED])
def test_a_mask_that_is_not_in_the_graph_is_refused_where_it_matters(place: str) -> None:
    inputs, inside = keras.Input((10, 4)), keras.Input((10, 4))
    if place in ATTENDED:
        model = keras.Model(inputs, ATTENDED[place](layers.Masking(0.0)(inputs)))
    elif place == "inside":
        nested = keras.Model(inside, layers.LSTM(3)(inside))
        model = keras.Model(inputs, nested(layers.Masking(0.0)(inputs)))
    else:
        nested = keras.Model(inside, layers.Masking(0.0)(inside))
        model = keras.Model(inputs, layers.GlobalAveragePooling1D()(nested(inputs)))
    frame = np.ones((10, 4), np.float32)
    frame[6:] = 0
    with pytest.raises(DeltafineError, match="reads the mask of its input"):
        DeltaRuntime(model)


# Broadcasting

BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": ops.add, "subtract": ops.subtract, "multiply": ops.multiply, "maximum": ops.maximum, "minimum": ops.minimum,
    "divide": lambda one, two: ops.divide(one, ops.abs(two) + 1.0),
    "power": lambda one, two: ops.power(ops.abs(one) + 1.0, ops.clip(two, -1.0, 1.0)),
}  # fmt: skip
sizes = some.tuples(some.sampled_from([1, 3]), some.sampled_from([1, 4]), some.sampled_from([1, 3]))


@settings(deadline=None, max_examples=15)
@given(
    kind=some.sampled_from(sorted(BINARY)), size=sizes, other=sizes, constant=some.booleans(), first=some.booleans(),
    rank=some.integers(0, 4), engine=some.sampled_from(ENGINES),
)  # fmt: skip
def test_two_values_of_any_shapes_that_broadcast(
    kind: str, size: tuple[int, ...], other: tuple[int, ...], constant: bool, first: bool, rank: int, engine: str
) -> None:
    draw = np.random.default_rng(rank)
    inputs = keras.Input((3, 4, 3))

    def part(shape: tuple[int, ...]) -> Any:
        x = inputs[:, : shape[0], : shape[1], :] / 255.0
        return layers.Dense(shape[2], use_bias=False)(x)

    numbers = draw.normal(0, 1, (1, *other)[4 - rank :] if rank else ()).astype(np.float32)
    pair = part(size), numbers if constant else part(other)
    model = keras.Model(inputs, BINARY[kind](*(pair if first else pair[::-1])))
    try:
        assert_as_keras(model, engine, number=3)
    except DeltafineError as refusal:
        # Keras takes numbers along one axis for a bias of another one, and announces what is right.
        assert (kind, constant) == ("add", True) and "announces" in str(refusal)  # noqa: PT017, PT018


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "shape", [(3, 1, 1), (1, 3, 1, 1), (1, 3, 1), (5, 1), (5, 1, 1), (1, 5, 1), (3,), (1, 1, 3), (1,), (5, 3, 1)]
)
def test_numbers_that_are_added_along_one_axis(shape: tuple[int, ...], engine: str) -> None:
    numbers = np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)
    for size in ((5, 3, 3), (5, 5, 3), (3, 3, 3)):
        inputs = keras.Input(size)
        try:
            model = keras.Model(inputs, layers.Dense(3)(inputs / 255.0) + numbers)
        except ValueError:  # such shapes do not fit each other
            continue
        assert_as_keras(model, engine, number=3)


@pytest.mark.parametrize("merge", [layers.Add, layers.Subtract, layers.Multiply, layers.Maximum, layers.Concatenate])
def test_merging_layers_of_one_channel_and_many(merge: Any) -> None:
    def merged(x: Any) -> Any:
        one = layers.Dense(1)(x)
        return merge()([layers.Dense(3)(x), one] if merge is not layers.Concatenate else [one, x])

    assert_as_keras(model_of(merged))


# Layers that end otherwise than they say, wrappers, other numbers


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "make",
    [
        lambda x: layers.Activation("glu")(layers.Conv2D(4, 3)(x)),
        lambda x: layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="glu")(x)),
        lambda x: layers.Dense(4, activation="glu")(x),
        lambda x: keras.activations.glu(layers.Conv2D(4, 3)(x)),
        lambda x: layers.TimeDistributed(layers.Dense(4, activation="relu"))(layers.Reshape((42, 3))(x)),
        lambda x: layers.TimeDistributed(layers.Conv1D(4, 3))(x),
        lambda x: layers.TimeDistributed(layers.BatchNormalization())(x),
        lambda x: layers.EinsumDense("bhwc,cd->bhwd", (None, None, 5))(x),
        lambda x: ops.abs(layers.EinsumDense("bhwc,cd->bhwd", (None, None, 5))(x)),
    ],
)
def test_what_a_layer_gives_counts_and_not_what_it_announces(make: Callable[[Any], Any], engine: str) -> None:
    assert_as_keras(model_of(make), engine)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("layer", "kind"), [
    (layers.Conv2D(3, (2, 3), padding="same", groups=3, activation="gelu", bias_initializer="normal"), "depthwise"),
    (layers.Conv2D(6, 3, strides=2, groups=3), "conv"),
])  # fmt: skip
def test_a_group_for_each_channel_is_a_depthwise_convolution(layer: Any, kind: str, engine: str) -> None:
    model = model_of(layer)
    assert_as_keras(model, engine)
    runtime = DeltaRuntime(model, engine=engine)
    assert [one.kind for one in runtime.plan.operations] == ["input", kind]
    assert runtime.plan.dense_macs() == sum(one.dense_macs for one in mac_layers(model))


def test_time_distributed_dense_is_computed_by_the_runtime_and_counted() -> None:
    runtime = DeltaRuntime(model_of(lambda x: layers.TimeDistributed(layers.Dense(4))(x)))
    assert not runtime.plan.unknown
    assert runtime.plan.dense_macs() == 6 * 7 * 3 * 4


def test_whole_numbers_are_computed_as_keras_does_it() -> None:
    model = model_of(lambda x: x * 2, dtype="uint8")  # wraps around at 256
    frame = np.arange(126, dtype=np.uint8).reshape(SHAPE) * 2
    np.testing.assert_array_equal(DeltaRuntime(model).step(frame), keras_answer(model, frame))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda x: ops.mean(x, axis=0), "batch"),
        (lambda x: ops.cast(x, "int32") * 100000, "integers above"),
    ],
)
def test_what_the_runtime_cannot_hold_is_refused_in_a_sentence(make: Callable[[Any], Any], words: str) -> None:
    with pytest.raises(DeltafineError, match=words):
        DeltaRuntime(model_of(make)).step(next(pictures(SHAPE)))


def test_a_layer_that_remembers_frames_is_refused() -> None:
    model = model_of(lambda x: layers.LSTM(3, stateful=True)(layers.Reshape((6, 21))(x)), batch_size=1)
    with pytest.raises(DeltafineError, match="is stateful"):
        DeltaRuntime(model)

"""Inputs beside the frames: insertion, counts, and what is refused; a constant one can be built into the model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from deltafine.errors import DeltafineError
from deltafine.measurement.fitting import fitting
from deltafine.measurement.probe import Probe
from deltafine.model import (
    DeltaSettings,
    delta_layers,
    find_activations,
    graph,
    insert_deltas,
    load,
    preview_insertion,
    select_sites,
)
from deltafine.model.clip_model import with_time
from deltafine.model.further_inputs import further_inputs, inputs_of
from deltafine.runtime.runtime import DeltaRuntime
from deltafine.video.further_values import packed
from tests.model.drivers import COMMANDS, SHAPE, drive, driver, given, in_order

PAGE = Path(__file__).parents[2] / "docs" / "refine.md"
BLOCK = re.compile(r"### Further inputs.*?^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_example_of_a_constant_input_answers_as_the_model_does(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    found: dict[str, Any] = {}
    (example,) = BLOCK.findall(PAGE.read_text())
    keras.utils.set_random_seed(0)
    exec(example, found)
    clips = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32, 3)).astype("float32")
    frames = clips.reshape(6, 32, 32, 3)
    expected = np.asarray(found["model"]([frames, np.full((6, 1), 3.2, "float32")])).reshape(2, 3, 1)
    lossless = insert_deltas(found["fixed"], select_sites(find_activations(found["fixed"])), clip_output="per-frame")
    for layer in delta_layers(lossless).values():
        layer.set_threshold(1e-6)
    assert delta_layers(lossless)
    np.testing.assert_allclose(with_time(lossless)(clips, training=False), expected, rtol=1e-4, atol=1e-3)
    lossless.save(tmp_path / "fixed.keras")
    runtime = DeltaRuntime(tmp_path / "fixed.keras")
    answers = [runtime.step(frame.astype(np.uint8)) for frame in clips[0]]
    np.testing.assert_allclose(np.reshape(answers, (3, 1)), expected[0], rtol=1e-4, atol=1e-3)


FORMS = ["list", "last", "dict"]


@pytest.mark.parametrize("form", FORMS)
def test_insertion_gives_each_input_time_and_changes_no_answer(form: str, tmp_path: Path) -> None:
    model = driver(form)
    clips, values = (np.stack(both) for both in zip(drive(seed=0), drive(seed=1), strict=True))
    plain = insert_deltas(model, [], clip_output="per-frame")
    with_deltas = insert_deltas(model, find_activations(model), DeltaSettings(initial_threshold=1e-30))
    assert len(delta_layers(with_deltas)) >= 5
    per_frame = insert_deltas(
        model, find_activations(model), DeltaSettings(initial_threshold=1e-30), clip_output="per-frame"
    )
    per_frame.save(tmp_path / "refined.keras")
    expected = np.asarray(plain(given(clips, values, form), training=False))
    for one in (per_frame, load(tmp_path / "refined.keras")):
        np.testing.assert_array_equal(one(given(clips, values, form), training=False), expected)
    frames = np.asarray(model(given(clips[0], values[0], form), training=False))
    np.testing.assert_allclose(expected[0], frames, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_a_delta_layer_stands_behind_the_frames_and_behind_no_other_input_unless_it_is_named(form: str) -> None:
    model = driver(form)
    sites = {site.name: site for site in find_activations(model)}
    beside = ["input:speed", "input:command", "input:goal"]
    frames = next(name for name in sites if name.startswith("input:") and name not in beside)
    assert sites[frames].selected
    assert not any(sites[name].selected for name in beside)
    assert "all of its changes are sent" in sites["input:speed"].reason
    named = {site.name for site in select_sites(find_activations(model), ["input:speed"]) if site.selected}
    assert "input:speed" in named
    every = {site.name: site.selected for site in select_sites(find_activations(model), ["*"])}
    assert every["input:speed"]
    assert not every["input:command"]  # a number that stands for something cannot be held
    uncovered = select_sites(find_activations(model), ["default", "uncovered"])
    assert not any(site.selected for site in uncovered if site.name in beside)


def brute_force(model: Any, pictures: np.ndarray, values: np.ndarray, form: str) -> dict[str, list[int]]:
    """MACs of each layer for values that differ from the frame before, by single weights that they meet."""
    names = {"conv1": (3, 1, 4), "conv2": (3, 2, 5)}
    of = {layer.name: layer for layer in model.layers}
    found: dict[str, list[int]] = {}
    for name in ("conv1", "conv2", "gate", "pace", "hidden", "answer"):
        inside = keras.Model(graph.input_structure(model), of[name].input)
        seen = np.asarray(inside(given(pictures, values, form), training=False))
        changed = seen[1:] != seen[:-1]
        if name not in names:
            found[name] = (changed.sum(axis=1) * of[name].units).tolist()
            continue
        size, stride, filters = names[name]
        counts = []
        for frame in changed:
            height, width = ((side - size) // stride + 1 for side in frame.shape[:2])
            counts.append(
                sum(
                    int(frame[y * stride : y * stride + size, x * stride : x * stride + size].sum()) * filters
                    for y in range(height)
                    for x in range(width)
                )
            )
        found[name] = counts
    return found


@pytest.mark.parametrize("form", FORMS)
def test_the_probe_counts_what_changes_of_further_inputs_reach(form: str) -> None:
    model = driver(form)
    pictures, values = drive(10)
    probe = Probe(insert_deltas(model, [], clip_output="per-frame"))
    piece = probe.run(packed(pictures, in_order(model, values))[None])
    found = {
        place.name: counts.macs_delta[0, 1:].tolist()
        for place, counts in zip(probe.layers, piece.counts[: len(probe.layers)], strict=True)
    }
    expected = brute_force(model, pictures, values, form)
    assert found == expected
    assert 0 < sum(expected["pace"]) < 9 * 6  # the speed stands still now and then
    np.testing.assert_allclose(
        piece.predictions[0], model(given(pictures, values, form), training=False), rtol=1e-5, atol=1e-6
    )


def test_a_stream_in_pieces_counts_as_in_one(tmp_path: Path) -> None:
    model = driver()
    pictures, values = drive(10)
    frames = packed(pictures, in_order(model, values))[None]
    probe = Probe(insert_deltas(model, find_activations(model), DeltaSettings(initial_threshold=0.05)))
    whole = probe.run(frames)
    first = probe.run(frames[:, :4])
    rest = probe.run(frames[:, 4:], first.state)
    for one, *two in zip(whole.counts, first.counts, rest.counts, strict=True):
        np.testing.assert_array_equal(one.macs_delta, np.concatenate([piece.macs_delta for piece in two], axis=1))
    assert sum(counts.macs_delta.sum() for counts in whole.counts) > 0


def test_frames_alone_are_refused_where_more_is_taken() -> None:
    probe = Probe(insert_deltas(driver(), [], clip_output="per-frame"))
    assert probe.frame_shape == SHAPE
    with pytest.raises(DeltafineError, match=r"takes 'speed', 'command', 'goal' beside its frames, and was given fr"):
        inputs_of(probe.model, np.zeros((1, 2, *SHAPE), np.float32))


def test_an_embedding_says_which_numbers_there_are() -> None:
    for model in (driver(), insert_deltas(driver("dict"), [])):
        most = {one.name: one.most for one in further_inputs(model)}
        assert most == {"speed": None, "command": COMMANDS, "goal": None}
    assert [one.column for further in further_inputs(driver()) for one in further.wanted] == [
        "speed", "command", "goal_0", "goal_1",
    ]  # fmt: skip


def test_pixels_are_scaled_and_further_inputs_are_not() -> None:
    model = driver()
    pictures, values = drive(4)
    scaled = insert_deltas(model, [], clip_output="per-frame", rescale="0..1")
    answers = scaled(given(pictures[None], values[None], "list"), training=False)
    expected = model(given(pictures / np.float32(255), values, "list"), training=False)
    np.testing.assert_allclose(answers[0], expected, rtol=1e-4, atol=1e-6)


def matrix_beside() -> Any:
    frames, table = keras.Input(SHAPE, name="frames"), keras.Input((4, 4), name="table")
    x = layers.Concatenate()([layers.Flatten()(layers.Conv2D(2, 3)(frames)), layers.Flatten()(table)])
    return keras.Model([frames, table], layers.Dense(2)(x))


def flag_beside() -> Any:
    frames, flag = keras.Input(SHAPE, name="frames"), keras.Input((1,), dtype="bool", name="flag")
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3)(frames))
    return keras.Model([frames, flag], layers.Dense(2)(x) * keras.ops.cast(flag, "float32"))


def clips_beside() -> Any:
    clips, speed = keras.Input((4, *SHAPE), name="clips"), keras.Input((1,), name="speed")
    x = layers.Concatenate()([layers.GlobalAveragePooling3D()(layers.Conv3D(2, 3)(clips)), speed])
    return keras.Model([clips, speed], layers.Dense(2)(x))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (matrix_beside, "Input 'table' of model"),
        (flag_beside, "Input 'flag' of model"),
        (clips_beside, "takes clips and further inputs ('speed')"),
    ],
)
def test_other_inputs_are_refused_by_name(make: Any, words: str) -> None:
    with pytest.raises(DeltafineError) as refusal:
        fitting(make())
    assert words in str(refusal.value)


def test_what_inspect_says_names_the_inputs() -> None:
    model = driver()
    preview = preview_insertion(model, find_activations(model))
    assert preview["model"]["input_shape"]["speed"] == [None, 1]
    assert preview["model"]["input_shape"]["frames"] == [None, *SHAPE]

"""A long video in pieces, with all state carried along."""

from __future__ import annotations

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from deltafine.layers import GRANULARITIES, RULES, DeltaActivation, Stream, current_stream
from deltafine.layers.time import FoldTime, UnfoldTime

VIDEO = np.random.default_rng(0).normal(0, 0.4, (2, 24, 4, 3)).cumsum(axis=1).astype("float32")


def two_deltas(rule, granularity):
    """Two delta layers of different shapes with a layer between them."""
    clips = keras.Input((None, 4, 3))
    frames, clock = FoldTime()(clips)
    x = DeltaActivation(rule=rule, granularity=granularity, initial_threshold=0.5, name="first")(frames, clock)
    x = keras.layers.EinsumDense("bpc,cd->bpd", (4, 5), kernel_initializer=keras.initializers.GlorotUniform(0))(x)
    x = DeltaActivation(rule=rule, granularity=granularity, initial_threshold=0.25, name="second")(x, clock)
    return keras.Model(clips, UnfoldTime()(x, clock))


def in_pieces(model, video, ends, **arguments):
    found, state = [], None
    for begin, end in zip([0, *ends], [*ends, video.shape[1]], strict=True):
        with Stream(state) as stream:
            found.append(model(video[:, begin:end], **arguments))
        state = stream.state
    return np.concatenate(found, axis=1)


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("rule", RULES)
def test_a_video_in_pieces_gives_to_the_bit_what_it_gives_in_one_piece(rule, granularity):
    model = two_deltas(rule, granularity)
    whole = model(VIDEO).numpy()
    for ends in ([1], [8], [23], [3, 4, 5, 21], list(range(1, 24))):
        np.testing.assert_array_equal(in_pieces(model, VIDEO, ends), whole)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(ends=st.sets(st.integers(1, 23)))
def test_wherever_a_video_is_cut(ends):
    layer = DeltaActivation(initial_threshold=0.5)
    np.testing.assert_array_equal(in_pieces(layer, VIDEO, sorted(ends)), layer(VIDEO))


def test_events_are_not_counted_where_nobody_reads_them():
    layer = DeltaActivation(initial_threshold=0.5, random_start=False, penalty=1.0)
    counted = layer(VIDEO, training=True).numpy()
    before, losses = int(layer.events.elements), layer.losses
    with Stream(counting=False):
        np.testing.assert_array_equal(layer(VIDEO, training=True), counted)
    assert int(layer.events.elements) == before > 0
    np.testing.assert_array_equal(layer.losses, losses)


def test_events_are_counted_across_the_cuts():
    layer = DeltaActivation(initial_threshold=0.5)
    layer(VIDEO)
    whole = int(layer.events.events), int(layer.events.elements)
    for ends in ([1, 2, 20], list(range(1, 24))):
        layer.events.reset_state()
        in_pieces(layer, VIDEO, ends)
        assert (int(layer.events.events), int(layer.events.elements)) == whole


def test_a_piece_without_its_stream_starts_afresh():
    layer = DeltaActivation(initial_threshold=5.0)
    with Stream():
        layer(VIDEO[:, :8])
    np.testing.assert_array_equal(layer(VIDEO[:, 8:9]), VIDEO[:, 8:9])


def test_training_on_a_continued_stream_starts_where_it_ended_not_at_random():
    layer = DeltaActivation(initial_threshold=0.5)
    with Stream() as stream:
        before = layer(VIDEO[:, :8])
    with Stream(stream.state):
        started = layer(VIDEO[:, 8:], training=True)
    expected = RULES["send-on-delta"].send(tf.constant(VIDEO[:, 8:]), layer.threshold, "element", before[:, -1])
    np.testing.assert_array_equal(started, expected)


def test_streams_share_a_model_without_touching_each_other():
    layer = DeltaActivation(initial_threshold=0.5)
    alone = [in_pieces(layer, VIDEO[row : row + 1], [8, 16]) for row in range(2)]
    states, found = [None, None], [[], []]
    for begin in range(0, 24, 8):
        for row in range(2):
            with Stream(states[row]) as stream:
                found[row].append(layer(VIDEO[row : row + 1, begin : begin + 8]))
            states[row] = stream.state
    for row in range(2):
        np.testing.assert_array_equal(np.concatenate(found[row], axis=1), alone[row])


def test_one_stream_at_a_time_in_a_thread_and_each_thread_its_own():
    with Stream() as stream:
        with pytest.raises(RuntimeError, match="already active"), Stream():
            pass
        assert current_stream() is stream
        seen = []
        other = threading.Thread(target=lambda: seen.append(current_stream()))
        other.start()
        other.join()
        assert seen == [None]
    assert current_stream() is None


def test_a_stream_ends_when_an_error_leaves_it():
    with pytest.raises(ZeroDivisionError), Stream():
        raise ZeroDivisionError
    assert current_stream() is None


def test_the_state_of_a_smaller_model_is_refused():
    with Stream() as stream:
        DeltaActivation()(VIDEO)
    with pytest.raises(ValueError, match="state holds 1 values"), Stream(stream.state):
        two_deltas("quantize", "element")(VIDEO)

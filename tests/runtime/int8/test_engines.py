"""The plan in 8-bit integers: both engines, and all processors, give the same whole numbers, to the last bit."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from deltafine.runtime.int8.byte_plan import BytePlan
from deltafine.runtime.int8.byte_program import ByteProgram
from deltafine.runtime.int8.byte_state import ByteState
from deltafine.runtime.int8.numpy_state import ByteNumpyState, byte_matrices
from deltafine.runtime.int8.weights import MOST_OF_A_PAIR, whole_weights
from deltafine.runtime.kernels.byte_vectors import INSTRUCTIONS
from deltafine.runtime.numpy_stream import NumpyState
from tests.runtime.int8.plans import byte_plan, no_keras, random_plan, video
from tests.runtime.int8.reference import Reference

COUNTS = ("changed_rows", "changed_elements", "effective_macs")


def states(plan: BytePlan) -> tuple[ByteState, ByteNumpyState]:
    return ByteState(ByteProgram(plan), no_keras), ByteNumpyState(plan, no_keras, byte_matrices(plan))


def made(seed: int, frames: int = 12) -> tuple[BytePlan, list[np.ndarray]]:
    plan = random_plan(seed)
    shown = list(video(plan.input_shape, frames, seed))
    return byte_plan(plan, shown[: frames // 2]), shown


def digest_of(seeds: range) -> str:
    """Of all that the compiled engine makes of some networks."""
    content = hashlib.sha256()
    for seed in seeds:
        plan, frames = made(seed)
        state = ByteState(ByteProgram(plan), no_keras)
        for frame in frames:
            state.step(frame)
            for index, grid in enumerate(plan.grids):
                content.update(state.as_kept(index).tobytes() if grid is not None else b"")
    return content.hexdigest()


@settings(max_examples=40, deadline=None)
@given(some.integers(0, 10**6))
def test_both_engines_give_what_the_page_says_bit_by_bit(seed: int) -> None:
    plan, frames = made(seed)
    ours, theirs = states(plan)
    reference = Reference(plan)
    assert not plan.in_floating_point
    for frame in frames:
        for one in (ours, theirs, reference):
            one.step(frame)
        for index, expected in reference.values.items():
            np.testing.assert_array_equal(theirs.as_kept(index), expected, plan.tensors[index].name)
            np.testing.assert_array_equal(ours.as_kept(index), expected, plan.tensors[index].name)
        for kind in COUNTS:
            np.testing.assert_array_equal(getattr(ours.counts(), kind), getattr(theirs.counts(), kind), kind)


@pytest.mark.parametrize("seed", range(8))
def test_after_many_frames_the_state_is_a_recomputation_of_the_last(seed: int) -> None:
    plan, _ = made(seed)
    for operation in plan.operations:  # of rules with memory, what is held depends on the frames before
        if operation.finish.delta is not None and operation.finish.delta.rule == "send-on-delta":
            operation.finish.delta = None
    frames = list(video(plan.input_shape, 60, seed))
    long, fresh = (ByteState(ByteProgram(plan), no_keras) for _ in range(2))
    for frame in frames:
        long.step(frame)
    fresh.step(frames[-1])
    assert not np.array_equal(frames[0], frames[-1])
    for index in range(len(plan.tensors)):
        np.testing.assert_array_equal(long.as_kept(index), fresh.as_kept(index))


def test_it_is_about_the_network_in_floating_point() -> None:
    exactly = 0
    for seed in range(12):
        plan = random_plan(seed)
        frames = list(video(plan.input_shape, 12, seed))
        for operation in plan.operations:
            operation.finish.delta = None
        exact, ours = NumpyState(plan, no_keras), states(byte_plan(plan, frames))[0]
        answers = []
        for frame in frames:
            exact.step(frame)
            ours.step(frame)
            answers.append((exact.value(plan.outputs[0]), ours.value(ours.program.plan.outputs[0])))
        right, found = np.array(answers).swapaxes(0, 1)
        assert np.abs(found - right).max() < 0.1 * np.abs(right).max(), seed
        exactly += np.array_equal(found, right)
    assert exactly < 6  # some have a ReLU that is 0 everywhere


@pytest.mark.parametrize("sensitivity", [0.3, 3.0])
def test_thresholds_times_a_number_are_thresholds_that_large(sensitivity: float) -> None:
    for seed in range(6):
        plan, frames = made(seed)
        larger, _ = made(seed)
        for operation in larger.operations:
            delta = operation.finish.delta
            if delta is not None and delta.rule == "send-on-delta":
                larger.arrays[delta.threshold] = larger.arrays[delta.threshold] * np.float32(sensitivity)
        (ours, theirs), reference = states(plan), states(larger)[1]
        for state in (ours, theirs):
            state.set_sensitivity(sensitivity, compare_all=False)
        for frame in frames:
            for one in (ours, theirs, reference):
                one.step(frame)
            for index in range(len(plan.tensors)):
                np.testing.assert_array_equal(ours.as_kept(index), theirs.as_kept(index))
                near = np.abs(ours.as_kept(index).astype(float) - reference.as_kept(index)).max()
                assert near <= 1  # thresholds were rounded once more


def test_lower_thresholds_compare_what_stands_still() -> None:
    plan, frames = made(3)
    ours, theirs = states(plan)
    for state in (ours, theirs):
        for frame in frames:
            state.step(frame)
        state.set_sensitivity(0.01, compare_all=True)
        state.step(frames[-1])
    for index in range(len(plan.tensors)):
        np.testing.assert_array_equal(ours.as_kept(index), theirs.as_kept(index))


@given(some.integers(0, 10**6), some.sampled_from([1, 3]), some.integers(1, 40), some.sampled_from([0.0, 1.0]))
def test_no_two_weights_overflow_sixteen_bits_and_none_is_far_off(
    seed: int, runs: int, length: int, away: float
) -> None:
    random = np.random.default_rng(seed)
    exact = random.normal(away, 1, (runs * length, 5)) * random.choice([0, 1e-6, 1, 1e6], 5)
    whole, scale = whole_weights(exact, runs, np.zeros(5))
    assert np.abs(whole * scale - exact).max(axis=0) == pytest.approx(np.zeros(5), abs=0.50001 * scale.max())
    assert (np.abs(whole * scale - exact) <= 0.50001 * scale).all()
    lines = whole.astype(int).reshape(runs, length, 5)
    for sign in (1, -1):
        own = np.maximum(sign * lines, 0)
        own = np.concatenate([own, np.zeros((runs, length % 2, 5), int)], axis=1)
        assert (own[:, 0::2] + own[:, 1::2]).max() <= MOST_OF_A_PAIR
        assert 255 * MOST_OF_A_PAIR < 2**15


FEATURES = {
    "pairs": "+avx,+avx2,+fma,+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+bmi,+bmi2",
    "any": "+sse4.2,+popcnt",
}


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="another kind of vectors")
@pytest.mark.parametrize("instructions", ["pairs", pytest.param("any", marks=pytest.mark.slow)])
def test_other_processors_give_the_same_bits(instructions: str, tmp_path: Path) -> None:
    if instructions == INSTRUCTIONS:
        pytest.skip("the instructions of this processor, which all other tests run")
    seeds = range(100, 112)
    code = (
        "from deltafine.runtime.kernels.byte_vectors import INSTRUCTIONS\n"
        "from tests.runtime.int8.test_engines import digest_of\n"
        f"print(INSTRUCTIONS, digest_of({seeds!r}))"
    )
    name = "haswell" if instructions == "pairs" else "nehalem"
    features = {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": FEATURES[instructions]}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | features | {"NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert done.stdout.split() == [instructions, digest_of(seeds)], done.stderr

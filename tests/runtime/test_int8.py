"""Dense runtimes in 8 bits, and how far answers of runtimes agree."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import keras
import numpy as np
import pytest

from deltafine.jobs.agreement import RuntimeAgreement
from deltafine.jobs.bench import bench
from deltafine.jobs.dense_runtimes import dense_runtimes
from deltafine.jobs.int8_runtimes import int8_runtimes
from deltafine.model import load
from deltafine.video import open_dataset
from tests.small_runs import SIZE, small_model, write_small_model, write_small_video, write_small_videos


def frames(count: int = 12) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [
        generator.uniform(0, 1, (16, 16, 3)).astype(np.float32) * np.float32(level)
        for level in np.linspace(20, 255, count)
    ]


def test_those_that_are_there_answer_nearly_as_in_32_bits_and_the_others_are_named_with_a_reason() -> None:
    model = small_model()
    found, missing = int8_runtimes(model, 1, frames())
    told = {name.rsplit(" ", 2)[0] for name in found} | {name.removesuffix(" int8") for name in missing}
    assert told == {"ONNX Runtime", "OpenVINO", "LiteRT"}
    for package, title in (("onnxruntime", "ONNX Runtime"), ("openvino", "OpenVINO")):
        if importlib.util.find_spec(package) is None:
            assert missing[f"{title} int8"].startswith("not installed: pip install")
            assert package in missing[f"{title} int8"]
    assert [name for name in found if name.startswith("LiteRT ") and name.endswith(" int8")]
    exact = next(iter(dense_runtimes(model, 1)[0].values()))
    for name, run in found.items():
        answers = np.array([[run(frame), exact(frame)] for frame in frames(7)])
        assert np.abs(answers[:, 0] - answers[:, 1]).max() < 0.4 * np.ptp(answers[:, 1, 0]), name
        assert not np.array_equal(answers[:, 0], answers[:, 1]), name  # 8 bits it is


def test_gelu_constant_positions_and_groups_leave_no_dense_runtime_out() -> None:
    """TensorFlow computes an exact GELU with erfc, which ONNX has not, and groups in a function for XLA; the converter
    takes constants for inputs."""
    pytest.importorskip("onnxruntime")
    inputs = keras.Input((4, 4, 3))
    grouped = keras.layers.Conv2D(3, 3, groups=3, padding="same")(inputs)
    x = keras.layers.Reshape((16, 3))(grouped) + keras.layers.Embedding(16, 3)(np.arange(16)[None])
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Dense(8, activation="gelu")(x)))
    found, missing = dense_runtimes(model, 1)
    assert not any("cannot run" in reason for reason in missing.values())
    frame = np.random.default_rng(0).normal(size=(4, 4, 3)).astype(np.float32)
    answers = {name: run(frame) for name, run in found.items()}
    assert any(name.startswith("ONNX Runtime ") for name in answers)
    for answer in answers.values():
        np.testing.assert_allclose(answer, next(iter(answers.values())), atol=1e-5)


def test_answers_of_classes_agree_where_the_best_one_is_the_same() -> None:
    agreement = RuntimeAgreement(["a", "b", "c"], "b", of_classes=True)
    for a, b, c in (([1, 0], [0.6, 0.4], [0, 1]), ([0.2, 0.8], [0, 1], [0, 1])):
        agreement.heard("a", np.array(a))
        agreement.heard("c", np.array(c))
        agreement.heard("b", np.array(b))
    assert [agreement.fidelity(name) for name in "abc"] == [1.0, 1.0, 0.5]
    assert agreement.error("a") is None


def test_answers_in_numbers_are_off_by_a_share_of_their_spread() -> None:
    agreement = RuntimeAgreement(["a", "b"], "a", of_classes=False)
    right = np.random.default_rng(0).normal(5, 2, (50, 3))
    for row in right:
        agreement.heard("a", {"out": row})
    for row in right:
        agreement.heard("b", {"out": row + 0.5})
    assert agreement.error("b") == pytest.approx(np.sqrt(3 * 0.25 / right.var(axis=0).sum()))
    assert (agreement.error("a"), agreement.fidelity("b")) == (0.0, None)
    still = RuntimeAgreement(["a"], "a", of_classes=False)
    still.heard("a", np.ones(2))
    assert still.error("a") is None


def test_bench_has_them_beside_the_others_with_their_agreement(tmp_path: Path) -> None:
    model = write_small_model(tmp_path / "model.keras")
    write_small_video(tmp_path / "videos" / "a.avi", light=True, seed=0, frames=20)
    timed = bench(model, tmp_path / "videos", frames=20, threads=None)
    by_name = {one.name: one for one in timed.timing.runtimes}
    (litert,) = [one for name, one in by_name.items() if name.startswith("LiteRT")]
    assert litert.fidelity is not None
    assert 0.8 <= litert.fidelity <= 1
    assert by_name["deltafine"].fidelity == 1  # no thresholds: the same network
    assert not timed.fastest.endswith("int8")
    assert timed.fastest_int8.endswith("int8")
    assert timed.ratio_int8
    assert set(timed.left_out) | {name.rsplit(" ", 2)[0] + " int8" for name in by_name} >= {
        "ONNX Runtime int8", "OpenVINO int8", "LiteRT int8"
    }  # fmt: skip


def test_bench_says_how_good_the_answers_are_by_the_labels(tmp_path: Path) -> None:
    model = write_small_model(tmp_path / "model.keras")
    videos = write_small_videos(tmp_path / "videos", per_class=1)
    timed = bench(model, videos, frames=500, threads=None)
    network, right = load(model), []
    data = open_dataset(videos)
    data.scan()
    for _, stream in data.streams(None, size=(SIZE, SIZE), channels=3):
        for frames_, labels in stream:
            assert labels is not None
            right += (np.argmax(network(frames_.astype(np.float32)), -1) == labels).tolist()
    by_name = {one.name.split()[0]: one for one in timed.timing.runtimes}
    assert by_name["TensorFlow"].accuracy == by_name["deltafine"].accuracy == pytest.approx(np.mean(right))
    assert by_name["deltafine"].label_error is None


def test_bench_says_which_labels_it_does_not_use(tmp_path: Path) -> None:
    model = write_small_model(tmp_path / "model.keras")
    for name in ("dark", "light", "other"):  # the model has two classes
        write_small_video(tmp_path / "videos" / name / "a.avi", light=True, seed=0, frames=8)
    timed = bench(model, tmp_path / "videos", frames=20, threads=None)
    assert timed.notes[-1] == "The labels of 20 frames are not used, since they are no answers of the model."
    assert all(one.accuracy is None for one in timed.timing.runtimes)

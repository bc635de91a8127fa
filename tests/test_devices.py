"""What TensorFlow may do with the machine. Those that need a GPU run where TensorFlow sees one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.small_runs import FAST, write_small_model, write_small_videos

DETERMINISM = """
from deltafine.workers.devices import prepare_devices
prepare_devices(deterministic={})
from tensorflow.python.framework import config
print(config.is_op_determinism_enabled())
"""


def has_gpu() -> bool:
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


@pytest.fixture
def needs_gpu() -> None:
    if not has_gpu():
        pytest.skip("TensorFlow sees no GPU here")


@pytest.mark.parametrize("wanted", [True, False])
def test_operations_are_deterministic_on_request_only(wanted: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DETERMINISM.format(wanted)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(wanted)


@pytest.mark.slow
def test_the_setting_reaches_tensorflow(tmp_path: Path) -> None:
    model, data = write_small_model(tmp_path / "small.keras"), write_small_videos(tmp_path / "videos")
    code = f"""
from deltafine import refine
refine({str(model)!r}, {str(data)!r}, {str(tmp_path / "run")!r}, epochs=1, deterministic=True, **{FAST!r})
from tensorflow.python.framework import config
print(config.is_op_determinism_enabled())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "True", done.stderr


@pytest.mark.gpu
@pytest.mark.usefixtures("needs_gpu")
def test_memory_of_a_gpu_grows_with_what_is_used() -> None:
    import tensorflow as tf

    from deltafine.workers.devices import prepare_devices

    prepare_devices(deterministic=False)
    assert all(map(tf.config.experimental.get_memory_growth, tf.config.list_physical_devices("GPU")))


@pytest.mark.gpu
@pytest.mark.usefixtures("needs_gpu")
def test_two_deterministic_runs_on_a_gpu_give_the_same_weights(tmp_path: Path) -> None:
    model, data = write_small_model(tmp_path / "small.keras"), write_small_videos(tmp_path / "videos")
    code = """
import sys
from deltafine import refine
refine(*sys.argv[1:4], epochs=1, deterministic=True, frames=4, batch=4, relative_threshold=0.5)
"""
    for name in ("one", "two"):
        subprocess.run([sys.executable, "-c", code, model, data, tmp_path / name], check=True)
    import keras

    one, two = (keras.models.load_model(tmp_path / name / "refined.keras").get_weights() for name in ("one", "two"))
    assert all((first == second).all() for first, second in zip(one, two, strict=True))

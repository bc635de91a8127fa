"""Several processes at one job, on the loopback interface: as many real ones as there are workers."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deltafine import load_report
from deltafine.errors import DeltafineError
from deltafine.report.health import movement
from deltafine.workers import Cluster, cluster_of
from tests.refinement.test_killed import everything
from tests.small_runs import write_small_model, write_small_videos

RUN = [
    "--frames",
    "4",
    "--batch",
    "5",
    "--relative-threshold",
    "0.5",
    "--epochs",
    "2",
    "--target-macs",
    "0.1",
    "--seed",
    "1",
    "--granularity",
    "pixel",
]
"""By pixels, clips start from states that are carried on."""
DONE = (0, 1)
"""Exit codes of a run that is over; 1: what was aimed at was not reached."""


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("material")
    return str(write_small_model(folder / "small.keras")), str(write_small_videos(folder / "videos", per_class=10))


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def start(command: Sequence[str], count: int, *, by_environment: bool = False) -> list[subprocess.Popen[str]]:
    """The same command by so many workers, or by one alone."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
    started = []
    for index in range(count):
        which = ["--workers", ",".join(addresses), "--worker-index", str(index)] if count > 1 else []
        environment = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"}
        if by_environment:
            which = []
            task = {"type": "worker", "index": index}
            environment["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "deltafine", *command, *which],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
            )
        )
    return started


def ended(processes: Sequence[subprocess.Popen[str]], seconds: float = 300) -> list[tuple[int, str, str]]:
    """Exit code, what was said, and errors, of each."""
    try:
        said = [process.communicate(timeout=seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *words) for process, words in zip(processes, said, strict=True)]


def refined(material: tuple[str, str], out: Path, count: int, *more: str, **how: Any) -> None:
    model, data = material
    command = ["refine", model, "--data", data, "--out", str(out), *RUN, *more]
    for code, said, errors in ended(start(command, count, **how)):
        assert code in DONE, said + errors


def rounded(value: Any) -> Any:
    """Floats to what a sum in another order leaves."""
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [rounded(part) for part in value]
    return pytest.approx(value, rel=1e-5, abs=1e-5) if isinstance(value, float) else value


def assert_the_same_run(out: Path, other: Path) -> None:
    here, there = everything(out), everything(other)
    assert here["files"] == there["files"]
    assert here["report"] == rounded(there["report"])
    rows, expected = (np.array([row.split(",") for row in run["history"][1:]], float) for run in (here, there))
    np.testing.assert_allclose(rows, expected, atol=1e-5)


@pytest.fixture(scope="module")
def alone(material: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "run"
    refined(material, out, 1)
    return out


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_workers_come_to_the_losses_and_the_report_of_one(
    material: tuple[str, str], alone: Path, tmp_path: Path, count: int
) -> None:
    refined(material, tmp_path / "run", count, by_environment=count == 4)
    assert_the_same_run(tmp_path / "run", alone)


@pytest.mark.slow
def test_all_go_on_with_the_steps_that_one_of_them_finds_anew(material: tuple[str, str], tmp_path: Path) -> None:
    pytest.importorskip("numba")
    (tmp_path / "recipe.toml").write_text("recalibrate = 2\n")
    for count in (1, 2):
        refined(material, tmp_path / str(count), count, "--recipe", str(tmp_path / "recipe.toml"))
    assert_the_same_run(tmp_path / "2", tmp_path / "1")
    assert any(abs(math.log(moved)) > 0.3 for moved in movement(load_report(tmp_path / "2")).values())


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_an_evaluation_that_is_shared_out_is_that_of_one_to_the_last_bit(
    material: tuple[str, str], alone: Path, count: int
) -> None:
    model, data = material
    command = ["report", str(alone / "refined.keras"), "--data", data, "--original", model, "--format", "json"]
    reports = []
    for workers in (1, count):
        (code, written, errors), *others = ended(start(command, workers))
        assert code in DONE, errors
        assert [(other, written) for other, written, _ in others] == [(code, "")] * (workers - 1)
        reports.append(json.loads(written))
        for name in ("created", "seconds", "peak_memory_bytes"):
            del reports[-1][name]
    assert reports[0] == reports[1]


def wait_for(file: Path, processes: Sequence[subprocess.Popen[str]]) -> None:
    end = time.monotonic() + 200
    while not file.exists():
        assert time.monotonic() < end
        assert all(process.poll() is None for process in processes), [process.communicate() for process in processes]
        time.sleep(0.02)


LONG = [*RUN, "--epochs", "200"]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_when_one_is_killed_the_others_say_so_and_all_go_on_from_the_checkpoint(
    material: tuple[str, str], tmp_path: Path, victim: int
) -> None:
    model, data = material
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("checkpoint_minutes = 0.0001\n", "utf-8")
    whole, cut = tmp_path / "whole", tmp_path / "cut"

    def command(out: Path) -> list[str]:
        fixed = [
            "--frames",
            "4",
            "--batch",
            "5",
            "--relative-threshold",
            "0.5",
            "--epochs",
            "6",
            "--recipe",
            str(recipe),
        ]
        return ["refine", model, "--data", data, "--out", str(out), *fixed, "--resume"]

    for code, said, errors in ended(start(command(whole), 2)):
        assert code in DONE, said + errors
    processes = start(command(cut), 2)
    wait_for(cut / "history.csv", processes)
    processes[victim].kill()
    begin = time.monotonic()
    results = ended(processes, 60)
    assert time.monotonic() - begin < 45
    assert results[victim][0] == -signal.SIGKILL
    code, _, errors = results[1 - victim]
    assert code == 75, errors
    assert re.search(r"Error: (Worker \d \(127\.0\.0\.1:\d+\)|Another worker) has ended or cannot be reached", errors)
    assert "Traceback" not in errors
    assert not (cut / "report.json").exists()
    for code, said, errors in ended(start(command(cut), 2)):
        assert code in DONE, said + errors
    assert_the_same_run(cut, whole)


@pytest.mark.slow
def test_sigterm_to_one_of_them_ends_all_after_the_same_step_with_a_checkpoint(
    material: tuple[str, str], tmp_path: Path
) -> None:
    model, data = material
    out = tmp_path / "run"
    processes = start(["refine", model, "--data", data, "--out", str(out), *LONG], 2)
    wait_for(out / "history.csv", processes)
    processes[1].terminate()
    results = ended(processes, 60)
    assert [code for code, _, _ in results] == [143, 143], results
    assert "go on with --resume" in results[0][1]
    assert (out / "checkpoints" / "last.h5").exists()
    assert (out / "refined.keras").exists()


@pytest.mark.slow
def test_what_the_chief_refuses_all_say(material: tuple[str, str], tmp_path: Path) -> None:
    model, data = material
    (tmp_path / "mine.txt").write_text("keep me")
    results = ended(start(["refine", model, "--data", data, "--out", str(tmp_path), *RUN], 2))
    assert [code for code, _, _ in results] == [2, 2]
    assert all("exists already: choose another --out" in errors for _, _, errors in results)


@pytest.mark.slow
def test_other_videos_on_one_of_them_are_refused(material: tuple[str, str], tmp_path: Path) -> None:
    model, data = material
    other = write_small_videos(tmp_path / "videos", per_class=9)
    workers = ",".join(f"127.0.0.1:{port}" for port in free_ports(2))
    shared = ["--out", str(tmp_path / "run"), *RUN, "--workers", workers, "--worker-index"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "deltafine", "refine", model, "--data", str(videos), *shared, str(index)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index, videos in enumerate((data, other))
    ]
    for code, _, errors in ended(processes):
        assert code == 2
        assert "other videos, settings or model than worker" in errors
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_those_that_wait_for_one_that_does_not_come_say_so() -> None:
    code = (
        "from deltafine.workers import Cluster, joining\njoining.SECONDS_TO_JOIN = 5\n"
        f"joining.join(Cluster(('127.0.0.1:{free_ports(1)[0]}', '127.0.0.1:9'), 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert "WorkerLost: Worker 0 has waited 5 s for 127.0.0.1:9: start all workers" in done.stderr


@pytest.mark.slow
def test_a_training_ends_when_one_stands_still(material: tuple[str, str], tmp_path: Path) -> None:
    model, data = material
    out = tmp_path / "run"
    processes = start(["refine", model, "--data", data, "--out", str(out), *LONG], 2)
    wait_for(out / "history.csv", processes)
    processes[1].send_signal(signal.SIGSTOP)
    begin = time.monotonic()
    try:
        _, errors = processes[0].communicate(timeout=120)
        assert time.monotonic() - begin < 60
        assert processes[0].returncode == 75, errors
        assert re.search(r"Error: Worker 1 \(127\.0\.0\.1:\d+\) has not answered for \d+ s: it hangs", errors)
        assert (out / "checkpoints" / "last.h5").exists()
    finally:
        for process in processes:
            process.kill()


STANDING_STILL = """
import importlib, os, signal, sys
module, name, victim = sys.argv[1].partition(":")[0], sys.argv[1].partition(":")[2], sys.argv[2]
del sys.argv[1:3]
owner, (*path, last) = importlib.import_module(module), name.split(".")
for part in path:
    owner = getattr(owner, part)
plain = getattr(owner, last)

def stands_still(*arguments, **more):
    if sys.argv[-1] == victim:
        print("stands still", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
    return plain(*arguments, **more)

setattr(owner, last, stands_still)
from deltafine.__main__ import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "victim"),
    [
        ("deltafine.video.encoded:EncodedVideo.scan", 0),
        ("deltafine.video.encoded:EncodedVideo.scan", 1),
        ("deltafine.refinement.run.calibrating:Calibrating.calibrate", 0),
        ("deltafine.refinement.run.refinement:models.insert_deltas", 1),
        ("deltafine.refinement.training.validation:Validation.student", 0),
        ("deltafine.refinement.run.checkpoints:save", 0),
        ("deltafine.measurement.side_by_side:_Comparison.add_stream", 0),
        ("deltafine.measurement.side_by_side:_Comparison.add_stream", 1),
        ("deltafine.report:write_report", 0),
    ],
)
def test_one_that_stands_still_outside_of_steps_is_named_and_the_others_end(
    material: tuple[str, str], tmp_path: Path, where: str, victim: int
) -> None:
    model, data = material
    workers = ",".join(f"127.0.0.1:{port}" for port in free_ports(2))
    command = ["refine", model, "--data", data, "--out", str(tmp_path / "run"), *RUN, "--workers", workers]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", STANDING_STILL, where, str(victim), *command, "--worker-index", str(index)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    hanging, other = processes[victim], processes[1 - victim]
    try:
        assert hanging.stdout is not None
        assert any(line == "stands still\n" for line in hanging.stdout)
        begin = time.monotonic()
        said, errors = other.communicate(timeout=200)
        assert time.monotonic() - begin < 120  # the other may have work of its own to do first
        assert other.returncode == 75, said + errors
        assert re.search(rf"Error: Worker {victim} \(127\.0\.0\.1:\d+\) has not answered for \d+ s: it hangs", errors)
        assert "Traceback" not in errors
    finally:
        for process in processes:
            process.kill()


HANGING = """
import os, sys, time
import keras
import numpy as np
import tensorflow as tf

class Hanging(keras.layers.Layer):
    def call(self, x, training=None):
        if not training:
            return x

        def look():
            while os.path.exists(os.environ["HANG"]) and sys.argv[-1] == "1":
                time.sleep(1)
            return np.int32(0)

        with tf.control_dependencies([tf.numpy_function(look, [], tf.int32)]):
            return tf.identity(x)
"""


@pytest.mark.slow
def test_a_training_ends_when_one_hangs_within_a_step(
    material: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hanging_layer.py").write_text(HANGING)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{Path.cwd()}")
    monkeypatch.setenv("HANG", str(tmp_path / "hang"))
    make = (
        "import sys, keras, hanging_layer\n"
        "small = keras.models.load_model(sys.argv[1])\n"
        "inputs = keras.Input((16, 16, 3))\n"
        "keras.Model(inputs, small(hanging_layer.Hanging()(inputs))).save(sys.argv[2])\n"
    )
    model, out = tmp_path / "hanging.keras", tmp_path / "run"
    subprocess.run([sys.executable, "-c", make, material[0], str(model)], check=True, timeout=120)
    command = [
        "refine",
        str(model),
        "--data",
        material[1],
        "--out",
        str(out),
        "--custom-objects",
        "hanging_layer:Hanging",
    ]
    processes = start([*command, *LONG], 2)
    wait_for(out / "history.csv", processes)
    (tmp_path / "hang").touch()
    begin = time.monotonic()
    try:
        _, errors = processes[0].communicate(timeout=180)
        assert time.monotonic() - begin < 90
        assert processes[0].returncode == 75, errors
        assert re.search(r"Error: Worker 1 \(127\.0\.0\.1:\d+\) has not computed its share of the step", errors)
        assert processes[1].poll() is None
    finally:
        for process in processes:
            process.kill()


TOGETHER = """
import sys
from deltafine.workers import Cluster, WorkerLost, join, watching
watching.SECONDS_BETWEEN, watching.SECONDS_FOR_ONE_ANSWER, watching.SECONDS_WITHOUT_ANSWER = 0.5, 1.0, 3.0
watching.SECONDS_OF_A_LATE_STEP, watching.SECONDS_TO_SPREAD = 3.0, 2.0
workers = join(Cluster(tuple(sys.argv[1].split(",")), int(sys.argv[2])))
hangs = float(sys.argv[3])
try:
    for number in range(10**6):
        if number == 20 and workers.index == 1 and hangs:
            import time
            print("here", flush=True)
            time.sleep(hangs)
        with workers.step():
            workers.gather(b"")
        if number == 20:
            print("here", flush=True)
except WorkerLost as error:
    print(error, flush=True)
    sys.exit(error.exit_code)
"""


WITHIN_STEPS = """
import sys, time
from deltafine.workers import Cluster, WorkerLost, join, watching
watching.SECONDS_BETWEEN, watching.SECONDS_FOR_ONE_ANSWER, watching.SECONDS_WITHOUT_ANSWER = 0.5, 1.0, 3.0
watching.SECONDS_OF_A_LATE_STEP, watching.SECONDS_TO_SPREAD = 3.0, 2.0
workers = join(Cluster(tuple(sys.argv[1].split(",")), int(sys.argv[2])))
import numpy as np
import tensorflow as tf
hang, first, steps = sys.argv[3].split(","), int(sys.argv[4]), 0
def compute(given):
    if steps == 20 and str(workers.index) in hang:
        print("here", flush=True)
        time.sleep(600)
    return given
@tf.function
def step(given):
    def one(given):
        for number in range(3):
            if number == first:
                given = tf.ensure_shape(tf.numpy_function(compute, [given], tf.float32), (4,))
            given = workers.total(given) / workers.count
        return given
    return workers.strategy.experimental_local_results(workers.strategy.run(one, args=(given,)))[0]
given = tf.ones(4)
try:
    for steps in range(10**6):
        with workers.step():
            given = step(given)
            assert (given.numpy() == 1).all()
except WorkerLost as error:
    print(error, flush=True)
    sys.exit(error.exit_code)
"""


def together(script: str, count: int, *arguments: str) -> tuple[list[str], list[subprocess.Popen[str]]]:
    """Addresses of so many workers, and their processes."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
    return addresses, [
        subprocess.Popen(
            [sys.executable, "-c", script, ",".join(addresses), str(index), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(count)
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("how", "victim"), [("stands still", 0), ("stands still", 1), ("is late", 1)])
def test_one_that_hangs_without_dying_is_named_and_the_others_end(how: str, victim: int) -> None:
    addresses, processes = together(TOGETHER, 2, "600" if how == "is late" else "0")
    hanging, other = processes[victim], processes[1 - victim]
    try:
        assert hanging.stdout is not None
        assert hanging.stdout.readline() == "here\n"
        if how == "stands still":
            hanging.send_signal(signal.SIGSTOP)
        begin = time.monotonic()
        said, _ = other.communicate(timeout=120)
        assert time.monotonic() - begin < 60
        assert other.returncode == 75
        words = "has not answered for" if how == "stands still" else "has not begun the step that the others"
        assert f"Worker {victim} ({addresses[victim]}) {words}" in said
    finally:
        for process in processes:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("exchange", [0, 2])
@pytest.mark.parametrize("victim", [0, 1])
def test_one_that_hangs_within_the_computation_of_a_step_is_named_and_the_others_end(
    victim: int, exchange: int, count: int
) -> None:
    addresses, processes = together(WITHIN_STEPS, count, str(victim), str(exchange))
    hanging = processes[victim]
    try:
        assert hanging.stdout is not None
        assert hanging.stdout.readline() == "here\n"
        begin = time.monotonic()
        for other in processes:
            if other is not hanging:
                said, _ = other.communicate(timeout=120)
                assert time.monotonic() - begin < 60
                assert other.returncode == 75, said
                assert f"Worker {victim} ({addresses[victim]}) has not computed its share of the step" in said
        assert hanging.poll() is None  # its other threads go on
    finally:
        for process in processes:
            process.kill()


OUTSIDE_STEPS = """
import sys, time
from deltafine.workers import Cluster, WorkerLost, join, watching
watching.SECONDS_BETWEEN, watching.SECONDS_FOR_ONE_ANSWER, watching.SECONDS_WITHOUT_ANSWER = 0.5, 1.0, 3.0
watching.SECONDS_OF_NOTHING, watching.SECONDS_TO_SPREAD = 5.0, 2.0
workers = join(Cluster(tuple(sys.argv[1].split(",")), int(sys.argv[2])))
victim, how = int(sys.argv[3]), sys.argv[4]

def work():
    if workers.index != victim:
        return 0
    print("here", flush=True)
    end = time.monotonic() + (600 if how == "hangs" else 15)
    while time.monotonic() < end:
        if how == "computes":
            sum(range(100000))
        elif how == "reads":
            time.sleep(0.2)
            with open(sys.executable, "rb") as file:
                file.read(1 << 18)
        else:
            time.sleep(0.1)
    return 0

try:
    for _ in range(3):
        workers.gather(b"")
        workers.lead(work) if victim == 0 else workers.together(work)
        time.sleep(0.1 if workers.index == victim else 3)  # those that waited long are not to be taken for hanging
        workers.gather(b"")
    print("done", flush=True)
except WorkerLost as error:
    print(error, flush=True)
    sys.exit(error.exit_code)
"""


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("victim", [0, 1])
def test_one_that_hangs_outside_of_steps_is_named_and_the_others_end(victim: int, count: int) -> None:
    addresses, processes = together(OUTSIDE_STEPS, count, str(victim), "hangs")
    hanging = processes[victim]
    try:
        assert hanging.stdout is not None
        assert hanging.stdout.readline() == "here\n"
        begin = time.monotonic()
        for other in processes:
            if other is not hanging:
                said, _ = other.communicate(timeout=120)
                assert time.monotonic() - begin < 60
                assert other.returncode == 75, said
                words = "has computed, read and written nothing for"
                assert f"Worker {victim} ({addresses[victim]}) {words}" in said
        assert hanging.poll() is None
    finally:
        for process in processes:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["computes", "reads"])
@pytest.mark.parametrize("victim", [0, 1])
def test_one_that_works_long_while_others_wait_is_not_taken_for_hanging(victim: int, how: str) -> None:
    _, processes = together(OUTSIDE_STEPS, 2, str(victim), how)
    for code, said, errors in ended(processes, 300):
        assert code == 0, said + errors
        assert said.endswith("done\n")


@pytest.mark.slow
def test_where_it_cannot_be_told_which_one_hangs_within_a_step_all_say_so_and_end() -> None:
    _, processes = together(WITHIN_STEPS, 2, "0,1", "1")
    for code, said, errors in ended(processes, 120):
        assert code == 75
        assert re.search(
            r"Error: A step has not gone on for \d+ s, far longer .* which one could not be told", said + errors
        )


def test_the_cluster_is_what_is_given_or_what_tf_config_says() -> None:
    two = ("a:1", "b:2")
    environment = {"TF_CONFIG": json.dumps({"cluster": {"worker": two}, "task": {"type": "worker", "index": 1}})}
    led = {"cluster": {"chief": ["c:0"], "worker": two}, "task": {"type": "worker", "index": 1}}
    assert cluster_of("a:1, b:2", 1, environment={}) == Cluster(two, 1)
    assert cluster_of(environment=environment) == Cluster(two, 1)
    assert cluster_of(environment={"TF_CONFIG": json.dumps(led)}) == Cluster(("c:0", *two), 2)
    assert cluster_of("c:3,d:4", 0, environment=environment) == Cluster(("c:3", "d:4"), 0)
    assert cluster_of(environment={}) is None
    assert cluster_of("a:1", 0, environment={}) is None
    assert cluster_of("[::1]:70,h:1", 0, environment={}) == Cluster(("[::1]:70", "h:1"), 0)


@pytest.mark.parametrize(
    ("workers", "index", "config", "words"),
    [
        ("a:1,b", 0, None, "'b', which is no host:port"),
        ("a:1,a:1", 0, None, "twice"),
        ("a:1,b:1", None, None, "--worker-index, from 0 to 1"),
        ("a:1,b:1", 2, None, "--worker-index is 2: there are 2 workers"),
        (None, 1, None, "give these as well"),
        (None, None, "{", "TF_CONFIG is not as TensorFlow describes it"),
        (None, None, "[]", "TF_CONFIG is not as TensorFlow describes it"),
        (None, None, '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "ps", "index": 0}}', "a 'ps'"),
        (None, None, '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"index": 5}}', "TF_CONFIG is 5"),
    ],
)
def test_a_cluster_that_makes_no_sense_is_refused(
    workers: str | None, index: int | None, config: str | None, words: str
) -> None:
    environment = {} if config is None else {"TF_CONFIG": config}
    with pytest.raises(DeltafineError, match=re.escape(words)):
        cluster_of(workers, index, environment=environment)

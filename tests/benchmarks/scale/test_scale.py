"""What two workers on one machine with two cores gain over one. Run with ``-m slow -s``.

Every worker is kept to one core and one thread, and trains on clips that are in memory, so that neither decoding nor
other threads count. The global batch is the same. The runs take turns, and the median counts. Efficiency is the time
of a step of one worker / (workers x the time of a step of several); *work* is the processor time of all workers
together over that of one, which other processes on the machine disturb less.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from tests.test_workers import free_ports

pytestmark = pytest.mark.slow

ROUNDS, BATCH = 3, 16


def steps(workers: int, batchnorm: str) -> list[dict[str, Any]]:
    ports = ",".join(map(str, free_ports(workers)))
    command = [sys.executable, "-m", "tests.benchmarks.scale.steps"]
    started = [
        subprocess.Popen(
            [*command, str(index), ports, str(BATCH), batchnorm], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        for index in range(workers)
    ]
    written = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0] * workers
    return [json.loads(text) for text in written]


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two workers need two cores")
@pytest.mark.parametrize("batchnorm", ["trained", "frozen"])
def test_two_workers_are_faster_than_one(batchnorm: str) -> None:
    taken: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    parameters = 0
    for _ in range(ROUNDS):
        for workers, found in taken.items():
            figures = steps(workers, batchnorm)
            found.append((max(one["wall"] for one in figures), sum(one["work"] for one in figures)))
            parameters = figures[0]["parameters"]
    (wall, work), (wall_of_two, work_of_two) = (np.median(taken[workers], axis=0) for workers in (1, 2))
    print(
        f"\nBatchNormalization {batchnorm}, {parameters:,} parameters: {wall * 1000:.0f} ms a step alone, "
        f"{wall_of_two * 1000:.0f} ms with two workers: efficiency {wall / wall_of_two / 2:.2f}; "
        f"work {work_of_two / work:.2f} of that of one"
    )
    assert work_of_two / work < 1.35

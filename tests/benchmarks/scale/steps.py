"""One worker that trains on batches that are in memory already; prints seconds a step, and how many bytes it summed.

python -m tests.benchmarks.scale.steps INDEX PORT,PORT,... BATCH BATCHNORM
"""

from __future__ import annotations

import json
import os
import sys
import time

import numpy as np

STEPS, WARM_UP, FRAMES = 24, 4, 8


def main(index: int, ports: list[int], batch: int, batchnorm: str) -> None:
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[index % os.cpu_count()]})
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)

    from deltafine.model import DeltaSettings, find_activations, insert_deltas, select_sites
    from deltafine.refinement.training.losses import ClassificationLoss
    from deltafine.refinement.training.step import Trainer
    from deltafine.refinement.training.trainable import prepare_batchnorm
    from deltafine.settings import resolve
    from deltafine.workers import ALONE, Cluster, join
    from tests.benchmarks.method.test_step_time import convolutions

    team = join(Cluster(tuple(f"127.0.0.1:{port}" for port in ports), index)) if len(ports) > 1 else ALONE
    model = convolutions()
    settings = resolve(model="m", data="d")
    sites = select_sites(find_activations(model))
    with team.scope():
        student = insert_deltas(model, sites, DeltaSettings(initial_threshold=0.1, train_threshold=False))
        teacher = insert_deltas(model, [])
    prepare_batchnorm(student, freeze=batchnorm == "frozen")
    shares = {site.delta_name: site.mac_share for site in sites if site.selected}
    trainer = Trainer(student, teacher, ClassificationLoss(True, 0.5), shares, settings, 1000, team)
    frames = np.random.default_rng(0).integers(0, 255, (batch, FRAMES, *model.input_shape[1:]), np.uint8)
    labels = np.arange(batch, dtype=np.int64) % 3
    mine = slice(batch * index // len(ports), batch * (index + 1) // len(ports))
    wall, work = [], []
    for _ in range(WARM_UP + STEPS):
        begin, begun = time.perf_counter(), time.process_time()
        trainer.train_on_batch(frames[mine], labels[mine], 10.0, first=mine.start)
        wall.append(time.perf_counter() - begin)
        work.append(time.process_time() - begun)
    parameters = sum(int(np.prod(v.shape)) for v in student.trainable_variables)
    figures = {"wall": np.median(wall[WARM_UP:]), "work": np.median(work[WARM_UP:]), "parameters": parameters}
    print(json.dumps(figures))


if __name__ == "__main__":
    which, ports, size, kind = sys.argv[1:]
    main(int(which), [int(port) for port in ports.split(",")], int(size), kind)

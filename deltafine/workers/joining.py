"""Meeting the other workers, and the strategy of `tf.distribute` that all devices then share."""

from __future__ import annotations

import functools
import signal
import socket
import threading
import time

from deltafine.errors import DeltafineError
from deltafine.workers.cluster import Cluster
from deltafine.workers.workers import ALONE, WorkerLost, Workers

SECONDS_TO_JOIN = 600.0
"""How long the first workers wait for the last ones."""


@functools.cache
def join(cluster: Cluster) -> Workers:
    """Meet the other workers; waits until all are there. Once for a process: they stay together.

    Nothing may have been computed by TensorFlow in this process before.

    Raises:
        DeltafineError: this worker's port is taken, or TensorFlow is in use already.
    """
    import tensorflow as tf

    from deltafine.workers.devices import prepare_devices

    prepare_devices(deterministic=False)
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(cluster.addresses)}),
        task_type="worker",
        task_id=cluster.index,
        rpc_layer="grpc",
    )
    # TensorFlow takes SIGTERM for itself here.
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    _meet(cluster)
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    except RuntimeError as error:
        raise DeltafineError(
            "TensorFlow has computed something in this process already: workers have to meet before; start a new "
            "process."
        ) from error
    except tf.errors.OpError as error:
        address = cluster.addresses[cluster.index]
        reason = " ".join(str(error).split())[:200]
        raise DeltafineError(
            f"Worker {cluster.index} cannot listen on {address} or meet the others ({reason}): check --workers, "
            "and that the port is free."
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)
    workers = Workers(strategy, cluster)
    workers.watch()
    return workers


@functools.cache  # a second strategy would number its collectives as the first does
def all_devices() -> Workers:
    """This process with all its GPUs, or, without any, all logical CPUs that were configured."""
    import tensorflow as tf

    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return ALONE if len(devices) < 2 else Workers(tf.distribute.MirroredStrategy([device.name for device in devices]))


def _meet(cluster: Cluster) -> None:
    """Wait until every worker answers: TensorFlow would wait for ever, and could not even be interrupted."""
    own = cluster.addresses[cluster.index]
    missing = [address for address in cluster.addresses if address != own]
    end = time.monotonic() + SECONDS_TO_JOIN
    try:
        listening = socket.create_server(("", int(own.rpartition(":")[2])), backlog=2 * len(cluster.addresses))
    except OSError as error:
        raise DeltafineError(
            f"Worker {cluster.index} cannot listen on {own} ({error.strerror}): name a port that is free in --workers."
        ) from error
    with listening:
        # One that has met all others is taken over by TensorFlow, which answers at the same address.
        while missing := [address for address in missing if not _answers(address)]:
            if time.monotonic() > end:
                raise WorkerLost(
                    f"Worker {cluster.index} has waited {SECONDS_TO_JOIN:.0f} s for {', '.join(missing)}: start all "
                    "workers, and check that they can reach each other."
                )
            time.sleep(0.2)


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
    except OSError:
        return False
    return True

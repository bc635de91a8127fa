"""Who the workers are: from the command line, or from ``TF_CONFIG``."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deltafine.errors import DeltafineError

SERVICE = "https://www.tensorflow.org/guide/distributed_training#setting_up_the_tf_config_environment_variable"


@dataclass(frozen=True)
class Cluster:
    """Where all workers are (``host:port`` each), and which of them this process is."""

    addresses: tuple[str, ...]
    index: int


def cluster_of(
    workers: str | Sequence[str] | None = None,
    worker_index: int | None = None,
    *,
    environment: Mapping[str, str] = os.environ,
) -> Cluster | None:
    """The cluster that is given, or that ``TF_CONFIG`` describes; None for a process that works alone.

    Args:
        workers: ``host:port`` of every worker, the chief first; a text has commas between.
        worker_index: which of them this process is.
        environment: where ``TF_CONFIG`` may be.

    Raises:
        DeltafineError: the description makes no sense.
    """
    if workers is None:
        if worker_index is not None:
            raise DeltafineError("--worker-index says which of --workers this process is: give these as well.")
        return _of_environment(environment)
    given = workers.split(",") if isinstance(workers, str) else workers
    addresses = tuple(address.strip() for address in given)
    for address in addresses:
        if not re.fullmatch(r"[^\s:/]+:\d{1,5}|\[[0-9a-fA-F:.]+\]:\d{1,5}", address):
            raise DeltafineError(
                f"--workers names '{address}', which is no host:port: try machine1:4001,machine2:4001."
            )
    if len(set(addresses)) < len(addresses):
        raise DeltafineError("--workers names the same host and port twice: give every worker one of its own.")
    if worker_index is None and len(addresses) > 1:
        raise DeltafineError(
            f"--workers names {len(addresses)} workers: say which of them this process is with --worker-index, from 0 "
            f"to {len(addresses) - 1}."
        )
    return _checked(addresses, worker_index or 0, "--worker-index")


def _of_environment(environment: Mapping[str, str]) -> Cluster | None:
    text = environment.get("TF_CONFIG")
    if not text:
        return None
    try:
        config = json.loads(text)
        cluster, task = config.get("cluster", {}), config.get("task", {})
        chief, others = list(cluster.get("chief", [])), list(cluster.get("worker", []))
        addresses = tuple(map(str, [*chief, *others]))
        kind, index = task.get("type", "worker"), int(task.get("index", 0))
    except (ValueError, TypeError, AttributeError) as error:
        raise DeltafineError(f"TF_CONFIG is not as TensorFlow describes it ({error}): see {SERVICE}.") from error
    if len(addresses) < 2:
        return None
    if kind not in ("chief", "worker"):
        raise DeltafineError(f"TF_CONFIG makes this process a '{kind}': there are only workers here, the first leads.")
    return _checked(addresses, index + (len(chief) if kind == "worker" else 0), "The index in TF_CONFIG")


def _checked(addresses: tuple[str, ...], index: int, what: str) -> Cluster | None:
    if not 0 <= index < len(addresses):
        raise DeltafineError(f"{what} is {index}: there are {len(addresses)} workers, counted from 0.")
    return Cluster(addresses, index) if len(addresses) > 1 else None

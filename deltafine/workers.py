"""Several devices of a machine, and several machines, at one job: `tf.distribute`, and what it takes to agree.

All workers run the same program and meet in the same collective operations in the same order. Whatever only one can
decide or know (what is on the disk, what was measured, when to stop) the first worker, the *chief*, decides and tells.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from deltafine.errors import DeltafineError
from deltafine.refinement.interruption import Interrupted

Result = TypeVar("Result")

SECONDS_TO_JOIN = 600.0
"""How long the first workers wait for the last ones."""
SERVICE = "https://www.tensorflow.org/guide/distributed_training#setting_up_the_tf_config_environment_variable"


class WorkerLost(DeltafineError):
    """Another worker has ended: nothing is wrong with the input, and the job can be started again."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: try again later


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


class Workers:
    """Those who do a job together; without arguments a single process with a single device.

    Args:
        strategy: of `tf.distribute`, over all devices of all workers; None for a single device.
        cluster: the processes; None for one.
    """

    def __init__(self, strategy: Any | None = None, cluster: Cluster | None = None) -> None:
        self.strategy = strategy
        self._cluster = cluster
        self.index = 0 if cluster is None else cluster.index
        self.count = 1 if cluster is None else len(cluster.addresses)
        self._reduce: Any = None

    @property
    def chief(self) -> bool:
        """Whether this process leads: it alone writes."""
        return self.index == 0

    @property
    def part(self) -> tuple[int, int] | None:
        """Which part of every batch is this worker's: (which, of how many); None for all of it."""
        return None if self.strategy is None else (self.index, self.count)

    @property
    def replicas(self) -> int:
        """Devices that this worker trains on."""
        return 1 if self.strategy is None else self.strategy.num_replicas_in_sync // self.count

    def summary(self) -> str:
        """One sentence for the user."""
        devices = f"{self.replicas} device{'s' if self.replicas > 1 else ''}"
        return devices if self.count == 1 else f"{self.count} workers, {devices} each; this is worker {self.index}"

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Variables that are made within have a copy on every device."""
        return contextlib.nullcontext() if self.strategy is None else self.strategy.scope()

    def own(self, variable: Any) -> Any:
        """This worker's first copy of a variable; the variable itself on a single device."""
        return variable if self.strategy is None else self.strategy.experimental_local_results(variable.value)[0]

    def lead(self, work: Callable[[], Result]) -> Result:
        """What the chief gets by doing this, for all; it must be what JSON can hold.

        If the chief fails or is stopped, all end in the same way.

        Raises:
            DeltafineError: the chief has failed.
            Interrupted: it was stopped.
        """
        if self.count == 1:
            return work()
        result: Result = json.loads(self.lead_bytes(lambda: json.dumps(work()).encode()))
        return result

    def lead_bytes(self, work: Callable[[], bytes]) -> bytes:
        """The same for bytes."""
        if self.count == 1:
            return work()
        if self.chief:
            try:
                content = work()
            except BaseException as error:
                if not isinstance(error, WorkerLost):
                    self._from(0, b"-" + json.dumps(_failure(error)).encode())
                raise
            self._from(0, b"+" + content)
            return content
        told = self._from(0, b"")
        if told[:1] == b"-":
            _raise(json.loads(told[1:]), "")
        return told[1:]

    def together(self, work: Callable[[], Result]) -> Result:
        """What this worker gets by doing this; if any of them fails or is stopped, all end in the same way."""
        if self.count == 1:
            return work()
        failure: dict[str, Any] = {}
        caught: BaseException | None = None
        result: Any = None
        try:
            result = work()
        except WorkerLost:
            raise
        except BaseException as error:
            failure, caught = _failure(error), error
        told = [json.loads(content) for content in self.gather(json.dumps(failure).encode())]
        if caught is not None:
            raise caught
        for number, other in enumerate(told):
            _raise(other, f"Worker {number} ({self._address(number)}) says: ")
        done: Result = result
        return done

    def agree(self, what: str, digest: str) -> None:
        """Make sure that all workers have the same.

        Raises:
            DeltafineError: they have not.
        """
        if self.count == 1:
            return
        for number, other in enumerate(self.gather(digest.encode())):
            if other.decode() != digest:
                raise DeltafineError(
                    f"Worker {number} ({self._address(number)}) has other {what} than worker {self.index}: give all of "
                    "them the same files, and the same version of deltafine."
                )

    def stopping(self, number: int) -> int:
        """The signal that any of the workers was sent, 0 if none was; ``number`` is that of this one."""
        if self.count == 1:
            return number
        return max(int(content) for content in self.gather(str(number).encode()))

    def follow(self, variables: Sequence[Any]) -> None:
        """Give all workers the chief's values."""
        if self.count == 1:
            return
        for variable in variables:
            value = np.asarray(variable)
            content = self._from(0, np.ascontiguousarray(value).tobytes() if self.chief else b"")
            if not self.chief:
                variable.assign(np.frombuffer(content, value.dtype).reshape(value.shape))

    def gather(self, content: bytes) -> list[bytes]:
        """What every worker gives, in their order."""
        return [content] if self.count == 1 else [self._from(number, content) for number in range(self.count)]

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Within the block, the end of another worker is a sentence, and not an error of TensorFlow.

        Raises:
            WorkerLost: another worker has ended.
        """
        if self.count == 1:
            yield
            return
        import tensorflow as tf

        errors = tf.errors
        try:
            yield
        except (errors.UnavailableError, errors.AbortedError, errors.CancelledError, errors.DeadlineExceededError) as e:
            raise WorkerLost(self._lost(str(e))) from e
        except (errors.InternalError, errors.InvalidArgumentError) as error:
            if "ollective" not in str(error):
                raise
            raise WorkerLost(self._lost(str(error))) from error

    def _lost(self, message: str) -> str:
        gone = {int(number) for number in re.findall(r"task:(\d+)", message)} - {self.index}
        if not gone and "leader task" in message:
            gone = {0}
        named = " and ".join(f"{number} ({self._address(number)})" for number in sorted(gone) if number < self.count)
        which = f"Worker {named}" if named else "Another worker"
        return (
            f"{which} has ended or cannot be reached, so this one ends too: see what it said, and start all of them "
            "again with --resume."
        )

    def _address(self, number: int) -> str:
        return self._cluster.addresses[number] if self._cluster is not None else "this machine"

    def _from(self, source: int, content: bytes) -> bytes:
        """The bytes that one of the workers has, for all."""
        mine = content if self.index == source else b""
        length = int(self._sum(np.array([len(mine)], np.int32))[0])
        words = np.zeros(-(-length // 4), np.int32)
        words.view(np.uint8)[: len(mine)] = np.frombuffer(mine, np.uint8)
        return self._sum(words).tobytes()[:length]

    def _sum(self, values: np.ndarray) -> np.ndarray:
        """Elementwise sum of (n,) int32 over all workers."""
        import tensorflow as tf

        strategy = self.strategy
        assert strategy is not None
        if self._reduce is None:

            def one(values: Any) -> Any:
                context = tf.distribute.get_replica_context()
                counted = tf.equal(context.replica_id_in_sync_group % self.replicas, 0)
                return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.where(counted, values, 0))

            # One trace for all lengths: a trace of one worker alone would put the collectives out of step.
            self._reduce = tf.function(
                lambda values: strategy.experimental_local_results(strategy.run(one, args=(values,)))[0],
                input_signature=[tf.TensorSpec((None,), tf.int32)],
            )
        with self.guarded():
            return np.asarray(self._reduce(values))


ALONE = Workers()
"""A single process that trains and measures on a single device."""


@functools.cache
def join(cluster: Cluster) -> Workers:
    """Meet the other workers; waits until all are there. Once for a process: they stay together.

    Nothing may have been computed by TensorFlow in this process before.

    Raises:
        DeltafineError: this worker's port is taken, or TensorFlow is in use already.
    """
    import tensorflow as tf

    from deltafine.devices import prepare_devices

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
    workers.gather(b"")
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


def _failure(error: BaseException) -> dict[str, Any]:
    if isinstance(error, KeyboardInterrupt):
        return {"signal": getattr(error, "signal", signal.SIGINT)}
    return {"error": str(error) if isinstance(error, DeltafineError) else f"{type(error).__name__}: {error}"}


def _raise(told: Mapping[str, Any], who: str) -> None:
    if "signal" in told:
        raise Interrupted(None, told["signal"])
    if "error" in told:
        raise DeltafineError(who + told["error"])


def to_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Named arrays as bytes."""
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    return content.getvalue()


def from_bytes(content: bytes) -> dict[str, np.ndarray]:
    """The arrays again."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)

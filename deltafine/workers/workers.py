"""What workers tell each other: a result of the chief's, a failure of any, sums of whole numbers."""

from __future__ import annotations

import contextlib
import json
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from deltafine.errors import DeltafineError, Interrupted
from deltafine.storage.files import JsonObject
from deltafine.workers.cluster import Cluster
from deltafine.workers.exchanges import Exchanges, total
from deltafine.workers.watching import EXIT_CODE, Watch

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


Result = TypeVar("Result")


class WorkerLost(DeltafineError):
    """Another worker has ended: nothing is wrong with the input, and the job can be started again."""

    exit_code = EXIT_CODE  # EX_TEMPFAIL of sysexits.h: try again later


class Workers:
    """Those who do a job together; without arguments a single process with a single device.

    Args:
        strategy: of `tf.distribute`, over all devices of all workers; None for a single device.
        cluster: the processes; None for one.
    """

    def __init__(self, strategy: tf.distribute.Strategy | None = None, cluster: Cluster | None = None) -> None:
        self.strategy = strategy
        self._cluster = cluster
        self.index = 0 if cluster is None else cluster.index
        self.count = 1 if cluster is None else len(cluster.addresses)
        self._reduce: Any = None
        self._watch: Watch | None = None
        self._exchanges: Exchanges | None = None

    def watch(self) -> None:
        """Notice from now on when another worker hangs; all of them begin to."""
        if self._cluster is None:
            return
        self._exchanges = Exchanges()
        watch = self._watch = Watch(self._exchanges.entered)
        ports = [int(content) for content in self.gather(str(watch.port).encode())]
        hosts = [address.rpartition(":")[0].strip("[]") for address in self._cluster.addresses]
        others = {number: (hosts[number], port) for number, port in enumerate(ports) if number != self.index}
        watch.start(others, self._stop_waiting_for)

    @contextlib.contextmanager
    def step(self, *, first: bool = False) -> Iterator[None]:
        """Within the block all workers take a step of a training; errors are as in :meth:`guarded`.

        The ``first`` one of a training may take long, because it is compiled.
        """
        with self.guarded(), contextlib.nullcontext() if self._watch is None else self._watch.step(first=first):
            yield

    def own_work(self) -> contextlib.AbstractContextManager[None]:
        """Within the block this worker may take long, and does not hang."""
        return contextlib.nullcontext() if self._watch is None else self._watch.own_work

    @property
    def chief(self) -> bool:
        """Whether this process leads: it alone writes."""
        return self.index == 0

    @property
    def shard(self) -> tuple[int, int] | None:
        """Which shard of every batch is this worker's: (which, of how many); None for all of it."""
        return None if self.strategy is None else (self.index, self.count)

    @property
    def replicas(self) -> int:
        """Devices that this worker trains on."""
        return 1 if self.strategy is None else self.strategy.num_replicas_in_sync // self.count

    def summary(self) -> str:
        """One sentence for the user."""
        devices = f"{self.replicas} device{'s' if self.replicas > 1 else ''}"
        return devices if self.count == 1 else f"{self.count} workers, {devices} each; this is worker {self.index}"

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Variables that are made within have a copy on every device, which the workers give each other."""
        with self.guarded(), contextlib.nullcontext() if self.strategy is None else self.strategy.scope():
            yield

    def own(self, variable: keras.Variable) -> keras.Variable | tf.Tensor:
        """This worker's first copy of a variable; the variable itself on a single device."""
        return variable if self.strategy is None else self.strategy.experimental_local_results(variable.value)[0]

    def total(self, x: tf.Tensor) -> tf.Tensor:
        """Sum of a tensor over all replicas, elementwise; for use in each of them within a step, and differentiable."""
        return total(x) if self._exchanges is None else self._exchanges.total(x)

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
        failure: JsonObject = {}
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

    def follow(self, variables: Sequence[keras.Variable]) -> None:
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
            with contextlib.nullcontext() if self._watch is None else self._watch.waiting:
                yield
        except (errors.UnavailableError, errors.AbortedError, errors.CancelledError, errors.DeadlineExceededError) as e:
            raise WorkerLost(self._lost(str(e))) from e
        except (errors.InternalError, errors.InvalidArgumentError) as error:
            if "ollective" not in str(error):
                raise
            raise WorkerLost(self._lost(str(error))) from error

    def _stop_waiting_for(self, number: int | None) -> str:
        """End what this worker waits for; gives the sentence that it then says."""
        import tensorflow as tf
        from tensorflow.python.eager import context  # the way of TensorFlow's own check of whether others are there

        context.context().abort_collective_ops(tf.errors.UNAVAILABLE, "" if number is None else f"/task:{number}")
        return self._hanging(self._watch)

    def _hanging(self, watch: Watch | None) -> str:
        if watch is None or not watch.reason:
            return ""
        if watch.hangs is None:
            return (
                f"{watch.reason}, and all workers are equally far in it. One of them hangs, or the network between "
                "them, and which one could not be told, so this one ends: end all of them, and start them again with "
                "--resume."
            )
        return (
            f"Worker {watch.hangs} ({self._address(watch.hangs)}) {watch.reason}, so this one ends: end that one too, "
            "and start all of them again with --resume."
        )

    def _lost(self, message: str) -> str:
        if self._watch is not None:
            self._watch.look()
            if said := self._hanging(self._watch):
                self._watch.acknowledge()
                return said
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

            def one(values: tf.Tensor) -> tf.Tensor:
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


def _failure(error: BaseException) -> JsonObject:
    if isinstance(error, KeyboardInterrupt):
        return {"signal": getattr(error, "signal", signal.SIGINT)}
    return {"error": str(error) if isinstance(error, DeltafineError) else f"{type(error).__name__}: {error}"}


def _raise(told: JsonObject, who: str) -> None:
    if "signal" in told:
        raise Interrupted(None, told["signal"])
    if "error" in told:
        raise DeltafineError(who + told["error"])

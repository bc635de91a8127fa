"""Running a model frame by frame, computing only what changed."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from deltafine.errors import DeltafineError, DeltafineWarning
from deltafine.runtime import plan_cache as kept
from deltafine.runtime.array_sizes import owned_bytes
from deltafine.runtime.controller import check_budgets
from deltafine.runtime.delta_stream import DeltaStream, Later, require_sensitivity
from deltafine.runtime.first_start import Compiling, kernels_are_kept
from deltafine.runtime.frame_counts import FrameCounts
from deltafine.runtime.many_streams import step_many
from deltafine.runtime.numba_there import MEND_NUMBA, why_no_numba
from deltafine.runtime.plan import Operation, Plan
from deltafine.runtime.single_thread import NotCopied
from deltafine.storage import run_files
from deltafine.storage.files import looks_like_onnx

if TYPE_CHECKING:
    import keras

    from deltafine.runtime.numba_stream import NumbaState
    from deltafine.runtime.numpy_stream import NumpyState

ENGINES = ("auto", "numba", "numpy")
PRECISIONS = ("float32", "int8")

NewState: TypeAlias = "Callable[[], NumbaState | NumpyState]"
KerasCall = Callable[[Sequence[Operation], Mapping[int, np.ndarray]], list[np.ndarray]]


class DeltaRuntime(NotCopied):
    """A model compiled for inference frame by frame, and one stream to begin with.

    Frames of a video go through ``step`` one by one; ``reset`` starts another video. What a model takes beside its
    frames is given with each of them: ``runtime.step(frame, {"speed": 3.5})``. For several videos at once, ask
    for more streams: they share the weights and have a state each, and each may be used by a thread of its own. ::

        with deltafine.DeltaRuntime("run/") as runtime:
            for frame in video:
                prediction = runtime.step(frame)

    Weights are those that the model had when the runtime was made, whatever happens to the model afterwards; those of
    layers left to Keras, too. A runtime cannot be copied or pickled. In a forked process it goes on, from where it
    stood, unless layers are left to Keras.

    Args:
        source: a run directory, a model file, or a loaded Keras model.
        engine: ``"numba"``, ``"numpy"``, or ``"auto"`` for numba where it works; where it does not, a
            ``DeltafineWarning`` says so, and NumPy computes. At the first start on a machine, ``"auto"`` answers with
            NumPy until the kernels are compiled, and goes on with them; ``"numba"`` compiles them first.
        frame_size: (height, width), for a model that takes any size.
        every: k: run on every k-th frame of a video from its first on, and hold the prediction between.
        budget_ms, budget_macs: what a frame of a stream may take in the mean, in milliseconds, or as a share of the
            dense MACs: each stream keeps its mean there by moving its ``sensitivity``, from 0.25 to 8. First frames
            do not count, held ones do. One of the two.
        clip: after how many frames states begin anew, of a model of clips that has some; 0 for never, and by default
            those of a clip of a recurrent model, as when it was trained and measured.
        precision: ``"float32"``, or ``"int8"`` for weights and activations in 8-bit integers, see docs/runtime.md. It
            needs the ranges of values, which ``calibrate`` finds on frames, and which are kept with the plan.
        threads: that compute a frame of a stream that is advanced by itself; no more than there are processors.
            Answers, counts and states are those of one thread, bit by bit. NumPy has one.
        cache: keep the compiled plan for the next start: in the run directory, or in the user's cache. Where that is
            not possible, or what was kept is damaged, a ``DeltafineWarning`` says so, and all goes on without.
        custom_objects, unsafe_lambda: for a file with layers or functions of the user's own, as for
            ``deltafine.model.load``.

    Attributes:
        plan: what is computed, operation by operation; with ``precision="int8"`` in floating point until the ranges
            are known.
        engine: the engine in use.
        every, budget_ms, budget_macs, precision: as given.
        threads: as given, or as many as there are processors.
        sensitivity: of the runtime's own stream, see ``DeltaStream``; what it is set to, further streams begin with.

    Raises:
        DeltafineError: the model cannot be found, loaded or run frame by frame, or the engine cannot be used.

    Examples:
        >>> frames = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
        >>> with deltafine.DeltaRuntime("run/") as runtime:
        ...     predictions = [runtime.step(frame) for frame in frames]
        >>> predictions[0].shape
        (2,)
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | keras.Model,
        *,
        engine: str = "auto",
        frame_size: tuple[int, int] | None = None,
        every: int = 1,
        budget_ms: float | None = None,
        budget_macs: float | None = None,
        clip: int | None = None,
        precision: str = "float32",
        threads: int = 1,
        cache: bool = True,
        custom_objects: Mapping[str, Any] | None = None,
        unsafe_lambda: bool = False,
    ) -> None:
        if every < 1:
            raise DeltafineError(f"every is {every}: give a whole number from 1 on.")
        check_budgets(budget_ms, budget_macs)
        if precision not in PRECISIONS:
            raise DeltafineError(f"The precision must be one of {', '.join(PRECISIONS)}, not '{precision}'.")
        self.precision, self.threads = precision, _no_more_than_processors(threads)
        self._engine, self.every = _engine(engine), every
        self._compiling: Compiling | None = None
        if self._engine == "numba" and engine == "auto" and not kernels_are_kept(precision):
            self._compiling = Compiling(precision)
        self.budget_ms, self.budget_macs, self._set_to = budget_ms, budget_macs, 1.0
        self._calls_keras: KerasCall = _no_keras
        self._new_state: NewState | None = None
        self._later: Later | None = None
        self._own: DeltaStream | None = None
        self._weight_bytes = 0
        self._folder: Path | None = None
        self._source = ""
        if isinstance(source, str | os.PathLike):
            trust = {"custom_objects": custom_objects, "unsafe_lambda": unsafe_lambda}
            # A kept plan would not follow changes of the user's own code.
            own_code = bool(custom_objects) or unsafe_lambda
            self.plan = self._from_path(Path(source), frame_size, cache and not own_code, trust)
        else:
            self.plan = self._compile(source, frame_size)
        if clip is not None:
            self.plan = _with_clip(self.plan, clip)
        if budget_ms is not None or budget_macs is not None:
            require_sensitivity(self.plan)
        if budget_macs is not None and not self.plan.dense_macs():
            raise DeltafineError(f"Model '{self.plan.name}' has no MACs that could be kept at a budget.")
        self._exact = self.plan
        if precision == "int8" and self.plan.further:
            named = ", ".join(f"'{operation.name}'" for operation in self.plan.further)
            raise DeltafineError(
                f"Model '{self.plan.name}' takes {named} beside its frames, which int8 does not know: use float32."
            )
        if precision == "int8" and self.plan.delays:
            raise DeltafineError(
                f"Model '{self.plan.name}' takes clips, and has states that int8 does not know: use float32."
            )
        if precision == "int8":
            ranges = kept.ranges(self._folder, self._source, self.plan)
            if ranges is not None:
                self._quantise(ranges)
            return
        self._choose(kept.choice(self._folder, self._source, self.plan))

    def calibrate(self, frames: Iterable[np.ndarray]) -> dict[str, float]:
        """Time both ways to run each convolution on the user's frames, and take the faster from now on.

        By rows is best where few positions change; by single events where most positions change in few channels.
        The choice is kept with the plan, for this machine. Streams made before keep their own. Further inputs are 0
        meanwhile.

        With ``precision="int8"``, find the ranges of all values on the frames instead, and keep those. All runs by
        rows then. The runtime's own stream begins anew.

        Args:
            frames: consecutive frames of a video, about 20. For int8 any number of frames that show what the runtime
                will see; if all are bytes, the input's range is that of bytes.

        Returns:
            The convolutions that run by events now, and how many times as much one multiply-accumulate costs in them.
            Nothing for the NumPy engine, which knows one way only, and for int8.

        Raises:
            DeltafineError: there are too few frames, or values that are not finite in them.
        """
        if self.precision == "int8":
            ranges = self._ranges_of(frames)
            self._quantise(ranges)
            kept.keep_ranges(ranges, self._folder, self._source)
            return {}
        if self._engine == "numpy" or (self._compiling is not None and not self._compiling.wait()):
            return {}
        from deltafine.runtime.autotuning import choose

        choice = choose(self.plan, frames, self._calls_keras)
        self._choose(choice)
        kept.keep_choice(choice, self._folder, self._source)
        return choice

    @property
    def calibrated(self) -> bool:
        """Whether a choice was made on this machine, or ranges for int8 were found, now or at an earlier start."""
        if self.precision == "int8":
            return self._new_state is not None
        return self._engine == "numpy" or self._choice is not None

    @property
    def compiling(self) -> bool:
        """Whether NumPy answers because the kernels are not there yet."""
        return self._compiling is not None and not self._compiling.done

    @property
    def engine(self) -> str:
        """The engine in use."""
        return "numpy" if self.compiling else self._engine

    def _choose(self, choice: dict[str, float] | None) -> None:
        self._choice = choice
        self._begin_with(lambda: self._states(choice or {}))

    def _begin_with(self, states: Callable[[], NewState]) -> None:
        """Let ``states`` say what makes those of streams: now, and once more when there are kernels."""
        self._later = self._when_compiled(states) if self.compiling else None
        self._new_state = states()
        self._own = self.stream()

    @property
    def _stream(self) -> DeltaStream:
        """The runtime's own stream."""
        if self._own is None:
            raise DeltafineError(_NO_RANGES)
        return self._own

    def _quantise(self, ranges: np.ndarray) -> None:
        """Compute in 8-bit integers from now on."""
        from deltafine.runtime.int8.engines import states
        from deltafine.runtime.int8.quantise import in_bytes

        self.plan = plan = in_bytes(self._exact, ranges)

        def of_engine() -> NewState:
            shared = self._exact.arrays.values()
            made, weight_bytes = states(plan, shared, self.engine, self._calls_keras, self.threads)
            self._weight_bytes = weight_bytes + getattr(self._calls_keras, "memory", 0)
            return made

        self._begin_with(of_engine)

    def _ranges_of(self, frames: Iterable[np.ndarray]) -> np.ndarray:
        """The least and largest value of each tensor, in floating point."""
        from deltafine.runtime.value_ranges import of_bytes, value_ranges

        video = [np.asarray(frame) for frame in frames]
        if not video:
            raise DeltafineError("Calibrating takes frames, and there are none.")
        stream = DeltaStream(self._exact, self._states({})())
        ranges = value_ranges(self._exact, stream, video)
        if not np.isfinite(ranges).all():
            raise DeltafineError("Values of the model are not finite on these frames: no range holds them in int8.")
        return of_bytes(self._exact, ranges) if all(frame.dtype == np.uint8 for frame in video) else ranges

    def step(self, frame: np.ndarray, further: Mapping[str, Any] | None = None) -> Any:
        """Advance the runtime's own stream by one frame, see ``DeltaStream.step``."""
        return self._stream.step(frame, further)

    def step_many(
        self,
        frames: Mapping[DeltaStream, np.ndarray],
        further: Mapping[DeltaStream, Mapping[str, Any]] | None = None,
    ) -> dict[DeltaStream, Any]:
        """Advance several streams by a frame each, so that weights are read once for all of them.

        Answers, counts and states are those of ``DeltaStream.step``, bit by bit. A stream that has no frame now is
        left out, and stays as it is. ::

            door, yard = runtime.stream(), runtime.stream()
            answers = runtime.step_many({door: frame, yard: another})
            answers[door]

        Args:
            frames: by stream of this runtime, as ``DeltaStream.step`` takes them.
            further: by stream, what it is given beside its frame; for models with further inputs.

        Returns:
            The predictions by stream, in the same order. With ``budget_ms``, a frame has taken an equal share of the
            time.

        Raises:
            DeltafineError: as for ``DeltaStream.step``, or a stream is of another runtime; no stream is advanced.
        """
        return step_many(self.plan, frames, further)

    def reset(self) -> None:
        """Start a new video on the runtime's own stream."""
        self._stream.reset()

    @property
    def counts(self) -> FrameCounts | None:
        """What the last frame of the runtime's own stream took."""
        return self._stream.counts

    def sent(self) -> dict[str, np.ndarray]:
        """See ``DeltaStream.sent``."""
        return self._stream.sent()

    @property
    def sensitivity(self) -> float:
        """What all thresholds of the runtime's own stream are multiplied with, see ``DeltaStream.sensitivity``.

        Streams that are made later begin with what it was set to.
        """
        return self._stream.sensitivity

    @sensitivity.setter
    def sensitivity(self, value: float) -> None:
        self._stream.sensitivity = value
        self._set_to = self._stream.sensitivity

    def stream(self) -> DeltaStream:
        """Another stream of the same model. Safe to call, and to run, from several threads."""
        if self._new_state is None:
            raise DeltafineError(_NO_RANGES)
        return DeltaStream(
            self.plan,
            self._new_state(),
            self.every,
            sensitivity=self._set_to,
            budget_ms=self.budget_ms,
            budget_macs=self.budget_macs,
            later=self._later,
        )

    def _when_compiled(self, states: Callable[[], NewState]) -> Later:
        """What streams ask for a state in the kernels' memory; it begins to compile behind the first answer."""
        compiling, making = self._compiling, threading.Lock()

        def state(answered: bool) -> NumbaState | None:
            assert compiling is not None
            if not compiling.done:
                if answered:
                    compiling.begin()
                return None
            with making:
                if self._later is state:  # nobody has been here
                    self._new_state, self._later = states(), None
            assert self._new_state is not None
            return cast("NumbaState", self._new_state())

        return state

    @property
    def memory(self) -> dict[str, int]:
        """Bytes of all arrays that are held.

        ``weights``: the plan's, as it is kept and as the engine reads them, shared by all streams; and the weights of
        layers left to Keras. ``state``: of each stream, with buffers for frames that cannot be read where they lie.
        ``working``: what kernels work in, once for all streams that a thread advances one by one; 0 before the first
        frame, and of NumPy.
        """
        program = getattr(self._stream.state, "program", None)
        working = [] if program is None else program.working_arrays
        return {"weights": self._weight_bytes, "state": self._stream.memory, "working": owned_bytes(working)}

    def __enter__(self) -> DeltaRuntime:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._own is not None:
            self.reset()
            self._own.release_threads()

    def _from_path(self, path: Path, frame_size: tuple[int, int] | None, cache: bool, trust: Mapping[str, Any]) -> Plan:
        file = path / run_files.REFINED if path.is_dir() else path
        if not file.is_file():
            raise DeltafineError(f"There is no model at {file}: give a run directory or a model file.")
        if not cache or looks_like_onnx(file):  # of which the weights may lie in another file
            return self._load_and_compile(file, frame_size, trust)
        self._source = kept.digest(file, frame_size)
        cached = kept.user_cache()
        own = None if cached is None else cached / self._source[:16]
        self._folder = file.parent / run_files.RUNTIME if path.is_dir() else own
        plan = kept.plan(self._folder, self._source) if self._folder else None
        if plan is None:
            plan = self._load_and_compile(file, frame_size, trust)
            if not plan.has_own_code:
                kept.keep_plan(plan, self._folder, self._source)
        return plan

    def _load_and_compile(self, file: Path, frame_size: tuple[int, int] | None, trust: Mapping[str, Any]) -> Plan:
        from deltafine.model import load

        return self._compile(load(file, **trust), frame_size)

    def _compile(self, model: keras.Model, frame_size: tuple[int, int] | None) -> Plan:
        from deltafine.model.loading import check_model
        from deltafine.runtime.lowering.lower import compile_model

        check_model(model)
        compiled = compile_model(model, frame_size)
        if compiled.calls:
            from deltafine.runtime.keras_calls import KerasCalls

            self._calls_keras = KerasCalls(compiled.calls)
        return compiled.plan

    def _states(self, choice: dict[str, float]) -> NewState:
        plan = self._exact
        shared = [*plan.arrays.values()]
        of_keras = getattr(self._calls_keras, "memory", 0)
        if self.engine == "numpy":
            from deltafine.runtime.numpy_stream import NumpyState, matrices

            weights = matrices(plan)
            self._weight_bytes = owned_bytes([*shared, *weights.values()]) + of_keras
            return lambda: NumpyState(plan, self._calls_keras, weights)
        from deltafine.runtime.numba_stream import NumbaState
        from deltafine.runtime.packed_plan import Program

        program = Program(plan, choice, self.threads)
        self._weight_bytes = owned_bytes([*shared, *program.arrays]) + of_keras
        return lambda: NumbaState(program, self._calls_keras)


def _no_more_than_processors(threads: int) -> int:
    if threads < 1:
        raise DeltafineError(f"threads is {threads}: give a whole number from 1 on.")
    return min(threads, kept.available_cores())


def _with_clip(plan: Plan, clip: int) -> Plan:
    """The plan with states that begin anew after so many frames."""
    if clip < 0:
        raise DeltafineError(f"clip is {clip}: give a whole number of frames, or 0 for states that run on.")
    if not plan.delays:
        raise DeltafineError(f"Model '{plan.name}' has no states that could begin anew: leave clip out.")
    return replace(plan, clip=clip)


_NO_RANGES = "The ranges of values, which int8 needs, are not known yet: call calibrate(frames) with some frames first."


def _no_keras(operations: Sequence[Operation], given: Mapping[int, np.ndarray]) -> list[np.ndarray]:
    raise AssertionError(f"'{operations[0].name}' needs Keras, which this plan does not")


def _engine(name: str) -> str:
    if name not in ENGINES:
        raise DeltafineError(f"The engine must be one of {', '.join(ENGINES)}, not '{name}'.")
    if name == "numpy":
        return name
    if why := why_no_numba():
        if name == "numba":
            raise DeltafineError(f"The engine 'numba' cannot be used ({why}): {MEND_NUMBA}.")
        warnings.warn(
            f"numba cannot be used ({why}), so NumPy computes, which is slower than any dense runtime: {MEND_NUMBA}.",
            DeltafineWarning,
            stacklevel=3,
        )
    return "numpy" if why else "numba"

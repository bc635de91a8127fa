"""One stream of frames through a runtime, with a state of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from deltafine.errors import DeltafineError
from deltafine.runtime.controller import Controller, checked_sensitivity
from deltafine.runtime.event_rules import follows_sensitivity
from deltafine.runtime.frame_counts import FrameCounts
from deltafine.runtime.given_values import accepted_inputs
from deltafine.runtime.output_structure import packed
from deltafine.runtime.plan import Plan
from deltafine.runtime.single_thread import NotCopied, alone

if TYPE_CHECKING:
    from deltafine.runtime.numba_stream import NumbaState
    from deltafine.runtime.numpy_stream import NumpyState

Later = Callable[[bool], "NumbaState | None"]
"""Asked before each frame whether there is another state to go on with; told whether there was a frame before."""


class DeltaStream(NotCopied):
    """One video going through a model. Used by one thread at a time; streams of one model may run side by side.

    It cannot be copied or pickled. Any method raises a DeltafineError while another thread is within one.
    """

    def __init__(
        self,
        plan: Plan,
        state: NumbaState | NumpyState,
        every: int = 1,
        *,
        sensitivity: float = 1.0,
        budget_ms: float | None = None,
        budget_macs: float | None = None,
        later: Later | None = None,
    ) -> None:
        self._guard = threading.Lock()
        self._later = later
        self._plan = plan
        self._shape, self._image = plan.input_shape, plan.tensors[plan.operations[0].output].shape
        self.state = state
        self._every, self._number = every, 0  # of the next frame
        self._counts: FrameCounts | None = None
        self._underway = False
        self._beside: dict[int, np.ndarray] = {}
        self._sensitivity = 1.0
        self._by_time = budget_ms is not None
        budget = budget_ms if budget_macs is None else budget_macs * plan.dense_macs()
        self._controller = None if budget is None else Controller(budget)
        if sensitivity != 1:
            self.sensitivity = sensitivity

    @property
    def sensitivity(self) -> float:
        """What all thresholds of this stream are multiplied with: above 1, less is sent, and answers are less exact.

        It may be set between frames, to a number above 0; a budget moves it by itself. Where it becomes smaller, the
        next frame compares every value anew, also what stands still, which costs as much as a frame that changes
        whole. A budget does without that: what was held under a larger number is compared when it is computed again.
        Rules that quantise keep their thresholds, see docs/runtime.md.

        Raises:
            DeltafineError: it is not such a number, the model has no thresholds that can be multiplied, or a budget
                moves it.
        """
        return self._sensitivity

    @sensitivity.setter
    @alone
    def sensitivity(self, value: float) -> None:
        value = checked_sensitivity(value)
        if self._controller is not None:
            raise DeltafineError("A budget moves the sensitivity of this stream: it cannot be set as well.")
        if value != 1:
            require_sensitivity(self._plan)
        if value != self._sensitivity:
            self.state.set_sensitivity(value, compare_all=value < self._sensitivity)
            self._sensitivity = value

    @property
    @alone
    def counts(self) -> FrameCounts | None:
        """What the last frame took; None before the first. It is counted when it is asked for."""
        if self._counts is None and not self.state.fresh and not self._underway:
            self._counts = self.state.counts()
        return self._counts

    @alone
    def step(self, frame: np.ndarray, further: Mapping[str, Any] | None = None) -> Any:
        """Advance by one frame.

        Of a runtime that runs on every k-th frame, the others are not looked at: the prediction is that of the last
        frame that was, and the counts are 0.

        Args:
            frame: (height, width, channels), any number type, pixels as the model takes them.
            further: by name, the number or vector for each input that the model has beside its frames.

        Returns:
            The model's prediction for this frame, float32; of a model with several outputs a tuple, list or dict of
            them, as the model gives them.

        Raises:
            DeltafineError: the frame is not of the model's shape, or holds NaN or infinity, or what comes with it is
                not what the model takes; it is left out, and the next is compared with the one before. Or another
                thread is using this stream.
        """
        pixels = self._accepted(frame, further)
        begin = time.perf_counter()
        first = self._begun(held=pixels is None)
        if pixels is not None:
            self.state.step(pixels)
        return self._ended(first, 1e3 * (time.perf_counter() - begin))

    def _accepted(self, frame: np.ndarray, further: Mapping[str, Any] | None = None) -> np.ndarray | None:
        """The pixels of a frame, if it can be used; None if this is one that is not looked at."""
        pixels = np.asarray(frame)
        if pixels.shape != self._shape or pixels.dtype.kind not in "uifb":
            raise DeltafineError(
                f"A frame of model '{self._plan.name}' is numbers of shape {self._plan.input_shape}, not "
                f"{pixels.dtype} of shape {pixels.shape}: resize it first."
            )
        if self._underway:  # the step before broke off, and left values of two frames
            self._reset()
        if self._later is not None and (state := self._later(not self.state.fresh)) is not None:
            self._go_on_with(state)
        if self._number % self._every:
            return None
        self._beside = accepted_inputs(self._plan, further)
        pixels = self._finite(pixels)
        return pixels if pixels.shape == self._image else pixels.reshape(self._image)

    def _begun(self, *, held: bool) -> bool:
        """The state is going to be advanced, or the prediction held; returns whether this is a first frame."""
        self._counts, self._underway = FrameCounts(self._plan) if held else None, not held
        if not held and self._beside:
            self.state.give(self._beside)
        return self.state.fresh

    def _ended(self, first: bool, milliseconds: float) -> Any:
        """The prediction, now that the state is advanced."""
        self._underway = False
        self._number += 1
        if self._controller is not None and not first:  # which is computed whole, whatever the thresholds are
            self._keep_budget(self._controller, milliseconds)
        return packed(self._plan.structure, [self._of_sample(index) for index in self._plan.outputs])

    def _go_on_with(self, state: NumbaState) -> None:
        """The kernels are there: they go on from where NumPy stands."""
        if not self.state.fresh:
            state.go_on_from([self.state.as_kept(index) for index in range(len(self._plan.tensors))])
        if self._sensitivity != 1:
            state.set_sensitivity(self._sensitivity, compare_all=False)
        state.frames = self.state.frames
        self.state, self._later = state, None

    def _keep_budget(self, controller: Controller, milliseconds: float) -> None:
        """Multiply thresholds as a budget asks for, now that a frame has cost what it has."""
        cost = milliseconds
        if not self._by_time:
            self._counts = self._counts or self.state.counts()
            cost = self._counts.total("needed_macs")
        if controller.saw(cost):
            self._sensitivity = controller.sensitivity
            self.state.set_sensitivity(self._sensitivity, compare_all=False)

    def _finite(self, pixels: np.ndarray) -> np.ndarray:
        if pixels.dtype.kind != "f":
            return pixels
        if pixels.dtype != np.float32:
            with np.errstate(over="ignore"):
                pixels = pixels.astype(np.float32)
        if not self.state.is_finite(pixels):
            broken = np.argwhere(~np.isfinite(pixels))
            raise DeltafineError(
                f"The frame holds {len(broken)} values that are not finite in 32 bits (NaN or infinity), the first at "
                f"{tuple(int(place) for place in broken[0])}: it is left out; repair it or leave it out."
            )
        return pixels

    @alone
    def reset(self) -> None:
        """Start a new video: the next frame is computed whole."""
        self._reset()

    def _reset(self) -> None:
        self._underway = True  # in case that this, too, is broken off
        self.state.reset()
        self._counts, self._underway, self._number = None, False, 0

    def release_threads(self) -> None:
        """Let threads end that have helped to compute frames; others come when they are needed again."""
        program = getattr(self.state, "program", None)
        if program is not None:
            program.release_threads()

    @alone
    def sent(self) -> dict[str, np.ndarray]:
        """What each delta layer sent last, by the layer's path; in the order in which they run."""
        return {
            operation.finish.delta.name: self._of_sample(operation.output)
            for operation in self._plan.operations
            if operation.finish.delta is not None
        }

    def value(self, index: int) -> np.ndarray:
        """The current value of a tensor of the plan, (height, width, channels)."""
        return self.state.value(index)

    @property
    def memory(self) -> int:
        """Bytes of all arrays of this stream: its state and its buffers."""
        return int(self.state.memory)

    def _of_sample(self, index: int) -> np.ndarray:
        return self.state.value(index).reshape(self._plan.tensors[index].sample_shape)


def require_sensitivity(plan: Plan) -> None:
    """Refuse a model whose thresholds cannot be multiplied.

    Raises:
        DeltafineError: there are no delta layers, or none with a rule that allows it.
    """
    rules = {operation.finish.delta.rule for operation in plan.operations if operation.finish.delta is not None}
    if not any(follows_sensitivity(plan, operation) for operation in plan.operations):
        why = f"its delta layers have the rule {', '.join(sorted(rules))}" if rules else "it has no delta layers"
        raise DeltafineError(
            f"Model '{plan.name}' has no thresholds that can be multiplied while it runs, since {why}: sensitivity and "
            "budgets need a rule such as send-on-delta."
        )

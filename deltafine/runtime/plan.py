"""The plan: what a per-frame model computes, as a short list of plain operations.

A plan knows nothing of Keras or TensorFlow. It is what both engines run, what is kept between starts, and the
description for whoever writes firmware: ``plan.json`` with the operations in order of computation, ``plan.npz`` with
the arrays that they name. docs/plan.md explains every field.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deltafine.errors import DeltafineError
from deltafine.runtime.output_structure import Structure, packed
from deltafine.storage import run_files
from deltafine.storage.files import JsonObject, make_folder, read_small, write_atomically

if TYPE_CHECKING:
    from deltafine.layers import EventRule

_MOST_BYTES = 64 << 20
VERSION = 5
"""1 had no structure of outputs, and shapes that were not always the model's; 2 and 3 had fewer kinds of operations; 4
had states that never began anew."""
MACS = ("conv", "depthwise")
"""Kinds of operations that multiply and accumulate."""

ELEMENTWISE = ("add", "subtract", "multiply", "average", "maximum", "minimum", "divide", "power", "prelu")
UNKNOWN = "keras"
DELAY = "delay"
GIVEN = "given"
"""The kind of a further input: numbers that are given with each frame."""
WHOLE = (UNKNOWN, "attention")
"""Kinds whose multiply-accumulates are carried out, and count, for the whole frame or not at all."""


@dataclass
class Tensor:
    """A value of the graph for one frame, laid out as (height, width, channels); a vector is (1, 1, channels).

    Attributes:
        name: path of the call that makes it.
        shape: (height, width, channels).
        sample_shape: its shape in the model, without the batch axis.
    """

    name: str
    shape: tuple[int, int, int]
    sample_shape: tuple[int, ...]


@dataclass
class Delta:
    """A delta layer: the event rule at the end of an operation.

    Attributes:
        name: path of the layer.
        rule: name of the rule.
        granularity: ``"element"`` or ``"pixel"``.
        threshold: name of the array of thresholds; its shape is (), (channels,) or (height, width, channels).
    """

    name: str
    rule: str
    granularity: str
    threshold: str


@dataclass
class Finish:
    """What happens to each row of channels before it is kept: ``delta(activation(scale * x + shift))``.

    Attributes:
        scale, shift: names of arrays (channels,); "" for none.
        activation: name of the activation function.
        parameters: its numbers, see ``deltafine.runtime.activation_functions``.
        delta: the delta layer behind it.
    """

    scale: str = ""
    shift: str = ""
    activation: str = "linear"
    parameters: tuple[float, ...] = ()
    delta: Delta | None = None


@dataclass(eq=False)
class Operation:
    """One step of the plan.

    Attributes:
        kind: ``input``, ``identity``, ``conv``, ``depthwise``, ``max_pool``, ``average_pool``, ``global_average``,
            ``global_max``, ``place`` (padding, cropping, upsampling), ``reshape``, ``concatenate``, ``gather`` (values
            in any other order), ``blend`` (weighted sums of positions), ``constant``, ``attention``, one of
            ``ELEMENTWISE``, ``delay`` (what a tensor was in the frame before, zeros in a first one), ``given`` (a
            further input, which comes with each frame), or ``keras``: a call that only Keras knows.
        name: path of the Keras call it comes from; of a convolution with its stage, as reports name it.
        inputs, output: indices of tensors.
        kernel, strides, dilation: (height, width) of a convolution or of pooling.
        padding: (top, left): zeros in front of the input; those behind it follow from the output's size.
        groups: of a convolution; heads of an attention.
        weights: name of the array: (height, width, input channels / groups, output channels) of a convolution,
            (height, width, input channels, multiplier) of a depthwise one; the values of a constant; of a blend the
            (height, width, terms) factors of its sums; of an attention the () that multiplies the queries.
        table: name of an array of integers. Of a gather, for each output value (height, width, channels) the place of
            its value in the inputs, flat, one behind the other, -1 for a zero; or only of the first value of each
            position (height, width), the others of which follow. Of a blend (height, width, terms) input positions.
        fan: name of the array (height, width) of how many weights each input element meets.
        dense_macs: of a frame, as the report counts them: padding inside the layer left out, padding layers not; None
            for a layer left to Keras that multiplies in a way that no rule counts.
        finish: what is done to each output row.
        before: of a delay, the tensor whose value in the frame before it gives; -1 for others.
        restarts: whether it is the delta layer of a state, and begins anew with it.
        whole, most: of a further input, whether its numbers are whole, and what they are below; 0 for any.
        layer: class of the Keras layer it comes from.
    """

    kind: str
    name: str
    inputs: tuple[int, ...]
    output: int
    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    groups: int = 1
    weights: str = ""
    table: str = ""
    fan: str = ""
    dense_macs: int | None = 0
    finish: Finish = field(default_factory=Finish)
    before: int = -1
    restarts: bool = False
    whole: bool = False
    most: int = 0
    layer: str = ""


def begins_anew(plan: Plan, frames: int) -> bool:
    """Whether states are zeros again, after so many frames of a stream."""
    return plan.clip > 0 and frames > 0 and frames % plan.clip == 0


def can_run_by_events(operation: Operation) -> bool:
    """Convolutions of one group and dense layers can."""
    return operation.kind == "conv" and operation.groups == 1


@dataclass
class Plan:
    """A compiled model.

    Attributes:
        name: of the model.
        tensors: every value.
        operations: in order of computation; the first is the input.
        outputs: indices of the tensors that are the predictions of a frame.
        arrays: weights, thresholds and fan-outs by name.
        structure: how the outputs are given, see ``deltafine.runtime.output_structure``.
        clip: after so many frames, what was in the frame before is zeros again; 0 for never.
        own_rules: by the names of their delta layers, the event rules that the engines do not know, which are the
            user's own. They are not saved: they are Python code.
    """

    name: str
    tensors: list[Tensor]
    operations: list[Operation]
    outputs: tuple[int, ...]
    arrays: dict[str, np.ndarray] = field(repr=False, default_factory=dict)
    structure: Structure = 0
    clip: int = 0
    own_rules: dict[str, EventRule] = field(repr=False, default_factory=dict)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(height, width, channels) of a frame."""
        return self.tensors[self.operations[0].output].sample_shape

    @property
    def unknown(self) -> list[Operation]:
        """Operations that run densely through Keras."""
        return [operation for operation in self.operations if operation.kind == UNKNOWN]

    def own_rule(self, operation: Operation) -> EventRule | None:
        """The rule of the user's own that finishes an operation, which then does nothing else."""
        delta = operation.finish.delta
        return None if delta is None else self.own_rules.get(delta.name)

    def runs_in_python(self, operation: Operation) -> bool:
        """Whether no kernel computes it: it is left to Keras, or stands alone, see ``sections``."""
        return operation.kind == UNKNOWN or self._stands_alone(operation)

    def _stands_alone(self, operation: Operation) -> bool:
        return operation.kind in (DELAY, GIVEN) or self.own_rule(operation) is not None or operation.restarts

    @property
    def delays(self) -> list[Operation]:
        """Operations that give what was in the frame before."""
        return [operation for operation in self.operations if operation.kind == DELAY]

    @property
    def further(self) -> list[Operation]:
        """Further inputs, each named as in the model, and in its order."""
        found = [operation for operation in self.operations if operation.kind == GIVEN]
        return sorted(found, key=lambda operation: operation.output)

    def sections(self) -> list[tuple[int, int]]:
        """Operations from ... to that run in one go: by kernels, or neighbours that are left to Keras.

        A delay, a further input, the delta layer of a state, and one with an event rule of the user's own, stand alone.
        """
        bounds: list[tuple[int, int]] = []
        before: object = None
        for place, operation in enumerate(self.operations):
            alone = self._stands_alone(operation)
            kind = place if alone else operation.kind == UNKNOWN
            if bounds and kind == before and type(kind) is type(before):
                bounds[-1] = (bounds[-1][0], place + 1)
            else:
                bounds.append((place, place + 1))
            before = kind
        return bounds

    def read_by(self, first: int, last: int) -> list[int]:
        """Tensors that operations from ``first`` to ``last - 1`` read, and do not make."""
        operations = self.operations[first:last]
        made = {operation.output for operation in operations}
        return sorted({index for operation in operations for index in operation.inputs} - made)

    @property
    def has_own_code(self) -> bool:
        """Whether it runs what no file of a plan holds: layers left to Keras, or rules of the user's own."""
        return bool(self.unknown or self.own_rules)

    def dense_macs(self) -> int:
        """MACs of one frame in all operations, those left to Keras included where they can be counted.

        The sum over what ``deltafine.model.mac_layers`` lists for a model of single frames.
        """
        return sum(operation.dense_macs or 0 for operation in self.operations)

    def notes(self) -> list[str]:
        """What no kernel runs: a sentence for each layer left to Keras, with its share of the MACs, and for each rule.

        Event rules of the user's own run through NumPy, on whole frames.
        """
        whole = self.dense_macs()
        said = []
        for operation in self.unknown:
            macs = operation.dense_macs
            share = "MACs that cannot be counted" if macs is None else f"{macs / whole:.1%} of the MACs" if macs else ""
            said.append(
                f"'{operation.name}' ({operation.layer}) runs densely through Keras{share and f', with {share}'}"
            )
        for rule, count in Counter(rule.name for rule in self.own_rules.values()).items():
            layers = f"{count} delta layer{'s' * (count > 1)}"
            said.append(f"The rule '{rule}' of {layers} has no kernel, and runs through NumPy")
        return said

    def save(self, folder: Path) -> None:
        """Write ``plan.json`` and ``plan.npz``; both appear whole, the JSON last.

        Raises:
            CannotWrite: the disk is full, or the folder may not be written.
        """
        make_folder(folder)
        document = {"version": VERSION, **dataclasses.asdict(dataclasses.replace(self, arrays={}, own_rules={}))}
        del document["arrays"], document["own_rules"]
        write_atomically(folder / run_files.PLAN_ARRAYS, lambda path: np.savez(path, **self.arrays))  # type: ignore[arg-type]
        write_atomically(folder / run_files.PLAN, (json.dumps(document, indent=1) + "\n").encode())

    @classmethod
    def load(cls, folder: Path) -> Plan:
        """Read what ``save`` wrote.

        Raises:
            DeltafineError: it is not there, damaged, or of another version.
        """
        try:
            document = json.loads(read_small(folder / run_files.PLAN, _MOST_BYTES))
            if document.pop("version") != VERSION:
                raise DeltafineError(f"The plan in {folder} is of another version: compile the model again.")
            with np.load(folder / run_files.PLAN_ARRAYS) as archive:
                arrays = {name: archive[name] for name in archive.files}
            return plan_of(document, arrays)
        except DeltafineError:
            raise
        except Exception as error:  # whatever JSON, zip and NumPy make of a file that is damaged
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".rstrip(". ")
            raise DeltafineError(f"The plan in {folder} cannot be read ({reason}): compile the model again.") from error


def plan_of(document: JsonObject, arrays: dict[str, np.ndarray]) -> Plan:
    """The plan that a JSON document and its arrays describe; other exceptions than ours where they describe none."""
    tensors = [Tensor(t["name"], tuple(t["shape"]), tuple(t["sample_shape"])) for t in document["tensors"]]
    outputs, structure = tuple(document["outputs"]), document["structure"]
    packed(structure, outputs)  # fails here, not in the first step
    operations = [_operation(operation) for operation in document["operations"]]
    return Plan(document["name"], tensors, operations, outputs, arrays, structure, document.get("clip", 0))


def _operation(document: JsonObject) -> Operation:
    finish = document.pop("finish")
    delta = finish.pop("delta")
    finish["parameters"] = tuple(finish["parameters"])
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in document.items()
    }
    return Operation(**values, finish=Finish(**finish, delta=Delta(**delta) if delta else None))

"""The runtime's plan as JSON and NPZ: all that firmware needs to compute a refined model frame by frame.

docs/plan.md explains every field, and docs/plan.schema.json is its schema.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from deltafine.errors import DeltafineError
from deltafine.exporting.comparing import compare_streams
from deltafine.exporting.export_format import Agreement, ExportFormat, Source
from deltafine.model.insert import delta_layers
from deltafine.runtime.given_values import step_packed
from deltafine.runtime.lowering.lower import compile_model
from deltafine.runtime.numpy_stream import NumpyState
from deltafine.runtime.plan import GIVEN, UNKNOWN, Operation, Plan, plan_of
from deltafine.storage.files import JsonObject, write_atomically

FORMAT, FORMAT_VERSION = "deltafine plan", 1
_WITH_MEMORY = ("send-on-delta",)
_KINDS = frozenset(
    {"input", "identity", "conv", "depthwise", "max_pool", "average_pool", "global_average", "global_max", "place"}
    | {"given", "reshape", "concatenate", "add", "subtract", "multiply", "average", "maximum", "minimum"}
)
_ACTIVATIONS = frozenset(
    {"linear", "relu", "sigmoid", "tanh", "silu", "hard_sigmoid", "hard_silu", "elu", "selu", "gelu", "gelu_tanh"}
    | {"softplus", "softsign", "exponential", "softmax"}
)
"""What docs/plan.md describes in this version of the format; the runtime computes more."""


@dataclass(frozen=True)
class ExportedPlan:
    """What is written.

    Attributes:
        document: the JSON, but for what is only known of the arrays' file.
        arrays: weights, thresholds and fan-outs by name.
        refined: the model that it was made of.
    """

    document: JsonObject
    arrays: dict[str, np.ndarray]
    refined: keras.Model


class PlanFile(ExportFormat):
    """The plan: ``FILE.json``, and ``FILE.npz`` beside it."""

    name = "plan"
    purpose = "firmware and hardware toolchains: every operation, shape, weight, threshold and rule"
    suffix = ".json"
    endings = (".json",)
    forms = ()
    compared = "may"
    takes_further_inputs = True

    def files(self, file: Path) -> tuple[Path, ...]:
        return (file, file.with_suffix(".npz"))

    def frames_per_video(self, form: str) -> int:
        return 75

    def input_shape(self, made: ExportedPlan) -> tuple[int | None, ...]:
        return (None, *made.document["input"]["shape"])

    def make(self, refined: keras.Model, *, form: str = "stripped", frames: int | None = None) -> ExportedPlan:
        if not delta_layers(refined):
            raise DeltafineError(f"Model '{refined.name}' has no delta layers: give the refined model of a run.")
        plan = compile_model(refined).plan
        require_plain(plan)
        return ExportedPlan(_document(plan), plan.arrays, refined)

    def complete(self, made: ExportedPlan, source: Source) -> ExportedPlan:
        return dataclasses.replace(made, document=with_model_file(made.document, source.model_file))

    def write(self, made: ExportedPlan, file: Path) -> None:
        write_both(made.document, made.arrays, file)

    def check(self, made: ExportedPlan, file: Path, clips: np.ndarray | None) -> Agreement | None:
        plan = read_plan(file)
        if clips is None:
            return None
        state = NumpyState(plan, _no_keras)

        def step(frame: np.ndarray, first: bool) -> list[np.ndarray]:
            if first:
                state.reset()
            step_packed(plan, state, frame)
            return [state.value(index).reshape(plan.tensors[index].sample_shape) for index in plan.outputs]

        return compare_streams(step, made.refined, clips)


def read_plan(file: Path) -> Plan:
    """Read an exported plan.

    Raises:
        DeltafineError: it is damaged, of another version, or its arrays are those of another plan.
    """
    document, arrays = read_both(file, FORMAT, FORMAT_VERSION)
    try:
        return plan_of({**document, "name": document["model"]["name"]}, arrays)
    except Exception as error:  # whatever a document raises that is none
        raise DeltafineError(f"{file} cannot be read ({type(error).__name__}: {error}): export it again.") from error


def with_model_file(document: JsonObject, model_file: Path | None) -> JsonObject:
    """The document of a plan, with name and digest of the file that its model was read from."""
    if model_file is None:
        return document
    return {**document, "model": {**document["model"], "file": model_file.name, "sha256": _digest(model_file)}}


def write_both(document: JsonObject, arrays: Mapping[str, np.ndarray], file: Path) -> None:
    """Write a document and its arrays beside it; the JSON, which names the digest of the arrays, last."""
    beside = file.with_suffix(".npz")
    write_atomically(beside, lambda path: np.savez(path, **arrays))  # type: ignore[arg-type]
    shapes = {name: {"shape": list(array.shape), "type": array.dtype.name} for name, array in arrays.items()}
    whole = {**document, "arrays": {"file": beside.name, "sha256": _digest(beside), "shapes": shapes}}
    write_atomically(file, (json.dumps(whole, indent=1) + "\n").encode())


def read_both(file: Path, format: str, version: int) -> tuple[JsonObject, dict[str, np.ndarray]]:
    """Read what ``write_both`` wrote.

    Raises:
        DeltafineError: it is damaged, of another version, or its arrays are those of another plan.
    """
    try:
        document = json.loads(file.read_text("utf-8"))
        if (document["format"], document["version"]) != (format, version):
            raise DeltafineError(f"{file} is no {format} of version {version}: export it again.")
        beside = file.with_name(document["arrays"]["file"])
        if _digest(beside) != document["arrays"]["sha256"]:
            raise DeltafineError(f"{beside} is not the file that {file} was written with: export both again.")
        with np.load(beside) as archive:
            return document, {name: archive[name] for name in archive.files}
    except DeltafineError:
        raise
    except Exception as error:  # whatever JSON, zip and NumPy make of a file that is damaged
        raise DeltafineError(f"{file} cannot be read ({type(error).__name__}: {error}): export it again.") from error


def require_plain(plan: Plan) -> None:
    """Refuse a plan that needs code beyond itself.

    Raises:
        DeltafineError: naming the layer.
    """
    for operation in plan.operations:
        if operation.kind in _KINDS and operation.finish.activation in _ACTIVATIONS:
            continue
        why = "left to Keras" if operation.kind == UNKNOWN else "not in the plan's format"
        raise DeltafineError(
            f"Layer '{operation.name}' ({operation.layer}) of model '{plan.name}' is {why}, so no plan holds it: "
            "export the model as keras, tflite or onnx with --form streaming, or replace the layer."
        )
    for name, rule in plan.own_rules.items():
        raise DeltafineError(
            f"Delta layer '{name}' of model '{plan.name}' has the rule '{rule.name}', which is code of your own, so no "
            "plan holds it: export the model as keras, tflite or onnx with --form streaming."
        )


def _document(plan: Plan) -> JsonObject:
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        **described(plan),
        "operations": [_without_table(operation) for operation in plan.operations],
    }


def _without_table(operation: Operation) -> JsonObject:
    """An operation, without what none of the kinds in the format has."""
    without = ("table", "before", "restarts", *(() if operation.kind == GIVEN else ("whole", "most")))
    return {key: value for key, value in dataclasses.asdict(operation).items() if key not in without}


def described(plan: Plan) -> JsonObject:
    """What the documents of plans in floating point and in whole numbers have in common."""
    consumers: dict[int, list[int]] = {index: [] for index in range(len(plan.tensors))}
    maker = {}
    for place, operation in enumerate(plan.operations):
        maker[operation.output] = place
        for index in dict.fromkeys(operation.inputs):
            consumers[index].append(place)
    deltas = [_delta(plan, place, operation, consumers) for place, operation in enumerate(plan.operations)]
    return {
        "model": {"name": plan.name, "file": None, "sha256": None},
        "input": {"tensor": plan.operations[0].output, "shape": list(plan.input_shape), "type": "float32"},
        **({"further_inputs": _further_inputs(plan)} if plan.further else {}),
        "outputs": list(plan.outputs),
        "structure": plan.structure,
        "dense_macs": plan.dense_macs(),
        "tensors": [
            {**dataclasses.asdict(tensor), "maker": maker[index], "consumers": consumers[index]}
            for index, tensor in enumerate(plan.tensors)
        ],
        "delta_layers": [delta for delta in deltas if delta is not None],
    }


def _further_inputs(plan: Plan) -> list[JsonObject]:
    """What comes with each frame beside its pixels."""
    return [
        {"name": operation.name, "tensor": operation.output, "shape": list(plan.tensors[operation.output].sample_shape)}
        for operation in plan.further
    ]


def _delta(plan: Plan, place: int, operation: Operation, consumers: Mapping[int, list[int]]) -> JsonObject | None:
    delta = operation.finish.delta
    if delta is None:
        return None
    remembers = delta.rule in _WITH_MEMORY
    height, width, channels = plan.tensors[operation.output].shape
    return {
        **dataclasses.asdict(delta),
        "operation": place,
        "tensor": operation.output,
        "consumers": consumers[operation.output],
        "remembers": remembers,
        "first_frame": "value" if remembers else "rule",
        "events_of": height * width * (1 if delta.granularity == "pixel" else channels),
    }


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _no_keras(operations: Sequence[Operation], given: Mapping[int, np.ndarray]) -> list[np.ndarray]:
    raise AssertionError(f"'{operations[0].name}' was refused")

"""What the outputs of a model are: classes with names, numbers, or maps of either."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from deltafine.errors import DeltafineError, DeltafineWarning
from deltafine.runtime.output_structure import Structure
from deltafine.storage import run_files

if TYPE_CHECKING:
    from deltafine.runtime.plan import Plan

MOST_OF_A_MAP = 3
"""Classes of a map that a line names."""
MOST_NUMBERS = 8


@dataclass(frozen=True)
class OutputKind:
    """One output of a model.

    Attributes:
        name: of a dict of outputs its key, and otherwise the layer that makes it.
        kind: ``"classes"`` for one score per class, ``"map of classes"`` for that at every place, or ``"numbers"``.
        classes: their names; () where nobody tells.
    """

    name: str
    kind: Literal["classes", "map of classes", "numbers"]
    classes: tuple[str, ...] = ()

    def class_of(self, values: np.ndarray) -> tuple[int, str]:
        """The class with the highest score, and its name; "" where it has none."""
        best = int(values.argmax())
        return best, self.classes[best] if self.classes else ""

    def said(self, values: np.ndarray) -> str:
        """A value of this output in a few words."""
        if self.kind == "classes":
            best, name = self.class_of(values)
            return f"{name or f'class {best}'} ({values[best]:.3g})"
        if values.size == 1:
            return f"{values.item():.4g}"
        shape = "x".join(map(str, values.shape))
        if self.kind == "map of classes":
            found, counts = np.unique(values.argmax(-1), return_counts=True)
            order = counts.argsort(kind="stable")[::-1][:MOST_OF_A_MAP]
            names = (self.classes[found[place]] if self.classes else f"class {found[place]}" for place in order)
            shares = counts[order] / counts.sum()
            told = ", ".join(f"{name} {share:.0%}" for name, share in zip(names, shares, strict=True))
            return f"map {shape} ({told}{', ...' if len(found) > len(order) else ''})"
        if values.ndim > 1:
            return f"map {shape} ({values.min():.4g} to {values.max():.4g}, mean {values.mean():.4g})"
        told = " ".join(f"{value:.4g}" for value in values[:MOST_NUMBERS])
        return f"[{told}{f' ... {len(values)} values' if len(values) > MOST_NUMBERS else ''}]"

    def document(self, values: np.ndarray) -> dict[str, Any]:
        """A value of this output for JSON, which has no NaN and no infinity: null."""
        document: dict[str, Any] = {"values": _plain(values)}
        if self.kind == "classes":
            document["class"], name = self.class_of(values)
            if name:
                document["class_name"] = name
        return document


def outputs_of(plan: Plan, run: str | os.PathLike[str]) -> list[OutputKind]:
    """The outputs of a model, in the order in which ``flat`` gives their values.

    An output is scores of classes where it ends in softmax, or where the report of the run says so.

    Args:
        plan: of the model.
        run: the run directory or the model file that it came from.
    """
    classes, of_classes = _told_by_report(Path(run))
    kinds = []
    for key, place in _leaves(plan.structure, ""):
        index = plan.outputs[place]
        shape = plan.tensors[index].sample_shape
        layer, activation = _made_by(plan, index)
        scores = shape[-1] > 1 if shape else False
        is_class = scores and (activation == "softmax" or (of_classes and len(plan.outputs) == 1 and len(shape) == 1))
        kinds.append(
            OutputKind(
                key or layer,
                "numbers" if not is_class else "classes" if len(shape) == 1 else "map of classes",
                classes if is_class and len(classes) == shape[-1] else (),
            )
        )
    return _told_apart(kinds)


def flat(prediction: Any) -> list[np.ndarray]:
    """The outputs in a prediction, whatever its structure."""
    if isinstance(prediction, dict):
        return [value for inner in prediction.values() for value in flat(inner)]
    if isinstance(prediction, tuple | list):
        return [value for inner in prediction for value in flat(inner)]
    return [] if prediction is None else [prediction]


def _told_by_report(run: Path) -> tuple[tuple[str, ...], bool]:
    """The names of the classes, and whether the output is one score for each; () and False where no report says so."""
    from deltafine.report import load_report

    folder = run if run.is_dir() else run.parent
    if not (folder / run_files.REPORT).exists() or not (run.is_dir() or run.name == run_files.REFINED):
        return (), False
    try:
        report = load_report(folder)
    except DeltafineError as error:  # the model runs all the same
        warnings.warn(f"Classes are shown by their numbers: {error}", DeltafineWarning, stacklevel=2)
    else:
        data = [report.reference, report.data, report.stream_data]  # the first in the order of the outputs, if any
        names = next((one.classes for one in data if one is not None and one.classes), [])
        return tuple(names), report.model.outputs is not None
    return (), False


def _leaves(structure: Structure, key: str) -> Iterator[tuple[str, int]]:
    """Names and places of the outputs in a structure; "" where it has no names."""
    if isinstance(structure, int):
        yield key, structure
    elif structure is not None:
        kind, *inside = structure
        for number, inner in enumerate(inside):
            name, inner = inner if kind == "dict" else (str(number) if key else "", inner)
            yield from _leaves(inner, f"{key}/{name}".strip("/"))


def _made_by(plan: Plan, index: int) -> tuple[str, str]:
    """The layer and the activation that make a tensor."""
    maker = {operation.output: operation for operation in plan.operations}
    operation = maker[index]
    while operation.kind in ("reshape", "identity") and operation.finish.activation == "linear" and operation.inputs:
        operation = maker[operation.inputs[0]]
    return operation.name.rpartition("/")[2], operation.finish.activation


def _told_apart(kinds: list[OutputKind]) -> list[OutputKind]:
    names = [kind.name for kind in kinds]
    return [
        OutputKind(f"{kind.name} {place}", kind.kind, kind.classes) if names.count(kind.name) > 1 else kind
        for place, kind in enumerate(kinds)
    ]


def _plain(values: np.ndarray) -> Any:
    finite = np.isfinite(values)
    if finite.all():
        return values.tolist()
    listed = values.astype(object)
    listed[~finite] = None
    return listed.tolist()

"""Normalisations of each sample by itself, over all positions of a channel or of a group of channels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras

from deltafine.model.onnx_import.conv_operators import made
from deltafine.model.onnx_import.onnx_step import Step
from deltafine.model.onnx_import.placed import Placed

BY_GROUP = "GroupNormalization"
_SCALES_BY_CHANNEL = 21
"""Opset since which a normalisation of groups has a scale for each channel, and not for each group."""


def instance_normalization(step: Step) -> Placed:
    return _by_group(step, step.picture().value.shape[-1])


def group_normalization(step: Step) -> Placed:
    return _by_group(step, step.attribute("num_groups"))


def _by_group(step: Step, groups: int) -> Placed:
    x, scale, offset = step.picture(), step.constant(1), step.constant(2)
    channels = x.value.shape[-1]
    if scale is None or offset is None or not groups or channels % groups:
        raise step.refused("has no constant scale and offset, or groups that do not divide its channels.")
    shape = step.whole_numbers(3)  # of what was three operators
    if shape is not None and not _keeps(shape, (step.batch, *x.shape[1:])):
        raise step.refused("normalises groups of channels, and makes another shape of them.")
    if step.opset < _SCALES_BY_CHANNEL or shape is not None:
        scale, offset = (value.repeat(channels // value.size) for value in (scale, offset))
    layer = keras.layers.GroupNormalization(groups, epsilon=step.attribute("epsilon", 1e-5), name=step.name())
    return Placed(made(layer, x.value, scale, offset), x.order)


def _keeps(shape: list[int], before: tuple[int | None, ...]) -> bool:
    """Whether a reshape gives back the shape that there was; one axis may be left open."""
    pairs = list(zip(shape, before, strict=False))
    return len(shape) == len(before) and shape.count(-1) < 2 and all(new in (old, 0, -1) for new, old in pairs)


def joined(nodes: Iterable[Any], constants: Mapping[str, Any]) -> list[Any]:
    """The nodes, in which three that normalise groups of channels are one, as PyTorch's older exporter writes them.

    These reshape the picture to (batch, groups, values), normalise each group, and reshape it back.
    """
    from onnx import helper

    nodes = list(nodes)
    makers = {name: node for node in nodes for name in node.output}
    readers: dict[str, list[Any]] = defaultdict(list)
    for node in nodes:
        for name in node.input:
            readers[name].append(node)
    gone: set[int] = set()
    instead: dict[int, Any] = {}
    for node in nodes:
        before, behind = makers.get(node.input[0] if node.input else ""), readers[node.output[0]]
        if node.op_type != "InstanceNormalization" or before is None or before.op_type != "Reshape":
            continue
        scale, shape = constants.get(node.input[1]), constants.get(before.input[1])
        if scale is None or shape is None or [int(size) for size in shape] != [0, scale.size, -1]:
            continue
        if len(readers[node.input[0]]) > 1 or [one.op_type for one in behind] != ["Reshape"]:
            continue
        attributes = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
        inputs = [before.input[0], *node.input[1:], behind[0].input[1]]
        gone |= {id(before), id(node)}
        instead[id(behind[0])] = helper.make_node(
            BY_GROUP, inputs, behind[0].output, node.name, num_groups=scale.size, **attributes
        )
    return [instead.get(id(node), node) for node in nodes if id(node) not in gone]


OPERATORS: dict[str, Callable[[Step], Any]] = {
    "InstanceNormalization": instance_normalization, BY_GROUP: group_normalization,
}  # fmt: skip

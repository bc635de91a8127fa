"""Each operator against ONNX Runtime, in graphs as PyTorch writes them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from deltafine.errors import DeltafineError
from deltafine.model.onnx_import.importing import imported_graph
from tests.model.onnx_in.graphs import Graph, answers_apart


def f32(*values: float) -> np.ndarray:
    return np.array(values if len(values) != 1 else values[0], "float32")


def i64(*values: int) -> np.ndarray:
    return np.array(values, "int64")


def built(*nodes: tuple, channels: int = 4, opset: int = 17, shape: tuple | None = None) -> object:
    """A convolution, so that there are channels, and then these nodes in a row; "last" stands for what came before."""
    graph = Graph(*(shape or ("batch", 3, 8, 6)))
    if shape is None:
        graph.conv("input", channels, 3)
    for kind, *given_, attributes in nodes:
        graph.add(
            kind, *(graph.last if isinstance(one, str) and one == "last" else one for one in given_), **attributes
        )
    return graph.proto(opset)


LAST = "last"
CHANNELWISE = np.linspace(0.5, 2, 4, dtype="float32").reshape(1, 4, 1, 1)
CASES = {
    "a leaky relu": built(("LeakyRelu", {"alpha": 0.3})),
    "a slope for each channel": built(("PRelu", LAST, np.linspace(0.1, 0.4, 4, dtype="float32").reshape(4, 1, 1), {})),
    "one slope": built(("PRelu", LAST, np.full(1, 0.3, "float32"), {})),
    "a clip on both sides": built(("Clip", LAST, f32(-0.5), f32(0.4), {})),
    "a clip above": built(("Clip", LAST, "", f32(0.4), {})),
    "a clip below": built(("Clip", LAST, f32(0), {})),
    "hard sigmoid": built(("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5})),
    "another hard sigmoid": built(("HardSigmoid", {})),
    "hard swish": built(("HardSwish", {})),
    "elu": built(("Elu", {"alpha": 0.7})),
    "gelu": built(("Gelu", {}), opset=20),
    "gelu by tanh": built(("Gelu", {"approximate": "tanh"}), opset=20),
    "softmax of channels": built(("Softmax", {"axis": 1})),
    "log softmax of rows": built(("LogSoftmax", {"axis": 2})),
    "tanh and sigmoid": built(("Tanh", {}), ("Sigmoid", {}), ("Softplus", {})),
    "pixels that are normalised": built(
        ("Div", "input", f32(255), {}), ("Sub", LAST, f32(0.4, 0.5, 0.6).reshape(3, 1, 1), {}),
        ("Div", LAST, f32(0.2, 0.3, 0.4).reshape(1, 3, 1, 1), {}),
    ),
    "constants on the left": built(("Sub", f32(1), LAST, {}), ("Add", CHANNELWISE, LAST, {}), ("Div", f32(2), LAST, {}),
                                   ("Clip", LAST, f32(-9), f32(9), {})),
    "a constant for each row": built(("Mul", LAST, np.linspace(1, 2, 6, dtype="float32"), {})),
    "the larger of a tensor and a number": built(("Max", LAST, f32(0.1), {}), ("Pow", LAST, f32(2), {}), ("Sqrt", {})),
    "a mean over pictures": built(("ReduceMean", {"axes": [2, 3], "keepdims": 1}), ("Squeeze", LAST, i64(2, 3), {})),
    "a mean over channels": built(("ReduceMean", {"axes": [1], "keepdims": 0}), ("Unsqueeze", LAST, i64(1), {})),
    "a mean with its axes given": built(("ReduceMean", LAST, i64(-1, -2), {"keepdims": 0}), opset=18),
    "the largest over all": built(("GlobalMaxPool", {}), ("Flatten", {"axis": 1})),
    "zeros around": built(("Pad", LAST, i64(0, 0, 1, 2, 0, 0, 0, 1), {"mode": "constant"})),
    "ones around": built(("Pad", LAST, i64(0, 0, 1, 2, 0, 0, 0, 1), f32(1), {})),
    "zeros around two axes": built(("Pad", LAST, i64(1, 1), "", i64(-1), {}), opset=18),
    "reflections around": built(("Pad", LAST, i64(0, 0, 1, 2, 0, 0, 0, 1), {"mode": "reflect"})),
    "more channels of zeros": built(("Pad", LAST, i64(0, 1, 0, 0, 0, 2, 0, 0), {})),
    "pixels twice": built(
        ("Resize", LAST, "", f32(1, 1, 2, 3),
         {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}),
    ),
    "bilinear, twice": built(("Resize", LAST, "", f32(1, 1, 2, 2), {"mode": "linear"})),
    "bilinear to a size": built(("Resize", LAST, "", "", i64(5, 11), {"mode": "linear", "axes": [2, 3]}), opset=18),
    "bilinear, corner to corner": built(
        ("Resize", LAST, "", f32(1, 1, 2, 2), {"mode": "linear", "coordinate_transformation_mode": "align_corners"}),
    ),
    "cubic": built(("Resize", LAST, "", f32(1, 1, 2, 3), {"mode": "cubic", "cubic_coeff_a": -0.75})),
    "pixels to a size of no whole factor": built(
        ("Resize", LAST, "", "", i64(3, 4, 13, 4),
         {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}),
        shape=(3, 4, 8, 6),
    ),
    "pixels that become a block": built(("DepthToSpace", {"blocksize": 2}), channels=8),
    "pixels that are shuffled": built(("DepthToSpace", {"blocksize": 2, "mode": "CRD"}), ("Relu", {}), channels=8),
    "blocks that become channels": built(("SpaceToDepth", {"blocksize": 2}), ("Relu", {})),
    "edges around": built(("Pad", LAST, i64(0, 0, 1, 3, 0, 0, 0, 2), {"mode": "edge"})),
    "channels that are normalised alone": built(
        ("InstanceNormalization", LAST, f32(1, 2, 3, 4), f32(4, 3, 2, 1), {"epsilon": 1e-4}), ("Relu", {}),
    ),
    "groups of channels that are normalised": built(
        ("GroupNormalization", LAST, f32(1, 2, 3, 4), f32(4, 3, 2, 1), {"num_groups": 2, "epsilon": 1e-4}), opset=21,
    ),
    "groups of channels, normalised with a scale for each group": built(
        ("GroupNormalization", LAST, f32(1, 2), f32(4, 3), {"num_groups": 2}), opset=18,
    ),
    "groups of values that are normalised": built(
        ("Reshape", LAST, i64(0, 2, -1), {}),
        ("InstanceNormalization", LAST, f32(1, 2), f32(3, 4), {}), ("Reshape", LAST, i64(0, 4, 8, 6), {}),
    ),
    "lengths of vectors": built(("GlobalAveragePool", {}), ("Flatten", {}), ("ReduceL2", {"axes": [1]})),
    "sums of squares": built(("ReduceSumSquare", {"axes": [2, 3], "keepdims": 0})),
    "the smallest of a column": built(("ReduceMin", {"axes": [2]}), ("Selu", {}), ("Celu", {"alpha": 0.5})),
    "a reciprocal": built(("Exp", {}), ("Reciprocal", {})),
    "sums and means of three": built(("Sum", LAST, LAST, LAST, {}), ("Mean", LAST, LAST, {})),
    "swish": built(("Swish", {}), opset=24),
    "a transposed convolution": built(
        ("ConvTranspose", LAST, np.linspace(-1, 1, 4 * 5 * 9, dtype="float32").reshape(4, 5, 3, 3),
         np.linspace(0, 1, 5, dtype="float32"),
         {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 0]}),
    ),
    "another order of axes and back": built(
        ("Transpose", {"perm": [0, 2, 3, 1]}),
        ("MatMul", LAST, np.linspace(-1, 1, 20, dtype="float32").reshape(4, 5), {}),
        ("Transpose", {"perm": [0, 3, 1, 2]}), ("Relu", {}),
    ),
    "a normalisation of positions": built(
        ("Transpose", {"perm": [0, 2, 3, 1]}),
        ("LayerNormalization", LAST, f32(1, 2, 3, 4), f32(4, 3, 2, 1), {"axis": -1, "epsilon": 1e-6}),
        ("Transpose", {"perm": [0, 3, 1, 2]}),
    ),
    "channels that are shuffled": built(
        ("Reshape", LAST, i64(-1, 2, 2, 8, 6), {}), ("Transpose", {"perm": [0, 2, 1, 3, 4]}),
        ("Reshape", LAST, i64(0, 4, 8, 6), {}),
    ),
    "positions in a row": built(
        ("Reshape", LAST, i64(0, 4, -1), {}), ("Transpose", {"perm": [0, 2, 1]}), ("Softmax", {"axis": -1}),
    ),
    "a part of the channels": built(("Slice", LAST, i64(1), i64(99), i64(1), i64(2), {})),
    "one row": built(("Gather", LAST, np.array(-1), {"axis": 2})),
    "a dense layer behind pictures": built(
        ("Relu", {}), ("Flatten", {}), ("Dropout", {}),
        ("Gemm", LAST, np.linspace(-1, 1, 192 * 5, dtype="float32").reshape(5, 192), f32(1, 2, 3, 4, 5),
         {"transB": 1, "alpha": 0.5}),
    ),
    "flat pictures that are added": built(
        ("Flatten", {}), ("Add", LAST, np.linspace(-1, 1, 192, dtype="float32"), {}),
    ),
    "samples of the last axis": built(
        ("MatMul", LAST, np.linspace(-1, 1, 12, dtype="float32").reshape(6, 2), {}), ("Add", LAST, f32(1, 2), {}),
    ),
    "a picture with its channels last": built(("Relu", {}), ("Transpose", {"perm": [0, 3, 1, 2]}),
                                              ("GlobalAveragePool", {}), shape=("batch", 8, 6, 3)),
    "sounds": built(
        ("Conv", LAST, np.linspace(-1, 1, 45, dtype="float32").reshape(5, 3, 3), {"strides": [2], "pads": [1, 1]}),
        ("MaxPool", {"kernel_shape": [3], "strides": [2]}), shape=(1, 3, 16),
    ),
    "clips": built(
        ("Conv", LAST, np.linspace(-1, 1, 4 * 3 * 27, dtype="float32").reshape(4, 3, 3, 3, 3), {"pads": [1] * 6}),
        ("AveragePool", {"kernel_shape": [1, 2, 2], "strides": [1, 2, 2]}), shape=(1, 3, 4, 8, 6),
    ),
    "a depthwise convolution with two strides": built(
        ("Conv", LAST, np.linspace(-1, 1, 36, dtype="float32").reshape(4, 1, 3, 3), {"group": 4, "strides": [2, 1]}),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_operator_answers_as_onnx_runtime_does(case):
    assert answers_apart(CASES[case]) < 1e-5


def of_groups(shape: np.ndarray) -> Graph:
    """What PyTorch's older exporter makes of ``GroupNorm``, with shapes in nodes of their own."""
    graph = Graph("batch", 3, 8, 6)
    x = graph.conv("input", 4, 3)
    groups, ones, zeros = (
        graph.add("Constant", value=numpy_helper.from_array(values)) for values in (i64(0, 2, -1), f32(1, 1), f32(0, 0))
    )
    graph.add("Reshape", x, groups)
    graph.add("InstanceNormalization", graph.last, ones, zeros, epsilon=1e-4)
    graph.add("Reshape", graph.last, shape if len(shape) else graph.add("Shape", x))
    graph.add("Add", graph.add("Mul", graph.last, CHANNELWISE[0]), CHANNELWISE[0])
    return graph


@pytest.mark.parametrize("shape", [i64(0, 4, 8, 6), i64(-1, 4, 8, 6), np.zeros(0, "int64")], ids=str)
def test_three_operators_that_normalise_groups_are_one_layer(shape):
    proto = of_groups(shape).proto()
    assert answers_apart(proto) < 1e-5
    kinds = [type(operation).__name__ for operation in imported_graph(proto, "groups").model.operations]
    assert "GroupNormalization" in kinds
    assert "Reshape" not in kinds


def test_groups_of_another_shape_than_before_are_refused():
    right_or_refused(of_groups(i64(0, 4, 6, 8)).proto(), "normalises groups of channels, and makes another shape")


def test_shapes_that_are_computed_from_the_batch_are_known():
    """``x.view(x.size(0), -1)``, as exporters of all versions write it."""
    graph = Graph("batch", 3, 8, 6)
    x = graph.conv("input", 4, 3)
    size = graph.add("Gather", graph.add("Shape", x), np.array(0), axis=0)
    size = graph.add("Unsqueeze", size, i64(0))
    shape = graph.add("Concat", size, graph.add("Constant", value_ints=[-1], name="minus one"), axis=0)
    graph.add("Reshape", x, shape)
    graph.add("Gemm", graph.last, graph.drawn(192, 5))
    assert answers_apart(graph.proto()) < 1e-5


@pytest.mark.parametrize("after", ["Mul", "Max"])
def test_a_gate_that_is_spread_over_the_picture_is_a_gate(after):
    """``y * gate.view(b, c, 1, 1).expand_as(y)``, and what does not spread a value by itself."""
    graph = Graph("batch", 3, 8, 6)
    x = graph.conv("input", 4, 3)
    gate = graph.add("Sigmoid", graph.add("ReduceMean", x, axes=[2, 3], keepdims=0))
    gate = graph.add("Reshape", gate, i64(0, 4, 1, 1))
    wide = graph.add("Expand", gate, graph.add("Shape", x))
    graph.add(after, x, wide)
    assert answers_apart(graph.proto()) < 1e-5
    made = {type(operation).__name__ for operation in imported_graph(graph.proto(), "gate").model.operations}
    assert ("Repeat" in made) == (after == "Max")


def test_a_gate_and_a_split_meet_again():
    graph = Graph("batch", 3, 8, 6)
    x = graph.conv("input", 4, 3)
    gate = graph.add("HardSigmoid", graph.conv(graph.add("GlobalAveragePool", x), 4, 4, 1, pads=[0] * 4), alpha=1 / 6)
    x = graph.add("Mul", x, gate)
    graph.add("Split", x, i64(1, 3), axis=1, outputs=2)
    first, second = graph.nodes[-1].output
    graph.add("Concat", graph.add("Relu", second), first, axis=1)
    assert answers_apart(graph.proto()) < 1e-5


PAIR = st.tuples(st.integers(1, 3), st.integers(1, 3))


def right_or_refused(proto: object, operator: str) -> None:
    """The same answers, or an error that names the operator."""
    try:
        apart = answers_apart(proto)
    except DeltafineError as error:
        assert operator in str(error)  # noqa: PT017 (no error is as good)
    else:
        assert apart < 1e-5


@settings(max_examples=25, deadline=None)
@given(
    kernel=PAIR, strides=PAIR, dilations=st.sampled_from([(1, 1), (2, 2), (1, 2)]),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    auto=st.sampled_from(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]),
    groups=st.sampled_from([1, 1, 4, 4, 2]), size=st.tuples(st.integers(6, 9), st.integers(6, 9)),
)  # fmt: skip
def test_a_convolution_of_any_attributes_is_right_or_refused(kernel, strides, dilations, pads, auto, groups, size):
    assume(auto == "NOTSET" or max(dilations) == 1)  # as ONNX Runtime does
    graph = Graph("batch", 3, *size)
    x = graph.conv("input", 4, 3, 1, pads=[0] * 4)
    attributes = {"pads": pads} if auto == "NOTSET" else {"auto_pad": auto}
    weights = graph.drawn(8, 4 // groups, *kernel)
    graph.add("Conv", x, weights, group=groups, strides=strides, dilations=dilations, **attributes)
    right_or_refused(graph.proto(), "Conv")


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["MaxPool", "AveragePool"]), kernel=PAIR, strides=PAIR,
    ceil=st.booleans(), counted=st.booleans(),
    auto=st.sampled_from(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER"]), share=st.tuples(*[st.floats(0, 1)] * 2),
    relu=st.booleans(), size=st.tuples(st.integers(6, 9), st.integers(6, 9)),
)  # fmt: skip
def test_pooling_of_any_attributes_is_right_or_refused(kind, kernel, strides, ceil, counted, auto, share, relu, size):
    graph = Graph("batch", 3, *size)
    x = graph.conv("input", 4, 3)
    x = graph.add("Relu", x) if relu else x
    pads = [math.floor(part * (of // 2)) for part, of in zip(share, kernel, strict=True)] * 2
    assume(auto == "NOTSET" or all(step <= reach for step, reach in zip(strides, kernel, strict=True)))
    attributes = {"pads": pads, "ceil_mode": int(ceil)} if auto == "NOTSET" else {"auto_pad": auto}
    if kind == "AveragePool":
        attributes["count_include_pad"] = int(counted)
    graph.add(kind, x, kernel_shape=kernel, strides=strides, **attributes)
    right_or_refused(graph.proto(), kind)


@settings(max_examples=40, deadline=None)
@given(
    mode=st.sampled_from(["nearest", "linear", "cubic"]),
    coordinates=st.sampled_from(["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]),
    rounding=st.sampled_from(["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]),
    size=st.tuples(*[st.integers(1, 13)] * 2), by_factor=st.booleans(),
)  # fmt: skip
def test_a_picture_of_any_other_size_is_right_or_refused(mode, coordinates, rounding, size, by_factor):
    """From 8 x 6; ONNX Runtime reads factors and sizes."""
    graph = Graph("batch", 3, 8, 6)
    how = {"mode": mode, "coordinate_transformation_mode": coordinates, "nearest_mode": rounding}
    if by_factor:
        graph.add("Resize", graph.conv("input", 4, 3), "", f32(1, 1, size[0] / 4, size[1] / 4), **how)
    else:
        graph.add("Resize", graph.conv("input", 4, 3), "", "", i64(*size), axes=[2, 3], **how)
    right_or_refused(graph.proto(18), "Resize")

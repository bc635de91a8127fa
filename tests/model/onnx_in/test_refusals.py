"""What cannot be used is refused in one sentence that names the operator, or says what is wrong with the file."""

from __future__ import annotations

import importlib.util

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from deltafine.errors import DeltafineError
from deltafine.model import load
from tests.model.onnx_in.graphs import Graph, resnet


def refused(path, match):
    with pytest.raises(DeltafineError, match=match) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def one(kind, *given, **attributes):
    graph = Graph("batch", 3, 8, 8)
    x = graph.conv("input", 4, 3)
    graph.add(kind, x, *given, **attributes)
    return graph


WEIGHT = np.ones((4, 4, 3, 3), "float32")
OPERATORS = {
    "LRN": one("LRN", size=3),
    "Det": one("Det"),
    "Conv.*strides and dilations": one("Conv", WEIGHT, strides=[2, 2], dilations=[2, 2]),
    "Softmax.*batch": one("Softmax", axis=0),
    "Transpose.*batch": one("Transpose", perm=[1, 0, 2, 3]),
    "Flatten.*batch": one("Flatten", axis=0),
    "Reshape.*batch": one("Reshape", np.array([-1])),
    "Pad.*mode wrap": one("Pad", np.array([0, 0, 1, 1, 0, 0, 1, 1]), mode="wrap"),
    "Resize.*mode cubic tf_crop_and_resize": one(
        "Resize", np.zeros(8, "float32"), np.array([1, 1, 2, 2], "float32"), mode="cubic",
        coordinate_transformation_mode="tf_crop_and_resize",
    ),
    "InstanceNormalization.*input 2": one("InstanceNormalization", "input", np.ones(4, "float32")),
    "Cast.*float32": one("Cast", to=TensorProto.INT32),
    "ReduceMean.*batch": one("ReduceMean", axes=[0]),
}  # fmt: skip


@pytest.mark.parametrize("operator", OPERATORS)
def test_an_operator_without_a_counterpart_is_named(operator, tmp_path):
    refused(OPERATORS[operator].save(tmp_path / "model.onnx"), operator)


def test_a_quantised_network_is_refused_by_its_operators(tmp_path):
    graph = Graph("batch", 3, 8, 8)
    scale, zero = np.array(0.1, "float32"), np.array(0, "uint8")
    quantised = graph.add("QuantizeLinear", "input", scale, zero)
    graph.add("Relu", graph.add("DequantizeLinear", quantised, scale, zero))
    path = graph.save(tmp_path / "int8.onnx")
    refused(path, "operators DequantizeLinear, QuantizeLinear.*as it was before it was quantised")


def test_weights_beside_the_file_are_read_and_missed(tmp_path):
    path, beside = tmp_path / "model.onnx", tmp_path / "weights.bin"
    onnx.save(resnet().proto(), str(path), save_as_external_data=True, location="weights.bin", size_threshold=16)
    assert load(path).count_params() == load(resnet().save(tmp_path / "whole.onnx")).count_params()
    content = beside.read_bytes()
    beside.write_bytes(content[: len(content) // 2])
    refused(path, "'weights.bin' are cut short")
    beside.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n")
    refused(path, "'weights.bin', which is a Git LFS pointer: fetch it with git lfs pull")
    beside.unlink()
    refused(path, "'weights.bin', which is not beside it: copy that file, too")


def test_weights_outside_the_folder_are_not_read(tmp_path):
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "model.onnx"
    onnx.save(resnet().proto(), str(path), save_as_external_data=True, location="weights.bin", size_threshold=16)
    proto = onnx.load(str(path), load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            entry.value = "../weights.bin" if entry.key == "location" else entry.value
    path.write_bytes(proto.SerializeToString())
    (tmp_path / "in" / "weights.bin").rename(tmp_path / "weights.bin")
    refused(path, "outside its folder")


def test_a_file_that_is_cut_or_no_onnx_or_old_is_refused(tmp_path):
    path = resnet().save(tmp_path / "model.onnx")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    refused(path, "not a readable ONNX file, it may be cut short")
    path.write_text("another format")
    refused(path, "not a readable ONNX file")
    path.write_bytes(b"")
    refused(path, "no ONNX file with a network")
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n")
    refused(path, "Git LFS pointer")
    refused(one("Relu").save(path, opset=11), "opset 11.*13 and later: export it with 17")


def test_a_graph_that_reads_what_nothing_makes_is_refused(tmp_path):
    graph = one("Relu")
    graph.nodes[-1].input[0] = "nothing"
    refused(graph.save(tmp_path / "model.onnx"), "not valid ONNX")


def test_a_constant_of_absurd_size_is_not_made(tmp_path):
    graph = Graph("batch", 3, 8, 8)
    big = graph.add("ConstantOfShape", np.array([1 << 20, 1 << 20]))
    graph.add("Add", "input", big)
    refused(graph.save(tmp_path / "model.onnx"), "ConstantOfShape.*makes a constant of 1,099,511,627,776 values")


def test_without_onnx_the_sentence_says_what_to_install(tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "onnx" else found(name, *more))
    refused(resnet().save(tmp_path / "model.onnx"), r"needs onnx: pip install 'deltafine\[onnx\]'")

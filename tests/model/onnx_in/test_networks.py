"""Whole networks: the answers, the places of delta layers, and that the runtime computes all of it itself."""

from __future__ import annotations

import keras
import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from deltafine import DeltaRuntime
from deltafine.errors import DeltafineWarning
from deltafine.model import coverage, find_activations, load, pixels_note
from deltafine.model.onnx_import import same_answers
from deltafine.model.output_names import output_names
from tests.model.onnx_in.graphs import Graph, answers_apart, mobilenet, resnet

NETWORKS = {"resnet": resnet, "mobilenet": mobilenet}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request, tmp_path_factory):
    """A network and its file."""
    graph = NETWORKS[request.param]()
    return graph.proto(), graph.save(tmp_path_factory.mktemp("onnx") / f"{request.param}.onnx")


def test_a_network_answers_as_onnx_runtime_does(network):
    assert answers_apart(network[0]) < 1e-5


def test_delta_layers_stand_at_the_usual_sites_under_the_names_of_modules(network):
    path = network[1]
    sites = {site.name: site for site in find_activations(load(path))}
    chosen = {name for name, site in sites.items() if site.selected}
    assert chosen >= {"input", *(("relu", "layer1.0_relu") if "resnet" in path.name else ("features.1_conv.0.2",))}
    assert coverage(sites.values()) > 0.9


def test_the_runtime_computes_all_layers_itself(network):
    path = network[1]
    runtime = DeltaRuntime(load(path), engine="numpy")
    assert not [operation.name for operation in runtime.plan.operations if operation.kind == "keras"]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for frame in np.random.default_rng(0).normal(size=(3, 32, 32, 3)).astype("float32"):
        expected = session.run(None, {"input": frame.transpose(2, 0, 1)[None]})[0][0]
        np.testing.assert_allclose(runtime.step(frame), expected, atol=1e-5)


def test_pixels_are_spoken_of_only_where_nothing_scales_them(network, tmp_path):
    path = network[1]
    assert "--rescale torch" in pixels_note(path, load(path), None)
    assert pixels_note(path, load(path), "torch") is None
    scaled = Graph("batch", 3, 8, 8)
    scaled.conv(scaled.add("Div", "input", np.array(255, "float32")), 4, 3)
    path = scaled.save(tmp_path / "scaled.onnx")
    assert pixels_note(path, load(path), None) is None


def test_a_file_is_known_by_its_contents_and_loads_twice_with_the_same_names(network, tmp_path):
    other = tmp_path / "network.bin"
    other.write_bytes(network[1].read_bytes())
    names = [[layer.name for layer in load(path).layers] for path in (network[1], other)]
    assert names[0] == names[1]


def test_a_model_that_is_saved_by_keras_is_the_same(network, tmp_path):
    model = load(network[1])
    model.save(tmp_path / "model.keras")
    frames = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    np.testing.assert_array_equal(load(tmp_path / "model.keras")(frames), model(frames))


def test_several_outputs_keep_their_names_and_their_order():
    graph = Graph("batch", 3, 8, 8)
    x = graph.add("Relu", graph.conv("input", 4, 3))
    graph.add("Flatten", graph.add("GlobalAveragePool", x))
    pooled = graph.last
    graph.nodes += [helper.make_node("Identity", [pooled], ["z/classes"]), helper.make_node("Sigmoid", [x], ["map"])]
    graph.output("z/classes", "map", pooled)
    from deltafine.model.onnx_import.importing import imported_graph

    assert output_names(imported_graph(graph.proto(), "two").model) == ["z_classes", "map", pooled]
    assert answers_apart(graph.proto()) < 1e-5


def test_frames_of_any_size_are_taken_where_no_operator_needs_one():
    graph = Graph("batch", 3, "height", "width")
    x = graph.add("Relu", graph.conv("input", 4, 3, strides=[2, 2]))
    graph.add("Flatten", graph.add("GlobalAveragePool", graph.conv(x, 4, 4)))
    assert answers_apart(graph.proto()) < 1e-5


def test_a_function_of_the_exporter_is_opened():
    proto = resnet().proto()
    function = helper.make_function(
        "made.here", "Clamp", ["x"], ["y"], [helper.make_node("Relu", ["x"], ["y"])], [helper.make_opsetid("", 17)]
    )
    node = next(node for node in proto.graph.node if node.op_type == "Relu")
    node.op_type, node.domain = "Clamp", "made.here"
    proto.functions.append(function)
    proto.opset_import.append(helper.make_opsetid("made.here", 1))
    assert "Clamp" in str(proto.graph.node)
    from deltafine.model.onnx_import.onnx_reading import opened

    assert answers_apart(opened(proto)) < 1e-5


def test_answers_that_differ_are_found(network, tmp_path):
    """A model of which one weight is changed stands for a wrong conversion."""
    proto, path = network
    model = load(path)
    kernel = model.layers[-1].get_weights()
    kernel[0][0, 0] += 0.01
    model.layers[-1].set_weights(kernel)
    with pytest.raises(Exception, match=r"gives other answers.*differs by"):
        same_answers.check_answers(proto, model, [(0, 2, 3, 1)], [(0, 1)], path)


def test_without_onnx_runtime_onnx_itself_compares(network, monkeypatch):
    monkeypatch.setattr(same_answers, "RUNTIME", "a module that is not there")
    assert isinstance(load(network[1]), keras.Model)


def test_answers_that_cannot_be_compared_are_said(network, tmp_path):
    """ONNX Runtime finds no file, as if it did not know an operator."""
    proto, path = network
    model = load(path)
    with pytest.warns(DeltafineWarning, match="could not be run to compare"):
        same_answers.check_answers(proto, model, [(0, 2, 3, 1)], [(0, 1)], tmp_path / "none.onnx")


def test_a_whole_number_input_is_taken_as_pixels():
    graph = Graph("batch", 3, 8, 8)
    graph.inputs[0].type.tensor_type.elem_type = TensorProto.UINT8
    graph.conv(graph.add("Cast", "input", to=TensorProto.FLOAT), 4, 3)
    from deltafine.model.onnx_import.importing import imported_graph

    assert imported_graph(graph.proto(), "pixels").model.input_shape == (None, 8, 8, 3)


def test_modules_that_the_newer_exporter_says_beside_a_node_give_the_names():
    """``dynamo=True``: nodes are counted, and a convolution may say the layer that it was joined with."""
    graph = Graph("batch", 3, 8, 8)
    x = graph.add("Relu", graph.conv("input", 4, 3))
    x = graph.add("Relu", graph.conv(x, 4, 4))
    x = graph.add("Add", x, x)
    graph.add("Flatten", graph.add("GlobalAveragePool", graph.add("Relu", x)))
    said = [
        ["layer1", "layer1.0", "layer1.0.bn1"], ["layer1", "layer1.0", "layer1.0.relu"],
        ["features.1", "features.1.conv", "features.1.conv.0", "features.1.conv.0.1"], ["layer1.0", "layer1.0.relu"],
        ["layer1", "layer1.0"], [], ["avgpool"], [],
    ]  # fmt: skip
    for number, (node, scopes) in enumerate(zip(graph.nodes, said, strict=True)):
        node.name = f"node_{number}"
        entry = node.metadata_props.add()
        entry.key, entry.value = "pkg.torch.onnx.name_scopes", str(["", *scopes, f"call_{number}"])
    weights = graph.nodes[0].input[1]
    next(one for one in graph.weights if one.name == weights).name = "layer1.0.conv1.weight"
    graph.nodes[0].input[1] = "layer1.0.conv1.weight"
    from deltafine.model.onnx_import.importing import imported_graph

    made = [operation.name for operation in imported_graph(graph.proto(), "named").model.operations]
    assert made == [
        "input", "layer1.0_conv1", "layer1.0_relu", "features.1_conv.0.1", "layer1.0_relu_1", "layer1.0_Add", "Relu",
        "avgpool", "Flatten",
    ]  # fmt: skip
    assert answers_apart(graph.proto()) < 1e-5


def test_the_runtime_computes_what_keras_has_no_layer_for():
    """As in a U-Net with ``align_corners=True``, pixels that are shuffled, and groups that are normalised."""
    graph = Graph("batch", 3, 8, 8)
    x = graph.add("Relu", graph.conv("input", 4, 3))
    y = graph.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    how = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
    y = graph.add("Resize", y, "", np.array([1, 1, 2, 2], "float32"), **how)
    y = graph.add("Pad", graph.add("Concat", x, y, axis=1), np.array([0, 0, 2, 1, 0, 0, 0, 1]), mode="edge")
    scale, offset = (graph.weight(values) for values in (np.linspace(1, 2, 8, dtype="float32"), graph.drawn(8)))
    graph.add("GroupNormalization", graph.conv(y, 8, 8), scale, offset, num_groups=2)
    graph.add("DepthToSpace", graph.add("Relu"), blocksize=2, mode="CRD")
    graph.conv(graph.last, 2, 2)
    from deltafine.model.onnx_import.importing import imported_graph

    proto = graph.proto(21)
    model = imported_graph(proto, "unet").model
    runtime = DeltaRuntime(model, engine="numpy")
    assert not [operation.name for operation in runtime.plan.operations if operation.kind == "keras"]
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for frame in np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype("float32"):
        expected = session.run(None, {"input": frame.transpose(2, 0, 1)[None]})[0][0].transpose(1, 2, 0)
        np.testing.assert_allclose(runtime.step(frame), expected, atol=1e-5)

"""Every command with a network that came as ONNX."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
import pytest

from tests.cli.running import Command, Done
from tests.model.onnx_in.graphs import Graph, resnet

FAST = ("--frames", 4, "--batch", 4, "--relative-threshold", 0.5)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With its weights in a file of their own, as PyTorch exports them today."""
    path = tmp_path_factory.mktemp("onnx") / "network.onnx"
    proto, beside = resnet(16).proto(), {"location": "network.onnx.data", "size_threshold": 0}
    onnx.save(proto, str(path), save_as_external_data=True, **beside)
    return path


def done(result: Done) -> Done:
    assert result.code == 0, result
    return result


def test_inspect_lists_the_sites_of_a_network_in_onnx(network: Path, deltafine: Command) -> None:
    plan = json.loads(done(deltafine("inspect", network, "--json")).output)
    assert plan["model"]["input_shape"] == [None, 16, 16, 3]
    assert {"input", "relu", "layer1.0_relu"} <= {site["name"] for site in plan["sites"] if site["selected"]}


def test_an_operator_that_has_no_counterpart_is_one_sentence(deltafine: Command, videos: Path, tmp_path: Path) -> None:
    graph = Graph("batch", 3, 16, 16)
    graph.add("LRN", graph.conv("input", 4, 3), size=3)
    path = graph.save(tmp_path / "model.onnx")
    commands = (("inspect",), ("run", videos), ("report", "--data", videos), ("export",))
    said = {deltafine(name, path, *more).refusal for name, *more in commands}
    said.add(deltafine("refine", path, "--data", videos, "--out", tmp_path / "run").refusal)
    assert len(said) == 1
    assert "the operator LRN" in said.pop()
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_of_a_network_in_onnx_serves_all_commands(
    network: Path, deltafine: Command, videos: Path, tmp_path: Path
) -> None:
    out, told = tmp_path / "run", ("--data", videos)
    said = done(deltafine("refine", network, *told, "--out", out, "--epochs", 1, *FAST))
    assert "give --rescale torch" in " ".join((said.output + said.errors).split())
    done(deltafine("report", out))
    document = json.loads((out / "report.json").read_bytes())
    assert document["models"]["original"]["streams"]["operations"]["mac_density"] > 0
    done(deltafine("report", out / "refined.keras", "--original", network, "--data", videos, "--format", "json"))
    done(deltafine("export", out))
    plain = keras.models.load_model(out / "export" / "stripped.keras")
    assert plain(np.zeros((1, *plain.input_shape[1:]), "float32")).shape[-1] == 2
    for source in (out, network):
        done(deltafine("run", source, videos / "dark" / "dark0.avi", "--no-calibrate"))
    done(deltafine("export", out, "--format", "onnx"))
    (exported,) = (out / "export").glob("*.onnx")
    assert onnxruntime.InferenceSession(str(exported)).get_outputs()
    done(deltafine("refine", network, *told, "--out", out, "--resume"))
    beside = network.with_name("network.onnx.data")
    beside.write_bytes((np.frombuffer(beside.read_bytes(), "float32") * 0.9).astype("float32").tobytes())
    assert "is not the one" in deltafine("refine", network, *told, "--out", out, "--resume").refusal

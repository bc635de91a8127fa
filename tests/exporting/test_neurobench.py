"""The report's figures under NeuroBench's keys."""

from __future__ import annotations

import json

import pytest

import deltafine
from deltafine.errors import DeltafineError
from deltafine.exporting import Source
from deltafine.exporting.writing import write_export
from deltafine.report.store import json_text
from tests.exporting.test_plan import tiny
from tests.report.builders import make_report


def test_the_figures_are_those_of_the_report_under_their_keys(tmp_path):
    report = make_report()
    operations = report.models["refined"].streams.operations
    operations.accumulates_spatial_with_first = 1000.0
    write_export(tiny("quantize"), tmp_path / "a.json", "neurobench", source=Source(report=lambda: report))
    written = json.loads((tmp_path / "a.json").read_text())
    assert set(written) == set(report.models)
    refined = written["refined"]
    assert refined["SynapticOperations"] == {
        "Effective_MACs": operations.effective_macs_spatial_with_first - 1000,
        "Effective_ACs": 1000,
        "Dense": operations.dense_macs,
    }
    assert refined["ActivationSparsity"] == operations.activation_sparsity
    assert refined["ClassificationAccuracy"] == report.models["refined"].streams.frame_accuracy.value
    assert refined["deltafine"]["mac_density"] == operations.mac_density
    assert written["original"]["ActivationSparsity"] == report.models["original"].streams.operations.activation_sparsity


def test_a_run_directory_has_the_report_and_a_model_alone_has_none(tmp_path):
    tiny("quantize").save(tmp_path / "refined.keras")
    with pytest.raises(DeltafineError, match=r"holds no report\.json"):
        deltafine.export(tmp_path, format="neurobench")
    (tmp_path / "report.json").write_text(json_text(make_report()), "utf-8")
    done = deltafine.export(tmp_path, format="neurobench")
    assert done.file == tmp_path / "export" / "neurobench.json"
    assert set(json.loads(done.file.read_text())) == set(make_report().models)
    with pytest.raises(DeltafineError, match="model 'tiny' comes without one: give a run directory"):
        write_export(tiny("quantize"), tmp_path / "a" / "a.json", "neurobench")
    assert not (tmp_path / "a").exists()

"""Every format in an environment that holds its receiver alone gives the answers that the export was checked with.

Environments are made anew, or once in the folder that ``KEPT_ENVIRONMENTS`` names.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import deltafine
from deltafine.exporting import FORMATS
from tests.exporting.clean_environments import CASES, NotInstalled, played
from tests.small_runs import FAST, write_small_model, write_small_videos

OWN_TESTS = {"lava", "akida"}
ROUNDED = {"int8", "int8-onnx", "fixed-plan"}
"""In 8 or 16 bits: compared with the check of the export, which knows the loss."""


def test_every_format_is_played_somewhere():
    assert {format for format, _ in CASES} | OWN_TESTS == set(FORMATS.names)
    for name in FORMATS.names:
        forms = FORMATS.get(name).forms or ("",)
        assert name in OWN_TESTS or {form for format, form in CASES if format == name} == set(forms)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, and a place for environments."""
    folder = tmp_path_factory.mktemp("clean")
    model = write_small_model(folder / "model.keras")
    deltafine.refine(model, write_small_videos(folder / "videos"), folder / "run", epochs=0, **FAST)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("format", "form"), CASES, ids=["-".join(filter(None, case)) for case in CASES])
def test_a_receiver_alone_gives_the_same_answers(format: str, form: str, folder: Path, tmp_path: Path):
    try:
        kept = Path(os.environ.get("KEPT_ENVIRONMENTS", folder / "environments"))
        found = played(folder / "run", format, form, tmp_path, kept)
    except NotInstalled as missing:
        pytest.skip(f"the receiver cannot be installed here: {missing}")
    if CASES[format, form][0] == "table":
        return
    assert found.frames >= 2
    if format in ROUNDED:
        assert abs(found.difference - found.checked) < 1e-3
    else:
        assert found.difference < 1e-5
        assert found.same == 1

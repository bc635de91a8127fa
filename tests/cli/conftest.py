"""The command, a small model and small videos."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.running import Command
from tests.compiled_kernels import compiled_kernels  # noqa: F401
from tests.small_runs import write_small_model, write_small_videos


@pytest.fixture
def deltafine(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(capsys, monkeypatch)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_model(tmp_path_factory.mktemp("model") / "small.keras")


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_videos(tmp_path_factory.mktemp("data") / "videos")

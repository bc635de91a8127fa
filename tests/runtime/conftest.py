"""Plans of model files are kept in a folder of the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compiled_kernels import compiled_kernels  # noqa: F401


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
